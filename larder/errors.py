"""Everything that can go wrong, by whose move it is to mend it.

    LarderError                   exit 1   something failed
    ├── ConfigurationError        exit 2   the operator's settings; every mistake at once
    ├── NotFoundError             exit 3   no such database, backup, run
    ├── NotAuthorisedError        exit 4   nobody with the right key has said yes to this
    ├── IntegrityError            exit 5   bytes are not what they were: checksum, size, end mark
    ├── UnreachableError          exit 6   a database, store or broker is out of reach; worth another try
    │   └── RefusedError          exit 6   it answered, and said no (password, name): another try says the same
    ├── RejectedError             exit 1   a database server takes nothing of what a backup holds, as it stands
    ├── ExhaustedError            exit 1   this machine has run out of disk, memory or handles
    ├── BusyError                 exit 1   somebody else is at it
    │   └── HeldError             exit 1   an application holds what is to be replaced; it may let go
    ├── LeaseLostError            exit 1   another attempt has taken this run over
    └── InterruptedByOperator     exit 1   Ctrl-C

A message is lower case, starts with what could not be done, and names the thing. A hint says what to do.
Known secrets are masked when the error is made, so that no later printing can leak one. Every class is
rebuilt from its positional arguments, which is how Celery carries an exception between processes.
"""

from __future__ import annotations

from typing import ClassVar

from larder.secret import redact


class LarderError(Exception):
    """Base of all errors that Larder raises on purpose."""

    #: What the command line exits with.
    exit_code: ClassVar[int] = 1
    #: Whether the same call may succeed later without anybody changing anything.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = redact(message)
        self.hint = redact(hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\nHINT: {self.hint}" if self.hint else self.message


class ConfigurationError(LarderError):
    """The settings are wrong. The message holds one line for each mistake."""

    exit_code = 2


class NotFoundError(LarderError):
    """A name that the operator gave means nothing here."""

    exit_code = 3


class NotAuthorisedError(LarderError):
    """A restore that nobody with the right key has approved, as it stands."""

    exit_code = 4


class IntegrityError(LarderError):
    """Bytes that were read are not the bytes that were written."""

    exit_code = 5


class UnreachableError(LarderError):
    """A database, a store or the broker does not answer. It may, later."""

    exit_code = 6
    retryable = True


class RefusedError(UnreachableError):
    """It answers, and refuses: wrong password, no such database, no permission."""

    retryable = False


class RejectedError(LarderError):
    """A server that can take the backup, and has what it needs, rejects what is in it."""


class BusyError(LarderError):
    """Another run of the same database is under way."""


class HeldError(BusyError):
    """Others hold what is to be replaced. They may let go of it."""

    retryable = True


class LeaseLostError(LarderError):
    """Another attempt holds this run now; whatever this one made must not count."""


class InterruptedByOperator(LarderError):
    """Somebody pressed Ctrl-C."""


class ExhaustedError(LarderError):
    """This machine has run out of something: disk space, memory, file handles."""
