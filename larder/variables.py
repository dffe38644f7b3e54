"""The environment, in which a secret may be given as the name of a file that holds it: NAME_FILE.

Docker, Compose and Kubernetes hand secrets over as files; what stands in a variable is seen by `docker inspect`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: What the name of a variable ends with that holds a file's name.
FILE = "_FILE"


class SecretFileError(ValueError):
    """A secret's file that cannot be used; says what is wrong as a clause, and quotes neither name nor content.

    Where somebody has put the secret itself into NAME_FILE, its name would be the secret.
    """


def is_given(variable: str, environ: Mapping[str, str]) -> bool:
    """Whether a secret is given, in `variable` or in a file."""
    return bool(environ.get(variable) or environ.get(variable + FILE))


def secret_in(variable: str, environ: Mapping[str, str]) -> str | None:
    """The value of `variable`, or what the file holds that VARIABLE_FILE names; None where neither is set.

    Blanks and line ends around it are no part of it. Raises `SecretFileError`.
    """
    value, file = environ.get(variable), environ.get(variable + FILE)
    if not file:
        return value or None
    if value:
        raise SecretFileError(f"stands beside {variable} (keep one of them)")
    try:
        held = Path(file).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise SecretFileError("names a file that does not exist") from None
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise SecretFileError(f"names a file that cannot be read: {reason}") from None
    except ValueError:
        raise SecretFileError("names a file that is not UTF-8") from None
    if not held:
        raise SecretFileError("names a file that is empty")
    return held
