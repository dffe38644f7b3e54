"""The description of the API, as OpenAPI has it: https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import larder
from console.web.answers import Answer

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_COUNT = {"type": "integer", "minimum": 0}
_YES_NO = {"type": "boolean"}
_TIME = {"type": "string", "format": "date-time"}
_TEXTS = {"type": "array", "items": _TEXT}


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _thing(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _any_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": schema}


_PART = _thing(ok=_YES_NO, detail=_TEXT)
_STATUS = {"type": "string", "enum": ["ok", "unsafe", "degraded"]}

_SCHEMAS: dict[str, Any] = {
    "Error": _thing(error=_TEXT, hint=_TEXT),
    "Health": {
        "type": "object",
        "properties": {
            "status": _STATUS,
            **dict.fromkeys(("ledger", "broker", "disk", "workers"), _PART),
            "stores": _any_of(_PART),
            "hosts": {"type": "array", "items": _thing(host=_TEXT, seen=_TIME, answers=_YES_NO)},
            "databases": _list("Database"),
        },
        "required": ["status"],
    },
    "Database": _thing(
        database=_TEXT,
        safe=_YES_NO,
        backup=_maybe(_TEXT),
        created=_maybe(_TIME),
        size=_maybe(_COUNT),
        proof=_maybe(_TEXT),
        stores=_TEXTS,
        missing_stores=_TEXTS,
        problems=_TEXTS,
        last_run={"type": ["object", "null"]},
        running={"type": ["object", "null"]},
        next_run=_TIME,
        newest_proven=_maybe(_TEXT),
        proven_created=_maybe(_TIME),
        recovery_seconds=_maybe(_NUMBER),
        objectives=_any_of(_thing(seconds=_maybe(_NUMBER), target=_maybe(_NUMBER), met=_maybe(_YES_NO))),
        last_drill={"type": ["object", "null"]},
    ),
    "Backup": _thing(
        backup=_TEXT,
        database=_TEXT,
        engine=_TEXT,
        created=_TIME,
        artifact=_TEXT,
        size=_COUNT,
        sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        raw_size=_COUNT,
        stores=_TEXTS,
        proof={"type": "string", "enum": ["stored", "proven", "broken"]},
        pinned=_YES_NO,
        problems=_TEXTS,
    ),
    "Run": _thing(
        run=_TEXT,
        kind={"type": "string", "enum": ["backup", "restore", "drill"]},
        backup=_maybe(_TEXT),
        database=_TEXT,
        trigger=_TEXT,
        state={"type": "string", "enum": ["queued", "running", "stored", "done", "failed"]},
        step=_maybe(_TEXT),
        progress=_maybe(_TEXT),
        created=_TIME,
        finished=_maybe(_TIME),
        seconds=_NUMBER,
        host=_maybe(_TEXT),
        artifact=_maybe(_TEXT),
        failed_step=_maybe(_TEXT),
        error=_maybe(_TEXT),
        hint=_maybe(_TEXT),
        warnings=_TEXTS,
        steps={"type": "array", "items": {"type": "object"}},
    ),
    "Begun": _thing(
        runs={
            "type": "array",
            "items": _thing(run=_TEXT, database=_TEXT, backup=_TEXT, state=_TEXT, slot=_TIME),
        },
        refused={"type": "array", "items": _thing(database=_TEXT, error=_TEXT, hint=_TEXT)},
    ),
}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers(good: dict[str, Any], *errors: int, status: int = 200) -> dict[str, Any]:
    found: dict[str, Any] = {str(status): {"description": "as asked", "content": _body(good)}}
    words = {
        400: "a value that cannot be",
        401: "who are you",
        404: "there is no such thing",
        429: "too many wrong tries",
        503: "the ledger or the broker is away",
    }
    for error in errors:
        found[str(error)] = {"description": words[error], "content": _body(_ref("Error"))}
    return found


def _query(name: str, what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": what, "schema": schema}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


_LOGIN = (401, 429, 503)
_LIMIT = _query(
    "limit", "how many at most", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
)
_DATABASE = _query("database", "of this one only", _TEXT)
_CRON = {
    "summary": "Begin the backups of this slot of their schedules; twice is once",
    "security": [{"cron": []}],
    "parameters": [_query("database", "this one only; may be repeated", {"type": "array", "items": _TEXT})],
    "responses": {
        **_answers(_ref("Begun"), *_LOGIN, 404, status=202),
        "409": {"description": "all of them are under way", "content": _body(_ref("Begun"))},
        "503": {
            "description": "the broker or the ledger is away",
            "content": _body({"anyOf": [_ref("Begun"), _ref("Error")]}),
        },
    },
}


def document() -> dict[str, Any]:
    """The description."""
    health = _answers(_ref("Health"), 400, *_LOGIN)
    health["503"] = {"description": "not all is well", "content": _body(_ref("Health"))}
    alive = {"200": {"description": "it is", "content": _body(_thing(status=_TEXT))}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Larder", "version": larder.__version__},
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "login": {"type": "http", "scheme": "basic"},
                "cron": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{"login": []}],
        "paths": {
            "/api/health": {
                "get": {
                    "summary": "Whether all is well; with detailed=true, and a login, everything that it is made of",
                    "security": [{}, {"login": []}],
                    "parameters": [_query("detailed", "everything", _YES_NO)],
                    "responses": health,
                }
            },
            "/api/live": {
                "get": {"summary": "Whether the console runs", "security": [{}], "responses": alive}
            },
            "/api/ready": {
                "get": {
                    "summary": "Whether the ledger answers",
                    "security": [{}],
                    "responses": {
                        **alive,
                        "503": {"description": "it is away", "content": alive["200"]["content"]},
                    },
                }
            },
            "/api/cron/backup": {"get": _CRON, "post": _CRON},
            "/api/status": {
                "get": {
                    "summary": "How every database stands, as larder status --json prints it",
                    "responses": _answers(_list("Database"), *_LOGIN),
                }
            },
            "/api/backups": {
                "get": {
                    "summary": "The backups that the ledger knows, newest first",
                    "parameters": [
                        _DATABASE,
                        _LIMIT,
                        _query(
                            "before",
                            "those that are older than this one: the last of the answer before",
                            _TEXT,
                        ),
                    ],
                    "responses": _answers(_list("Backup"), *_LOGIN, 400, 404),
                }
            },
            "/api/backups/{database}/{stamp}": {
                "get": {
                    "summary": "One backup",
                    "parameters": [_path("database"), _path("stamp")],
                    "responses": _answers(_ref("Backup"), *_LOGIN, 404),
                }
            },
            "/api/runs": {
                "get": {
                    "summary": "The newest runs",
                    "parameters": [
                        _DATABASE,
                        _LIMIT,
                        _query("failed", "those that failed only", _YES_NO),
                        _query("before", "those that are older than this one", _TEXT),
                    ],
                    "responses": _answers(_list("Run"), *_LOGIN, 400, 404),
                }
            },
            "/api/runs/{run}": {
                "get": {
                    "summary": "One run, and the end of its log",
                    "parameters": [_path("run")],
                    "responses": _answers(_ref("Run"), *_LOGIN, 404),
                }
            },
        },
    }


def routes() -> list[Route]:
    """`/api/openapi.json`."""
    return [Route("/api/openapi.json", _openapi)]


def _openapi(_request: Request) -> Response:
    return Answer(document())
