"""The numbers of a document of evidence, by what the document itself says: a reader can calculate them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def summarise(document: Mapping[str, Any]) -> dict[str, Any]:
    """What there is in a document, counted. Raises `KeyError` or `TypeError` where it is none."""
    backups, drills, misses = document["backups"], document["drills"], document["misses"]
    copies = [copy for backup in backups for copy in backup["copies"]]
    proofs = Counter(backup["proof"] for backup in backups)
    outcomes = Counter(drill["outcome"] or "under_way" for drill in drills)
    return {
        "databases": len(document["databases"]),
        "backups": {
            "kept": len(backups),
            "proven": proofs["proven"],
            "stored": proofs["stored"],
            "broken": proofs["broken"],
            "bytes": sum(backup["size"] for backup in backups),
            "no_longer_kept": len(document["gone"]),
            "gone_unexplained": sum(not gone["removed"] for gone in document["gone"]),
        },
        "copies": {
            "kept": len(copies),
            "read_back": sum(copy["verified"] is not None for copy in copies),
            "with_a_problem": sum(copy["problem"] is not None for copy in copies),
            "deleted": len(document["deletions"]),
        },
        "runs": {
            "backups": sum(document["runs"]["counts"].get("backup", {}).values()),
            "failed_backups": sum(run["kind"] == "backup" for run in document["runs"]["failed"]),
            "with_warnings": len(document["runs"]["warned"]),
        },
        "drills": {
            "all": len(drills),
            **{word: outcomes[word] for word in ("proven", "broken", "failed", "under_way")},
        },
        "restores": {
            "all": len(document["restores"]),
            **dict(sorted(Counter(restore["state"] for restore in document["restores"]).items())),
        },
        "misses": {"all": len(misses), "open": sum(miss["ended"] is None for miss in misses)},
        "audit_rows": len(document["audit"]["rows"]),
    }
