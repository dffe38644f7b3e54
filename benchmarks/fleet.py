"""Many databases: a flood of them, ten thousand that are idle, schedulers that compete, and a long life.

    make bench WHAT=fleet                        # everything, which takes most of an hour
    make bench WHAT=fleet ARGS='idle'            # one part of: flood, servers, idle, clocks, soak
    make bench WHAT=fleet ARGS='flood --databases 200'
    make bench WHAT=fleet ARGS='soak --soak 100'

Redis, workers, beats and databases are real. Other programs may use the machine too: what is compared with a target is
CPU time where that can be. Exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.fleet_clocks import clocks
from benchmarks.fleet_flood import flood, servers
from benchmarks.fleet_idle import idle
from benchmarks.fleet_parts import Targets
from benchmarks.fleet_soak import soak


def main() -> int:
    """Run what is asked for, and say what misses its target."""
    arguments = _arguments()
    targets = Targets()
    parts = {
        "flood": lambda: flood(arguments.databases, targets),
        "servers": lambda: servers(arguments.on_one_server, targets),
        "idle": lambda: idle(arguments.configured, targets),
        "clocks": lambda: clocks(arguments.minutes, targets),
        "soak": lambda: soak(arguments.soak, targets),
    }
    for name in arguments.parts or parts:
        parts[name]()
    print(f"\nmissed: {', '.join(targets.missed)}" if targets.missed else "\nevery target is met")
    return 1 if targets.missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="flood, servers, idle, clocks, soak; none: all"
    )
    parser.add_argument("--databases", type=int, default=1000, help="flood: how many are due in one minute")
    parser.add_argument("--on-one-server", type=int, default=200, help="servers: how many one server has")
    parser.add_argument("--configured", type=int, default=10_000, help="idle: databases in the configuration")
    parser.add_argument("--minutes", type=int, default=60, help="clocks: how long the simulated time is")
    parser.add_argument("--soak", type=int, default=2000, help="soak: backups through one worker")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
