"""migrate: the application's own command brings the restored database up to its present schema."""

from __future__ import annotations

from larder import databases, secret
from larder.errors import LarderError
from larder.process import Process, ProcessError, StalledError
from tasks.restoration import Restoration, restoration
from tasks.step import Work, step

#: How many of the last lines of its output are shown.
LINES = 20

#: How much of its output is kept, in bytes.
_KEPT = 65536


@step("migrate", "restore")
def migrate(work: Work) -> None:
    """Run `post_restore` with the new database's address in DATABASE_URL; where it fails, nothing goes live.

    A command may come twice, after a kill: migrations that were applied are found by the tools that apply them.
    """
    found = restoration(work)
    command = list(found.target.post_restore)
    if not command:
        return
    if found.request.document.plan.selective:
        work.say("post_restore is not run: it is for whole databases")
        return
    work.say(f"Running post_restore: {' '.join(command)}")
    said = _run(found, command)
    for line in said[-LINES:]:
        work.say(f"post_restore: {line}")


def _run(found: Restoration, command: list[str]) -> list[str]:
    url = found.restorer.new_url().get_secret_value()
    for value in databases.secrets_in(url):
        secret.register(value)
    output = bytearray()
    try:
        with Process(
            command,
            {"DATABASE_URL": url},
            stall_seconds=found.target.stall_timeout,
            folder=found.target.base,
        ) as process:
            for data in process.output():
                output += data
                del output[:-_KEPT]
            process.finish()
    except (ProcessError, StalledError) as error:
        said = secret.redact_end(output, _KEPT).strip().splitlines()[-3:]
        beside = found.restorer.beside
        raise LarderError(
            f"unable to run post_restore: {_told(error)}{'; it said: ' if said else ''}{' / '.join(said)}",
            "nothing was replaced; mend the command or the migration, and ask for the restore again"
            if beside
            else f"the restored data is live, and this command failed on it: larder restore undo {found.request.id}, "
            "or run it by hand",
        ) from None
    return secret.redact_end(output, _KEPT).strip().splitlines()


def _told(error: ProcessError | StalledError) -> str:
    if isinstance(error, StalledError):
        return error.message
    return f"{error.tool} {error.how}{': ' if error.last_line else ''}{error.last_line}"
