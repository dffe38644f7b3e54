"""The ledger: what is going on, and what has been.

Which runs there are, at which step, held by whom and until when; which backups came of them and where their
copies lie; what was said on the way. Redis may vanish, the ledger may not, and even it can be rebuilt from the
manifests, which are the truth about backups.

| module | decides |
|---|---|
| `schema` | how the database is opened and migrated |
| `runs` | when a run begins, is busy, is lost, ends |
| `leases` | who may work on a run now, and whose commit counts |
| `admission` | which dumps may run at a time, and which wait |
| `hosts` | which machines' workers are there |
| `losses` | which runs were lost, and who may begin them anew |
| `backups` | which backups and copies are known, and their proof |
| `journal` | the lines that a run wrote for people |
| `signers` | which keys its hosts sign manifests with |
| `requests` | which restores were asked for, approved, spent, undone |
| `audit` | who did what about restores, so that nobody can unsay it |
| `drills` | which backups were restored to see that they restore, and what was found |
| `standings` | how every database stands: newest backup, newest proven one, last recovery |
| `misses` | which objectives are missed and what has failed, and who was told |
| `slots` | whether the clock has started a task already |
"""

from __future__ import annotations

import sqlalchemy as sa

from larder.ledger.admission import Admission
from larder.ledger.audit import Audit
from larder.ledger.backups import Backups
from larder.ledger.drills import Drills
from larder.ledger.hosts import Hosts
from larder.ledger.journal import Journal
from larder.ledger.leases import Leases
from larder.ledger.losses import Losses
from larder.ledger.misses import Misses
from larder.ledger.requests import Requests
from larder.ledger.runs import Runs
from larder.ledger.schema import open_engine
from larder.ledger.signers import Signers
from larder.ledger.slots import Slots
from larder.ledger.standings import Standings

__all__ = ["AwayError", "CrowdedError", "Ledger", "open_ledger"]

#: What is raised where the ledger's database does not answer, or not in time.
AwayError = sa.exc.OperationalError

#: What is raised where each of this process's connections to it is taken by somebody who waits for an answer.
CrowdedError = sa.exc.TimeoutError


class Ledger:
    """The ledger's rooms, on one database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self.runs = Runs(engine)
        self.leases = Leases(engine)
        self.hosts = Hosts(engine)
        self.admission = Admission(engine, self.runs)
        self.losses = Losses(engine, self.runs, self.hosts)
        self.backups = Backups(engine)
        self.journal = Journal(engine)
        self.signers = Signers(engine)
        self.slots = Slots(engine)
        self.drills = Drills(engine, self.runs, self.backups)
        self.standings = Standings(engine)
        self.misses = Misses(engine)
        self.audit = Audit(engine)
        self.requests = Requests(engine, self.runs, self.audit)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def open_ledger(url: str) -> Ledger:
    """The ledger at `url`, its tables up to date; raises `UnreachableError`."""
    return Ledger(open_engine(url))
