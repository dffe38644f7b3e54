"""The log: the lines that the operators know, in colour on a terminal, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import TextIO

from larder.secret import redact

_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR"}
_COLOURS = {"INFO": "\033[32m", "WARN": "\033[33m", "ERROR": "\033[31m", "DEBUG": "\033[2m"}
_RESET = "\033[0m"

#: What a line may say of where it belongs.
_CONTEXT = ("database", "run", "step")


class TextFormatter(logging.Formatter):
    """`2025-10-16 02:00:00 [INFO] Backup size: 45M  database=shop run=1f…`, every known secret masked."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = _LEVELS.get(record.levelname, record.levelname)
        shown = f"[{level}]"
        if self._colour:
            shown = f"{_COLOURS.get(level, '')}{shown}{_RESET}"
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
        where = " ".join(f"{key}={getattr(record, key)}" for key in _CONTEXT if hasattr(record, key))
        line = f"{moment} {shown} {record.getMessage()}" + (f"  {where}" if where else "")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message, logger, and where it belongs."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": _LEVELS.get(record.levelname, record.levelname),
            "message": redact(record.getMessage()),
            "logger": record.name,
        }
        line |= {key: getattr(record, key) for key in _CONTEXT if hasattr(record, key)}
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def mask_tracebacks() -> None:
    """Have what Python itself prints of errors that nobody has caught masked too."""
    sys.excepthook = lambda _kind, error, _trace: _print("", error)
    threading.excepthook = lambda lost: _print(
        f"{lost.thread.name if lost.thread else 'thread'}: ", lost.exc_value
    )
    sys.unraisablehook = lambda lost: _print(f"{lost.err_msg or 'nobody can catch'}: ", lost.exc_value)


def _print(where: str, error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        sys.stderr.write(redact(where + "".join(traceback.format_exception(error))))


def configure(style: str, level: int | str | None = None, stream: TextIO | None = None) -> None:
    """Send every logger's lines to `stream` (standard error), as `text` or `json`."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    colour = stream.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(colour=colour))
    mask_tracebacks()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level or logging.INFO)
    # boto3 tells about each client where it found its credentials.
    for name in ("boto3", "botocore", "s3transfer", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
