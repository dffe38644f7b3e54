"""The entry of an undo: begun from the ledger alone. No message can begin one: there is no task of this name."""

from __future__ import annotations

from larder.ledger.requests import Request
from larder.ledger.runs import Run
from larder.restore_request import RestoreRequest
from larder.restore_target import restorer_for
from tasks import context
from tasks.restore import UNDO_STEPS, holds, safety_places, send, steps_of


def start(before: Request, document: RestoreRequest, by: str) -> Run:
    """Begin to take back `before` as `document` says, which the approval of `before` covers, and send its chain.

    Raises `BusyError`, and `UnreachableError` when the broker does not take the chain.
    """
    settings, requests = context.settings(), context.ledger().requests
    places = None
    steps: tuple[str, ...] = UNDO_STEPS
    if not restorer_for(settings, document).beside:
        # Nothing was kept beside: the safety backup is restored, after a backup of what is there now.
        places = safety_places(settings, document)
        steps = tuple(step for step in steps_of(settings, document, safety=True) if step != "migrate")
    run = requests.begin_undo(document, before.id, steps, holds(before), places, by)
    return send(run, requests.get(document.request))
