"""A place of one's own for a test: a folder, an environment with nothing else in it, and the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.forked import Forker, can_run

#: Where console scripts of this environment lie.
SCRIPTS = Path(sys.executable).parent

#: Seconds after which a command hangs, and the test fails.
PATIENCE = 120


_FORKER = Forker()


class House:
    """Runs `larder` as a user would: in a folder, with an environment."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.backups = folder / "backups"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "BACKUP_DIR": str(self.backups),
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            **environment,
        }

    def larder(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command, environment = [str(SCRIPTS / "larder"), *arguments], {**self.environment, **more}
        if can_run(environment):
            return _FORKER.run(command, self.folder, environment, PATIENCE)
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *command: str | Path, **more: str) -> subprocess.Popen[str]:
        """Start a program of this environment and leave it running."""
        return subprocess.Popen(
            [SCRIPTS / command[0], *command[1:]],
            cwd=self.folder,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def configure(self, text: str) -> None:
        """Write larder.toml."""
        (self.folder / "larder.toml").write_text(text)
