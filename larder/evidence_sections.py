"""The parts of a report of evidence that are tables: what is promised, what went wrong, drills, restores, keys."""

from __future__ import annotations

from collections.abc import Sequence

from larder.evidence import Document
from larder.evidence_tables import (
    Column,
    Facts,
    at,
    badge,
    code,
    count,
    listed,
    newest,
    number,
    seconds,
    section,
    table,
)
from larder.markup import Content, Markup, element
from larder.objectives import span


def databases(document: Document) -> Markup:
    """What is configured."""
    columns: list[Column] = [
        ("Database", lambda row: row["database"], ""),
        ("Where", lambda row: row["address"], "text"),
        ("Schedule", lambda row: f"{row['schedule']} ({row['timezone']})", "when"),
        ("Keeps", lambda row: row["retention"], "some"),
        ("Stores", lambda row: f"{', '.join(row['stores'])} (at least {row['min_copies']})", "some"),
        ("Drills", _drilled, "some"),
        ("RPO", lambda row: span(row["rpo"]), "number"),
        ("RTO", lambda row: span(row["rto"]), "number"),
        ("Encrypted to", lambda row: f"{len(row['encrypt_to'])} keys" if row["encrypt_to"] else "nobody", ""),
    ]
    return section(
        "Databases and what is promised of them",
        table("As configured when this was made.", columns, document["databases"]),
    )


def _drilled(row: Facts) -> str:
    parts = [row["drill"], f"every {row['drill_every']} backups" if row["drill_every"] else None]
    return f"{', '.join(filter(None, parts)) or 'none is scheduled'}; compares {row['fingerprint']}"


def misses(misses: Sequence[Facts]) -> Markup:
    """Each objective that was missed."""
    columns: list[Column] = [
        ("Database", lambda row: row["database"], ""),
        ("Objective", lambda row: row["objective"], ""),
        ("What was missed", lambda row: row["detail"], "text"),
        ("Since", lambda row: at(row["since"]), "when"),
        (
            "Until",
            lambda row: at(row["ended"]) if row["ended"] else element("b", "still", class_="bad"),
            "when",
        ),
    ]
    return section("Objectives that were missed", table("Missed in the period, or still.", columns, misses))


def failures(document: Document) -> Markup:
    """Runs that failed or warned, copies with a problem, and backups that somebody took away."""
    runs: list[Column] = [
        ("Began", lambda row: at(row["began"]), "when"),
        ("Run", lambda row: code(row["run"]), ""),
        ("Database", lambda row: row["database"], ""),
        ("Of a", lambda row: row["kind"], ""),
        ("At", lambda row: row["step"] or "-", ""),
        ("Why", lambda row: row["error"] or "-", "text"),
    ]
    warned: list[Column] = [*runs[:4], ("Warnings", lambda row: listed(row["warnings"]), "text")]
    copies: list[Column] = [
        ("Backup", lambda row: code(row["backup"]), ""),
        ("Store", lambda row: row["store"], ""),
        ("What is wrong", lambda row: row["problem"], "text"),
        ("Last read", lambda row: at(row["verified"]), "when"),
    ]
    gone: list[Column] = [
        ("Backup", lambda row: code(row["backup"]), ""),
        ("Made", lambda row: at(row["made"]), "when"),
        ("Run", lambda row: code(row["run"]), ""),
    ]
    bad = [
        {**copy, "backup": backup["backup"]}
        for backup in document["backups"]
        for copy in backup["copies"]
        if copy["problem"] is not None
    ]
    return section(
        "What went wrong",
        table("Runs that failed.", runs, document["runs"]["failed"]),
        table("Copies with a problem.", copies, bad),
        table(
            "Backups that are in no store any more, and that nobody here deleted.",
            gone,
            [one for one in document["gone"] if not one["removed"]],
        ),
        table(
            "Runs that went well, with warnings.",
            warned,
            newest(document["runs"]["warned"], "began"),
            len(document["runs"]["warned"]),
        ),
    )


def drills(drills: Sequence[Facts]) -> Markup:
    """Each drill and what it found."""
    columns: list[Column] = [
        ("Began", lambda row: at(row["began"]), "when"),
        ("Backup", lambda row: code(row["backup"]), ""),
        ("From", lambda row: row["store"] or "-", ""),
        ("Outcome", lambda row: badge(row["outcome"] or "under way"), ""),
        ("Compared", lambda row: row["level"] or "-", ""),
        ("Tables", lambda row: number(row["tables"]), "number"),
        ("Rows", lambda row: number(row["rows"]), "number"),
        ("Recovery took", lambda row: seconds(row["recovery_seconds"]), "number"),
        (
            "Differences, or why it failed",
            lambda row: listed(row["differences"] or []) or row["error"],
            "text",
        ),
        ("Not covered", lambda row: listed(row["not_covered"] or []), "text"),
    ]
    return section(
        "Drills",
        element(
            "p",
            "A drill restores a backup into a scratch database and compares it with what was there when it was made. ",
            "proven: nothing differs. broken: something does. failed: nothing could be proven.",
            class_="soft",
        ),
        table("Each drill that began in the period.", columns, drills),
    )


