"""`python -m console`: the command line, where its script is not on the path."""

from __future__ import annotations

from console.cli import main

main(prog_name="larder")
