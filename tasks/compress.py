"""compress: the dump becomes the artifact, which is read back and decoded to its end."""

from __future__ import annotations

from pathlib import Path

from larder import artifact
from larder.artifact import Artifact, File
from larder.databases import Dump, Piece, open_database
from larder.encoding import encoding_of
from larder.naming import artifact_name, globals_name
from larder.progress import short_size
from tasks.step import Work, step


@step("compress", "backup")
def compress(work: Work) -> None:
    """Give the dump its archive encoding, and prove that it decodes to what the dump saw."""
    dump = work.spool.result("dump", Dump)
    database = open_database(work.database, work.settings.state_dir)
    suffix = encoding_of(work.database).suffix

    def encode(piece: Piece, folder: Path, name: str) -> File:
        # Where files are encrypted, this one can be read back with the key that this very encoding has made up.
        wanted = encoding_of(work.database)
        work.progress.restart(piece.raw_size)
        source = work.spool.path("dump") / piece.path
        return artifact.encode(dump, piece, source, folder / name, wanted, work.progress)

    def make(folder: Path) -> Artifact:
        name = artifact_name(database.engine, work.run.stamp, dump.suffix, suffix)
        content = encode(dump.content, folder, name)
        if dump.globals is None:
            return Artifact(content)
        return Artifact(
            content,
            encode(dump.globals, folder, globals_name(database.engine, work.run.stamp, suffix)),
        )

    made = work.spool.once("compress", work.lease.attempt, Artifact, make)
    work.artifact = made.content.name
    work.say(f"{database.title} backup created: {made.content.name}")
    work.say(f"Backup size: {short_size(made.content.size)}")
    work.say(f"Backup verified: decoded to {short_size(made.content.raw_size)} with the dump's own SHA-256")
    work.spooled = max(work.spool.size, dump.fullest)
    work.spool.drop("dump")
