"""What workers write into their log."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from larder import secret
from workers import log


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


CONTEXT = {"database": "shop", "run": "0123456789ab", "step": "dump"}


def test_text_lines_are_those_that_operators_know() -> None:
    sink = io.StringIO()
    log.configure("text", stream=sink)
    logging.getLogger("larder.run").info("Backup size: %s", "45M", extra=CONTEXT)
    logging.getLogger("larder.run").warning("half full")
    first, second = sink.getvalue().splitlines()
    assert first.endswith("[INFO] Backup size: 45M  database=shop run=0123456789ab step=dump")
    assert second.endswith("[WARN] half full")


def test_a_terminal_gets_colour_and_no_color_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    sink = Terminal()
    log.configure("text", stream=sink)
    logging.getLogger("larder.run").error("it failed")
    assert "\033[31m[ERROR]\033[0m it failed" in sink.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    sink = Terminal()
    log.configure("text", stream=sink)
    logging.getLogger("larder.run").error("it failed")
    assert "\033" not in sink.getvalue()


def test_json_lines_hold_where_they_belong() -> None:
    sink = io.StringIO()
    log.configure("json", stream=sink)
    logging.getLogger("larder.run").warning("half\nfull", extra=CONTEXT)
    line = json.loads(sink.getvalue())
    assert line.items() >= {**CONTEXT, "level": "WARN", "message": "half\nfull"}.items()


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_line_holds_a_secret_not_even_a_traceback(style: str) -> None:
    secret.register("s3cr3t-p@ss/word")
    sink = io.StringIO()
    log.configure(style, stream=sink)
    try:
        raise ValueError("connection to postgresql://u:s3cr3t-p%40ss%2Fword@db/shop failed")
    except ValueError:
        logging.getLogger("anything").exception("unable to connect with %s", "s3cr3t-p@ss/word")
    assert "s3cr3t" not in sink.getvalue()
    assert "ValueError" in sink.getvalue()


def test_what_nobody_has_caught_is_printed_without_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    secret.register("s3cr3t-p@ss/word")
    log.mask_tracebacks()

    class Thrown:
        def __del__(self) -> None:
            raise KeyError("s3cr3t-p@ss/word")

    def fail() -> None:
        try:
            raise ConnectionError("postgresql://u:s3cr3t-p%40ss%2Fword@db/shop")
        except ConnectionError as cause:
            raise ValueError("not s3cr3t-p@ss/word") from cause

    thread = threading.Thread(target=fail, name="worker bee")
    thread.start()
    thread.join()
    thrown = Thrown()
    del thrown
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert "s3cr3t" not in said
    assert said.count("ValueError: not ****") == 2
    assert said.count("ConnectionError: postgresql://u:****@db/shop") == 2
    assert "worker bee: Traceback" in said
    assert "KeyError: '****'" in said
