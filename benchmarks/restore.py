"""`make bench WHAT=restore`: restores alone, out of the suite."""

from __future__ import annotations

import sys

from benchmarks.suite import main

if __name__ == "__main__":
    sys.exit(main(["--only", "restore", *sys.argv[1:]]))
