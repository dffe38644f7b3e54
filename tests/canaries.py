"""Secrets that can be found again wherever they turn up, and eyes on every place where one might.

A canary is a secret around a word that no way of spelling it changes. Whoever finds the word has found the secret.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import stat
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from tests.house import SCRIPTS, House
from tests.processes import answers, eventually, running
from tests.servers import free_port
from workers.embedded import find_redis

#: Programs that Larder runs, whose environment is looked at.
TOOLS = ("pg_dump", "pg_dumpall", "pg_restore", "psql", "pg_ctl", "initdb", "postgres", "sh", "age")

#: Seconds that the command line of a new process is looked at again.
YOUNG = 2


class Canaries:
    """The secrets by name. Those of one name have the same word in them."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    def hatch(self, name: str, form: str = "{}") -> str:
        """A new secret, with what trips up parsers of connection strings around its word unless `form` has it else."""
        word = f"cAnArY{len(self.words):02}x{os.urandom(6).hex()}"
        self.words[name] = word
        return form.format(word)

    def know(self, name: str, *words: str) -> None:
        """Have what others have made looked for too: a key's characters."""
        for number, word in enumerate(words):
            self.words[f"{name} {number}"] = word

    def hits(self, places: dict[str, bytes], but: Iterable[str] = ()) -> list[str]:
        """Where a canary was found, and what stood before it; as it is, in base64 and in hexadecimal."""
        found = []
        for name, word in self.words.items():
            looked_for = [word.encode(), word.encode().hex().encode(), *_in_base64(word.encode())]
            for place, content in places.items():
                at = max(content.find(spelling) for spelling in looked_for)
                if at >= 0 and name not in but:
                    found.append(f"{name} in {place}: {content[max(at - 200, 0) : at + 60]!r}")
        return found


#: A password that URLs have to encode; the word is whole in every spelling.
AWKWARD = "p@ss/{}:%1#'é"


def _in_base64(word: bytes) -> Iterator[bytes]:
    """The part of its base64 that does not depend on what stands around it, for each of three places to begin."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + word)
        yield encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4]


class Sink(ThreadingHTTPServer):
    """Takes whatever is posted to it, for a webhook and for Sentry."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.posted: list[tuple[str, bytes]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def bodies(self, path: str) -> list[bytes]:
        """What was posted to an address that begins with `path`."""
        return [body for where, body in list(self.posted) if where.startswith(path)]

    def events(self) -> list[dict[str, Any]]:
        """The events in Sentry's envelopes."""
        items = [line for body in self.bodies("/api/") for line in body.split(b"\n")[1:] if line]
        documents = [json.loads(line) for line in items]
        return [document for document in documents if "exception" in document]


class _Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Sink)
        self.server.posted.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        return


@contextmanager
def sink() -> Iterator[Sink]:
    """A running sink."""
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def redis_with(password: str, folder: Path) -> Iterator[int]:
    """A Redis whose password is in no command line; gives its port."""
    program, _ = find_redis()
    port = free_port()
    settings = folder / "redis.conf"
    quoted = password.replace("\\", "\\\\").replace('"', '\\"')
    settings.write_text(f'port {port}\nbind 127.0.0.1\nsave ""\nrequirepass "{quoted}"\n')
    with running(subprocess.Popen([program, settings], cwd=folder, stdout=subprocess.DEVNULL)):
        eventually(lambda: answers(port))
        yield port


