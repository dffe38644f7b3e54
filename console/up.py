"""`larder up`: everything on this machine: Redis, a worker, beat, Flower and the console, under one supervisor."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from console import output
from console.output import escape
from console.supervisor import Supervisor
from console.web.serve import see_that_it_is_safe
from larder.config import Settings
from larder.errors import ConfigurationError, LarderError
from larder.spool import make_private
from larder.streams import durable_file
from larder.variables import FILE, is_given
from tasks import context
from workers.embedded import find_redis

_CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "workers")
_LARDER = (sys.executable, "-m", "console")

#: Flower's own variables.
_FLOWER_LOGIN = "FLOWER_BASIC_AUTH"
_FLOWER_OAUTH = "FLOWER_AUTH"

#: A worker has a process for the guard, beside those that are at dumps.
_FEWEST, _MOST = 2, 4

#: Bytes that the name of a socket may have: macOS has 104 for it, Linux 108, with the end of the name.
_LONGEST_SOCKET = 103


@dataclass(frozen=True)
class _Doors:
    """Where the pages are, and how one gets in."""

    console: tuple[str, int]
    flower: tuple[str, int]
    #: The file that holds user and password for Flower, where nobody has configured a login.
    flower_login: Path | None


def up(*, as_json: bool) -> int:
    """Start everything, and end it when somebody asks for that; gives the exit code.

    With `REDIS_URL` the Redis there is used. Raises `LarderError` where something is missing, before anything is
    started; and where one of the processes ends by itself, which ends the others.
    """
    settings = context.settings()
    if not settings.databases:
        raise ConfigurationError(
            "unable to start: there is no database to back up",
            "set DATABASE_URL, or write larder.toml: larder.example.toml has every key",
        )
    if importlib.util.find_spec("flower") is None:
        raise ConfigurationError("unable to start: Flower is not installed", "install larder[flower]")
    see_that_it_is_safe(settings, settings.console.host)
    console, flower = (settings.console.host, settings.console.port), _flower_address(os.environ)
    _see_that_they_are_free(console, flower)
    for warning in settings.warnings:
        output.err.print(f"[yellow]warning:[/] {escape(warning)}")
    make_private(settings.state_dir)
    with _alone(settings.state_dir) as lock, _folder() as folder:
        doors = _Doors(console, flower, _flower_login(settings, os.environ))
        supervisor = _supervisor(settings, doors, folder, lock, as_json=as_json)
        supervisor.loop()
    if supervisor.lost is not None:
        name, code = supervisor.lost
        how = f"ended with {code}" if code >= 0 else f"was ended by signal {-code}"
        raise LarderError(
            f"unable to go on: {name} {how}", f"see its last lines above, which begin with {name}"
        )
    return 1 if supervisor.killed else 0


@contextmanager
def _alone(state_dir: Path) -> Iterator[int]:
    """Hold the lock of a state folder, which gives its descriptor; raises `LarderError` where another has it.

    Two Redis that write into one file leave one that neither can read, and two beats do the same to their schedules.
    """
    descriptor = os.open(state_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LarderError(
                f"unable to start: another larder up has {state_dir}, or what it has started still ends",
                "end it, or give this one a LARDER_STATE_DIR of its own",
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the socket, which only we can enter, for as long as it takes."""
    made = Path(tempfile.mkdtemp(prefix="larder-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _supervisor(settings: Settings, doors: _Doors, folder: Path, lock: int, *, as_json: bool) -> Supervisor:
    """All processes, ready to be started; `folder` is where Redis has its socket, and each of them holds `lock`."""
    made = Supervisor("redis", sys.stderr, held=[lock])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    redis = None
    if settings.redis_url is None:
        environment["REDIS_URL"] = redis = f"redis+socket://{folder}/redis.sock"
        made.add("redis", _redis(settings, folder), environment)
    processes = str(max(_FEWEST, min(os.cpu_count() or _FEWEST, _MOST)))
    made.add("worker", [*_CELERY, "worker", "--loglevel", "INFO", "--concurrency", processes], environment)
    made.add("beat", [*_CELERY, "beat", "--loglevel", "INFO"], environment)
    login = {_FLOWER_LOGIN + FILE: str(doors.flower_login)} if doors.flower_login else {}
    made.add("flower", [*_CELERY, "flower"], {**environment, **login})
    made.add("console", [*_LARDER, "console", "--flower-url", _url(doors.flower)], environment)
    _say(doors, redis, as_json=as_json)
    return made


def _redis(settings: Settings, folder: Path) -> list[str]:
    """A Redis that only this user reaches, and that remembers what waits in it."""
    program, _ = find_redis()
    if len(os.fsencode(folder / "redis.sock")) > _LONGEST_SOCKET:
        raise ConfigurationError(
            f"unable to start Redis: the name of a socket in {folder.parent} is too long",
            "set TMPDIR to a folder with a shorter one",
        )
    kept = settings.state_dir / "redis"
    make_private(kept)
    listening = ["--port", "0", "--unixsocket", str(folder / "redis.sock"), "--unixsocketperm", "700"]
    keeping = ["--dir", str(kept), "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
    return [str(program), *listening, *keeping]


def _flower_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Where Flower will listen, by what its own variables say."""
    port = environ.get("FLOWER_PORT") or "5555"
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ConfigurationError(
            "unable to start Flower: FLOWER_PORT is no number from 1 to 65535", "leave it out for 5555"
        )
    return environ.get("FLOWER_ADDRESS") or "127.0.0.1", int(port)


def _flower_login(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """A file with a user and a password for Flower, made on first need; None where there is a login already."""
    if is_given(_FLOWER_LOGIN, environ) or environ.get(_FLOWER_OAUTH) or settings.console.password:
        return None
    path = settings.state_dir / "flower.login"
    if not path.exists():
        with durable_file(path) as sink:
            sink.write(f"{settings.console.user}:{secrets.token_urlsafe(18)}\n".encode())
    return path


def _see_that_they_are_free(console: tuple[str, int], flower: tuple[str, int]) -> None:
    """Raise `LarderError` that names all addresses which somebody else listens at, or that are none."""
    hint = "Other ports: [console] port in larder.toml, FLOWER_PORT"
    both = {"the console": console, "Flower": flower}
    wrong = [f"{_shown(*at)} ({who})" for who, at in both.items() if not _can_listen(at)]
    if wrong:
        raise LarderError(
            f"unable to start: somebody else listens at {' and '.join(wrong)}",
            f"is larder up running already? {hint}",
        )
    if not _can_listen(console, flower):
        raise ConfigurationError(
            f"unable to start: the console and Flower are both to listen at port {flower[1]}", hint
        )


def _can_listen(*addresses: tuple[str, int]) -> bool:
    """Whether one can listen at all of them at a time."""
    with ExitStack() as listening:
        for host, port in addresses:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                listening.enter_context(socket.create_server((host, port), family=family))
            except (OSError, UnicodeError) as error:
                if getattr(error, "errno", None) == errno.EADDRINUSE:
                    return False
                reason = (getattr(error, "strerror", None) or "no such address").partition(" (while")[0]
                raise LarderError(f"unable to listen at {_shown(host, port)}: {reason.lower()}") from None
    return True


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(address: tuple[str, int]) -> str:
    return f"http://{_shown(*address)}/"


def _say(doors: _Doors, redis: str | None, *, as_json: bool) -> None:
    """Where everything is."""
    console, flower = _url(doors.console), _url(doors.flower)
    if as_json:
        login = str(doors.flower_login) if doors.flower_login else None
        output.print_json({"console": console, "flower": flower, "flower_login": login, "redis": redis})
        return
    output.err.print(f"console  {escape(console)}")
    into = f"  user and password are in {doors.flower_login}" if doors.flower_login else ""
    output.err.print(f"Flower   {escape(flower + into)}")
    if redis:
        output.err.print(f"others   {escape(f'REDIS_URL={redis} larder backup')} has these workers do it")
    output.err.print("Ctrl-C ends it all, a second one at once")
