"""A stand where every secret that there is goes through every path, and what was to be seen of it afterwards."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pyrage
from psycopg import sql

from tests import terminals
from tests.canaries import AWKWARD, Canaries, Ears, Sink, Watch, flower, redis_with, started
from tests.house import House
from tests.object_storage import ObjectServer, environment_for
from tests.processes import eventually
from tests.restores import ask, back_up, run
from tests.servers import Cluster, free_port

ROOT = Path(__file__).parents[1]


@dataclass
class Found:
    """What was to be seen once everything had happened."""

    canaries: Canaries
    places: dict[str, bytes] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    watch: Any = None
    events: list[dict[str, Any]] = field(default_factory=list)


class Stand:
    """Databases, stores and notifiers of every kind, each with a secret of its own."""

    def __init__(self, folder: Path, server: Cluster, objects: ObjectServer, sink: Sink) -> None:
        self.folder, self.server, self.sink = folder, server, sink
        self.canaries = Canaries()
        self.found = Found(self.canaries)
        self.dead = free_port()
        self.redis_password = self._hatch("redis")
        self.shop_password = self._hatch("database")
        self.passphrase = self.canaries.hatch("passphrase", "correct {} horse")
        identity = pyrage.x25519.Identity.generate()
        self.canaries.know("age identity", str(identity)[20:])
        (folder / "age.key").write_text(f"{identity}\n")
        (folder / "age.key").chmod(0o600)
        self.recipient = str(identity.to_public())
        self.bucket = objects.bucket()
        self.environment = {
            **environment_for(objects.url),
            "AWS_SECRET_ACCESS_KEY": self.canaries.hatch("aws", "{}+/=%40"),
            "AWS_SESSION_TOKEN": self.canaries.hatch("aws session"),
            "CRON_SECRET": self._hatch("cron"),
            "SENTRY_DSN": f"http://{self.canaries.hatch('sentry')}@{sink.address}/1",
            "HOOK": f"http://{sink.address}/services/T0/B0/{self.canaries.hatch('webhook')}",
            "HOOK_SECRET": self._hatch("webhook secret"),
            "CHECK": f"http://{sink.address}/services/ping/{self.canaries.hatch('ping')}/{{database}}",
            "SERVICE": f"json://{sink.address}/services/{self.canaries.hatch('apprise')}",
            "SERVICE_AWAY": f"json://u:{quote(self._hatch('apprise away'), safe='')}@127.0.0.1:{self.dead}/x",
            "MAIL": f"smtp://larder:{quote(self._hatch('mail'), safe='')}@127.0.0.1:{self.dead}",
            "HOOK_AWAY": f"http://127.0.0.1:{self.dead}/services/{self.canaries.hatch('webhook away')}",
            "SHOP_URL": self._role("canary", self.shop_password, "shop"),
            "SCRATCH_URL": self._role("canary_scratch", self._hatch("scratch"), "postgres"),
            "LARDER_LEDGER_URL": self._role("canary_ledger", self._hatch("ledger"), "ledger"),
            "WRONG_URL": server.url("shop", "canary", self._hatch("wrong password")),
            "AWAY_URL": f"postgresql://u:{quote(self._hatch('away'), safe='')}@127.0.0.1:{self.dead}/shop",
            "TLS_URL": server.url("shop", "canary", self._hatch("tls"))
            + "?sslmode=verify-full&sslrootcert=/nowhere",
            "LARDER_LOG_FORMAT": "json",
            "LARDER_TEST_LEAK": self.shop_password,
        }

    def _hatch(self, name: str) -> str:
        return self.canaries.hatch(name, AWKWARD)

    def _role(self, name: str, password: str, database: str) -> str:
        with self.server.connect() as connection:
            made = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
            connection.execute(made.format(sql.Identifier(name), sql.Literal(password)))
        return self.server.url(database, name, password)

    def lines(self, approver: str) -> str:
        """larder.toml."""
        with closing(sqlite3.connect(self.folder / "odd.db")) as odd:
            odd.execute("CREATE TABLE a (b)")
        (self.folder / "no-folder").write_text("")
        return f"""
            postgres_bin = ["{self.server.bin}"]
            identities = ["age.key"]
            [stores.local]
            path = "backups"
            [stores.refusing]
            path = "no-folder/inside"
            [stores.bucket]
            type = "s3"
            bucket = "{self.bucket.name}"
            [notifiers.team]
            url_env = "HOOK"
            [notifiers.program]
            type = "webhook"
            url_env = "HOOK"
            secret_env = "HOOK_SECRET"
            [notifiers.check]
            type = "ping"
            url_env = "CHECK"
            [notifiers.service]
            type = "apprise"
            url_env = "SERVICE"
            [notifiers.service_away]
            type = "apprise"
            url_env = "SERVICE_AWAY"
            [notifiers.mail]
            type = "email"
            url_env = "MAIL"
            sender = "larder@example.com"
            to = ["ops@example.com"]
            [notifiers.away]
            url_env = "HOOK_AWAY"
            on = ["failure"]
            [databases.shop]
            url_env = "SHOP_URL"
            scratch_url_env = "SCRATCH_URL"
            encrypt_to = ["{self.recipient}"]
            stores = ["local", "bucket"]
            post_restore = ["sh", "-c", "echo it is $DATABASE_URL; sleep 0.2"]
            [databases.wrong]
            url_env = "WRONG_URL"
            stores = ["local"]
            [databases.away]
            url_env = "AWAY_URL"
            stores = ["local"]
            [databases.tls]
            url_env = "TLS_URL"
            stores = ["local"]
            [databases.odd]
            url = "sqlite:///odd.db"
            stores = ["local"]
            [databases.refused]
            url = "sqlite:///odd.db"
            stores = ["refusing"]
            {approver}"""

    # What happens

    def live(self) -> Found:
        """Everything once: what goes well, and what does not."""
        with ExitStack() as stack:
            port = stack.enter_context(redis_with(self.redis_password, self.folder))
            url = f"redis://:{quote(self.redis_password, safe='')}@127.0.0.1:{port}/0"
            house = self.house = House(self.folder, REDIS_URL=url, **self.environment)
            house.configure(self.lines(self._approver()))
            watch = self.found.watch = stack.enter_context(Watch(house.backups / ".larder" / "spool"))
            ears = stack.enter_context(Ears(url))
            command = (
                "celery",
                "-A",
                "tests.faults.leaky",
                "worker",
                "--concurrency",
                "2",
                "--loglevel",
                "DEBUG",
            )
            log = house.folder / "worker.log"
            worker = started(house, "worker", *command, "--logfile", log, PYTHONPATH=str(ROOT))
            stack.enter_context(worker)
            ask_flower = stack.enter_context(flower(house))
            eventually(lambda: log.exists() and "ready." in log.read_text())
            self._good()
            self._bad()
            eventually(lambda: len(self.sink.events()) >= 6)
            eventually(lambda: len(self.sink.bodies("/services")) >= 5)
            places = self.found.places
            places["flower"] = ask_flower()
        self.found.events = self.sink.events()
        places["log"] = log.read_bytes()
        places["printed"] = b"".join(path.read_bytes() for path in self.folder.glob("*.out"))
        places["redis"] = "\n".join(ears.commands).encode()
        places["messages"] = ears.bodies()
        places["events"] = json.dumps(ears.events, default=str, ensure_ascii=False).encode()
        places["ledger"] = self._ledger()
        places["stores"] = b"".join(
            path.read_bytes() for path in _files(house.backups) if ".larder" not in path.parts
        )
        places["stores"] += b"".join(self.bucket.objects().values())
        places["evidence"] = b"".join(path.read_bytes() for path in _files(self.folder / "audit"))
        places["webhook"] = b"\n".join(self.sink.bodies("/services"))
        # The first line of an envelope says for which project it is.
        places["sentry"] = b"".join(body.partition(b"\n")[2] for body in self.sink.bodies("/api/"))
        places["ps"] = b"\n".join(watch.command_lines)
        places["spool"] = b"\n".join(watch.spooled)
        state = [path for path in _files(house.backups / ".larder") if path.name != "signer.key"]
        places["state"] = b"".join(path.read_bytes() for path in state)
        places["output"] = "\n".join(self.found.said).encode()
        return self.found

    def _approver(self) -> str:
        self.machine = self.folder / "machine-of-alice"
        self.machine.mkdir()
        typed = [("Passphrase for the new key: ", self.passphrase), ("once more: ", self.passphrase)]
        made = terminals.run(["keys", "new", "approver", "alice"], self.machine, typed)
        assert made.code == 0, made.stderr
        self.found.places["screen"] = (made.screen + made.stderr + made.stdout).encode()
        return "\n".join(line.strip() for line in made.stdout.splitlines())

    def _approve(self, document: dict[str, Any]) -> str:
        (self.machine / "request.json").write_text(json.dumps(document))
        words = ["restore", "approve", "request.json", "--key", "alice.approver.key", "--yes"]
        made = terminals.run(words, self.machine, [("Passphrase of", self.passphrase)])
        assert made.code == 0, made.stderr
        self.found.places["screen"] += (made.screen + made.stderr).encode()
        token = made.stdout.strip()
        self.canaries.know("token", token.split(".")[2])
        return token

    def _larder(self, *words: str, **more: str) -> int:
        done = self.house.larder(*words, **more)
        self.found.said.append(f"$ larder {words[0]}\n{done.stdout}{done.stderr}")
        return done.returncode

    def _good(self) -> None:
        backup = back_up(self.house, "shop")
        keys = (self.house.backups / ".larder" / "signer.key").read_text().splitlines()
        self.canaries.know(
            "signing key", *(line for line in keys if not line.startswith("-") and len(line) > 20)
        )
        assert self._larder("drill", "shop") == 0, self.found.said[-1]
        document = ask(self.house, backup, "shop", "--no-safety-backup")
        done = run(self.house, document["request"], self._approve(document))
        self.found.said.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr
        for words in (("status",), ("doctor",), ("show", backup)):
            self._larder(*words, "--json")
        assert self._larder("evidence", "--out", "audit/") == 0, self.found.said[-1]

    def _bad(self) -> None:
        for name in ("wrong", "away", "tls", "odd", "refused"):
            assert self._larder("backup", name, "--no-wait") == 0, self.found.said[-1]
        self._call()
        self._mistakes()
        for path in self.house.backups.rglob("*.json"):
            path.write_text(path.read_text().replace('"size"', '"seize"'))
        self._larder("verify", "--all")
        eventually(lambda: {"wrong", "tls", "odd", "refused"} <= self._failed())
        self._larder("runs", "--json")
        self._larder("status")
        self._larder("doctor", "--tell")

    def _call(self) -> None:
        """Send what `celery call` can send, with an approval that is none; its own command line would hold it."""
        token = self.canaries.hatch("sent token", "eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiIwMTIzNDU2NyJ9.{}")
        (self.folder / "sent-token").write_text(token)
        program = """if True:
            from pathlib import Path
            from workers.celery import app
            token = Path("sent-token").read_text()
            app.send_task("restore", kwargs={"request": "0123456789ab", "token": token})
            app.send_task("restore", args=["0123456789ab", token])
            app.send_task("restore", kwargs={"request": "0123456789ab", "tokn": token})
            app.send_task("restoer", args=["0123456789ab", token])
            app.send_task("restore.load", args=[token])
            app.send_task("backup", args=[token])
            app.send_task("leak", args=[token])
        """
        with started(self.house, "call", "python", "-c", program, PYTHONPATH=str(ROOT)):
            eventually(lambda: (self.folder / "worker.log").read_text().count("Task leak[") >= 2)

    def _mistakes(self) -> None:
        """Commands that cannot work: nothing answers, it refuses, or the configuration is wrong."""
        redis_away = f"redis://:{quote(self._hatch('redis away'), safe='')}@127.0.0.1:{self.dead}/0"
        redis_wrong = self.house.environment["REDIS_URL"].replace(
            "p%40ss", f"{self.canaries.hatch('redis wrong')}"
        )
        ledger_away = (
            f"postgresql://u:{quote(self._hatch('ledger away'), safe='')}@127.0.0.1:{self.dead}/ledger"
        )
        ledger_wrong = self.server.url("ledger", "canary_ledger", self._hatch("ledger wrong"))
        elsewhere = self.server.url("shop", "canary", self._hatch("into"))
        self._larder("doctor", REDIS_URL=redis_wrong)
        for ledger in (ledger_away, ledger_wrong, ledger_away + "?password=" + self.canaries.hatch("query")):
            self._larder("status", "--json", LARDER_LEDGER_URL=ledger)
        for sentry in (f"https://{self.canaries.hatch('dsn')}@h/no-number", self.canaries.hatch("no dsn")):
            self._larder("doctor", SENTRY_DSN=sentry)
        self._larder("backup", "shop", "--no-wait", REDIS_URL=redis_away)
        words = ("restore", "request", "shop/latest", "--into", elsewhere, "--mode", "new", "--reason", "x")
        assert self._larder(*words) != 0
        wrong = self.canaries.hatch("in a wrong place")
        for text in (
            f"url = postgresql://u:{wrong}@h/x",
            f'[databases.a]\nurl = "postgresql://u:{wrong}@h:port/x"\n[databases.b]\nurl_env = "{wrong}@h"\n'
            f'[databases.c]\nurl = "postgresql://u:p@ss/{wrong}@h/x?sslmod=1"\npasword = "{wrong}"\n'
            f'[databases.d]\nurl = "mysql://u:{wrong}@h/x"\n[notifiers.n]\nurl = "{wrong}"\n'
            f'[databases.e]\nurl = "postgresql://h/x?sslpassword={wrong}"\nencrypt_to = ["AGE-SECRET-KEY-{wrong}"]\n'
            f'[stores.s]\ntype = "s3"\nbucket = "b"\nendpoint = "https://u:{wrong}@h"\nsecret_key = "{wrong}"\n',
        ):
            (self.folder / "wrong.toml").write_text(text)
            assert self._larder("doctor", LARDER_CONFIG="wrong.toml") != 0
        assert self._larder("status", "--json", LARDER_CONFIG="wrong.toml") != 0

    def _failed(self) -> set[str]:
        with psycopg.connect(self.server.socket_dsn("ledger")) as connection:
            rows = connection.execute("SELECT database FROM runs WHERE state = 'failed'").fetchall()
        return {name for (name,) in rows}

    # Where things are seen

    def _ledger(self) -> bytes:
        rows = []
        with psycopg.connect(self.server.socket_dsn("ledger")) as connection:
            query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            for (table,) in connection.execute(query).fetchall():
                whole = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
                rows += [f"{table} {row}" for (row,) in connection.execute(whole).fetchall()]
        return "\n".join(rows).encode()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