class Watch:
    """Looks, again and again, at what this machine shows to others: command lines, environments, the spool."""

    def __init__(self, spool: Path) -> None:
        self.command_lines: set[bytes] = set()
        #: What a tool has in its environment: (tool, variable, value).
        self.environments: set[tuple[str, str, bytes]] = set()
        #: Files and folders that others than their owner may read or write.
        self.open_to_others: set[str] = set()
        #: The content of small files in the spool.
        self.spooled: set[bytes] = set()
        self._spool = spool
        #: When a process was first seen.
        self._since: dict[Path, float] = {}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(look,)) for look in (self._ps, self._ls)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, look: Any) -> None:
        while not self._over.wait(0.05):
            look()

    def _ps(self) -> None:
        now = time.monotonic()
        for folder in Path("/proc").glob("[0-9]*"):
            # What it runs may change in its first moments, and hardly ever later.
            if now - self._since.setdefault(folder, now) > YOUNG:
                continue
            try:
                line = (folder / "cmdline").read_bytes()
                self.command_lines.add(line)
                tool = Path(os.fsdecode(line.split(b"\0")[0])).name
                if tool in TOOLS:
                    for pair in (folder / "environ").read_bytes().split(b"\0"):
                        variable, _, value = pair.partition(b"=")
                        self.environments.add((tool, variable.decode(errors="replace"), value))
            except OSError:
                continue

    def _ls(self) -> None:
        # Folders go while they are walked through, which `Path.rglob` raises for, and `os.walk` passes over.
        for folder, folders, files in os.walk(self._spool):
            for name in (*folders, *files):
                path = Path(folder, name)
                try:
                    found = path.lstat()
                    if found.st_mode & 0o077 and not stat.S_ISLNK(found.st_mode):
                        self.open_to_others.add(f"{path} {stat.filemode(found.st_mode)}")
                    if stat.S_ISREG(found.st_mode) and found.st_size < 65536:
                        self.spooled.add(path.read_bytes())
                except OSError:
                    continue


class Ears:
    """Hears everything that crosses Redis, and every event of Celery's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = redis.Redis.from_url(url)
        self.commands: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._over = threading.Event()

    def __enter__(self) -> Ears:
        self._monitor = self._client.monitor().__enter__()
        self._threads = [threading.Thread(target=hear) for hear in (self._hear_commands, self._hear_events)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._client.set("the-end", "1")
        for thread in self._threads:
            thread.join()
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _hear_commands(self) -> None:
        for command in self._monitor.listen():
            if "the-end" in command["command"]:
                return
            self.commands.append(command["command"])

    def _hear_events(self) -> None:
        with Celery(broker=self._url).connection() as connection:
            receiver = Celery(broker=self._url).events.Receiver(
                connection, handlers={"*": self.events.append}
            )
            while not self._over.is_set():
                try:
                    receiver.capture(timeout=0.3, wakeup=False)
                except TimeoutError:
                    continue

    def bodies(self) -> bytes:
        """The bodies of the messages, as they were sent."""
        crossed = "\n".join(self.commands).replace("\\", "")
        found = re.findall(r'"body": "([A-Za-z0-9+/=]+)"', crossed)
        return b"\n".join(base64.b64decode(one) for one in found)


@contextmanager
def started(house: House, name: str, *command: str | Path, **more: str) -> Iterator[Path]:
    """A program of this environment for the length of a block; gives the file of everything that it prints."""
    log = house.folder / f"{name}.out"
    with log.open("ab") as sink_:
        process = subprocess.Popen(
            [SCRIPTS / command[0], *command[1:]],
            cwd=house.folder,
            env={**house.environment, **more},
            stdout=sink_,
            stderr=sink_,
        )
    with running(process):
        yield log


@contextmanager
def flower(house: House) -> Iterator[Callable[[], bytes]]:
    """A running Flower; gives what tells all that it would show to anybody."""
    port = free_port()
    command = (
        "celery",
        "-A",
        "workers",
        "flower",
        f"--port={port}",
        "--address=127.0.0.1",
        "--logging=debug",
    )

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            return bytes(answer.read())

    def look() -> bytes:
        tasks = get("api/tasks")
        paths = ["api/workers?refresh=1", "workers", "tasks", "broker"]
        paths += [f"task/{task}" for task, what in json.loads(tasks).items() if what["state"] != "SUCCESS"]
        return tasks + b"".join(map(get, paths))

    with started(house, "flower", *command, FLOWER_UNAUTHENTICATED_API="true"):
        eventually(lambda: answers(port))
        yield look
