"""Asking somebody who sits at a terminal, whatever standard input and output are connected to.

A passphrase that was typed is in no message, and never shown.
"""

from __future__ import annotations

import getpass
import os
import termios
import warnings
from collections.abc import Callable

from console import output
from larder.errors import ConfigurationError

_TERMINAL = "/dev/tty"

#: Bytes of an answer at most.
_LONGEST = 1024


def ask(question: str, *, otherwise: str) -> str:
    """What is typed after `question`, without the line's end and blanks around it; empty where the terminal goes away.

    Raises `ConfigurationError` where there is no terminal, whose hint is what can be done `otherwise`.
    """
    descriptor = _open(otherwise)
    try:
        # What was typed, or pasted, before the question was to be read is no answer to it.
        termios.tcflush(descriptor, termios.TCIFLUSH)
        os.write(descriptor, output.printable(question).encode(errors="replace"))
        return os.read(descriptor, _LONGEST).decode(errors="replace").strip()
    except (OSError, termios.error):
        return ""
    finally:
        os.close(descriptor)


def ask_hidden(question: str, *, otherwise: str) -> str:
    """The same, for a passphrase, which is not shown; raises `ConfigurationError` where none was typed.

    Blanks around it are part of it.
    """
    os.close(_open(otherwise))
    typed = _typed(lambda: getpass.getpass(output.printable(question)))
    if not typed:
        raise ConfigurationError("unable to read a passphrase: none was typed", otherwise)
    return typed


def ask_new_passphrase(*, otherwise: str) -> str:
    """A passphrase that was typed twice; raises `ConfigurationError` where the two differ, or there is no terminal."""
    first = ask_hidden("Passphrase for the new key: ", otherwise=otherwise)
    if ask_hidden("The same once more: ", otherwise=otherwise) == first:
        return first
    del first
    raise ConfigurationError("unable to read a passphrase: the two are not the same", "try again")


def _typed(read: Callable[[], str]) -> str | None:
    """What `read` gives; None where the terminal went away, would show it, or sends what is no text."""
    try:
        with warnings.catch_warnings():
            # Where it cannot hide what is typed, getpass would warn, and show it.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return read()
    except (EOFError, OSError, UnicodeError, termios.error, getpass.GetPassWarning):
        return None


def _open(otherwise: str) -> int:
    try:
        return os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise ConfigurationError("unable to ask: there is no terminal", otherwise) from None