def restores(restores: Sequence[Facts]) -> Markup:
    """Each restore, with who asked and who approved."""
    columns: list[Column] = [
        ("Requested", lambda row: at(row["requested"]), "when"),
        ("Request", lambda row: code(row["request"]), ""),
        ("Backup", lambda row: code(row["backup"]), ""),
        ("Into", lambda row: [row["target"], f" ({row['mode']})"], "text"),
        ("Asked by", lambda row: f"{row['requester']} (account {row['account']})", ""),
        ("Why", lambda row: row["reason"], "text"),
        ("Approved by", _approved, "text"),
        ("State", lambda row: badge(row["state"]), ""),
        ("Ended", lambda row: at(row["finished"]), "when"),
        ("What was replaced", _kept, "text"),
        ("Note", lambda row: row["note"] or "-", "text"),
    ]
    return section(
        "Restores", table("Each that was asked for, approved or ended in the period.", columns, restores)
    )


def _approved(row: Facts) -> Content:
    given = row["approval"]
    if given is None:
        return f"what approved {row['undoes']}, which it takes back" if row["undoes"] else "nobody"
    return [
        f"{given['approver']}, handed in {at(given['presented'])}, key ",
        code(given["fingerprint"] or given["key"]),
    ]


def _kept(row: Facts) -> Content:
    kept = f"kept as {row['kept']} until {at(row['kept_until'])}" if row["kept"] else None
    return (
        "; ".join(
            filter(None, [kept, row["safety_backup"] and f"backed up before as {row['safety_backup']}"])
        )
        or "-"
    )


def deletions(document: Document) -> Markup:
    """What was deleted, and why."""
    columns: list[Column] = [
        ("Deleted", lambda row: at(row["deleted"]), "when"),
        ("Backup", lambda row: code(row["backup"]), ""),
        ("From", lambda row: row["store"], ""),
        ("Why", lambda row: row["why"], "text"),
    ]
    found = document["deletions"]
    return section(
        "Copies that were deleted on purpose",
        table("In the period, whenever they were made.", columns, newest(found, "deleted"), len(found)),
    )


def audit(audit: Facts) -> Markup:
    """The audit trail of the period."""
    columns: list[Column] = [
        ("", lambda row: row["number"], "number"),
        ("When", lambda row: at(row["moment"]), "when"),
        ("What", lambda row: row["event"], ""),
        ("Request", lambda row: code(row["request"] or "-"), ""),
        ("By", lambda row: row["actor"], ""),
        ("Facts", lambda row: code(row["facts"]), "hash"),
    ]
    if audit["problem"]:
        whole = element("p", element("b", audit["problem"], class_="bad"))
    else:
        head = audit["head"]
        whole = (
            element("p", "Nothing was ever asked for.")
            if not head["number"]
            else element(
                "p",
                f"All {count(head['number'], 'row')} of the trail, before and after this period too, are "
                "as they were written. The hash of the last one is ",
                code(head["hash"]),
                ".",
            )
        )
    rows = audit["rows"]
    return section(
        "Who did what about restores",
        whole,
        table("Rows of the audit trail.", columns, newest(rows, "number"), len(rows)),
    )


def keys(keys: Facts) -> Markup:
    """Whose keys sign, approve and decrypt."""
    key: Column = ("Public key", lambda row: code(row["key"]), "hash")
    name: Column = ("Name", lambda row: row["name"], "")
    return section(
        "Keys in force",
        table("Signers that are configured.", [name, key], keys["signers"]),
        table(
            "Signers that the ledger has met.",
            [name, key, ("Since", lambda row: at(row["since"]), "when")],
            keys["known_signers"],
        ),
        table(
            "Approvers of restores.",
            [name, key, ("Fingerprint", lambda row: code(row["fingerprint"] or "-"), "hash")],
            keys["approvers"],
        ),
        table(
            "Who can decrypt backups (age).",
            [
                ("Recipient", lambda row: code(row["recipient"]), "hash"),
                ("Databases", lambda row: ", ".join(row["databases"]), "text"),
            ],
            keys["recipients"],
        ),
    )
