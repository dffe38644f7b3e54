"""Channels that notices go out by, on this machine: a server of HTTP and one of SMTP, which do as they are told."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from ipaddress import ip_address
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer, ThreadingTCPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class _Channel:
    """What both have."""

    server_address: Any

    def __init__(self) -> None:
        #: What was sent, as text that people would read.
        self.received: list[str] = []
        #: How often somebody wanted to send something.
        self.asked = 0
        self.status = 200
        self.answer = b"ok"
        self.hang = threading.Event()
        self.hang.set()
        #: Seconds between two bytes of an answer that does not end; None: it is short.
        self.drips: float | None = None

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        """A notifier that has given up closes its end; that is not worth a stack on the terminal."""


class Web(_Channel, ThreadingHTTPServer):
    """Takes posts."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), _Post)
        _Channel.__init__(self)
        self.paths: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        #: Further headers of its answers, which are used up where `once` is set.
        self.headers: dict[str, str] = {}
        self.once = False


class _Post(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        server = self.server
        server.asked += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.bodies.append(body)
        server.paths.append(self.path)
        server.heads.append(dict(self.headers))
        server.received.append(_readable(body.decode()))
        server.hang.wait()
        status, headers = server.status, server.headers
        if server.once:
            server.status, server.headers = 200, {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(server.answer)))
        self.end_headers()
        if server.drips is None:
            self.wfile.write(server.answer)
            return
        _drip(server, self.wfile)

    def log_message(self, *_: object) -> None:
        pass


def _drip(server: _Channel, out: BufferedIOBase) -> None:
    """Send an answer that does not end, a byte at a time, until whoever listens has gone."""
    with suppress(OSError):
        while server.drips is not None:
            out.write(b"2")
            time.sleep(server.drips)


def _readable(text: str) -> str:
    """JSON with its characters as they are."""
    with suppress(ValueError):
        return json.dumps(json.loads(text), ensure_ascii=False)
    return text


class Mail(_Channel, ThreadingTCPServer):
    """Takes mail. `status` is the answer to a message, as SMTP has it, where it is not 200."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, certificate: Path | None = None, *, encrypted: bool = False) -> None:
        ThreadingTCPServer.__init__(self, ("127.0.0.1", 0), _Session)
        _Channel.__init__(self)
        self.encrypted = encrypted
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.password = ""
        #: Whether it takes no login.
        self.shut = False
        #: Who is refused, and the answer that says so.
        self.unknown: dict[str, str] = {}
        #: The command that is never answered: `EHLO`, `DATA`, `.` for the end of a message, `QUIT`.
        self.hangs_at = ""
        #: What is answered to `QUIT`.
        self.bye = "221 bye"
        #: Seconds that each answer takes.
        self.slow = 0.0
        #: The sessions that are under way.
        self.open = 0


class _Session(StreamRequestHandler):
    server: Mail

    def setup(self) -> None:
        if self.server.encrypted:
            assert self.server.context is not None
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        if isinstance(self.request, ssl.SSLSocket):
            self.request.close()

    def say(self, *lines: str) -> None:
        time.sleep(self.server.slow)
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def handle(self) -> None:
        self.server.asked += 1
        self.server.open += 1
        try:
            with suppress(OSError):
                self.converse()
        finally:
            self.server.open -= 1

    def converse(self) -> None:
        self.server.hang.wait()
        _drip(self.server, self.wfile)
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            word, _, rest = line.partition(" ")
            self.hang_at(word.upper())
            if not self.answer(word.upper(), rest):
                return

    def hang_at(self, word: str) -> None:
        """Say nothing more where that is what it does; a dialogue ends as the other side does."""
        if self.server.hangs_at == word:
            self.rfile.read()

    def answer(self, word: str, rest: str) -> bool:
        server = self.server
        if word == "EHLO":
            offered = ["STARTTLS"] if server.context and not isinstance(self.request, ssl.SSLSocket) else []
            self.say("250-here", *(f"250-{one}" for one in offered), "250 AUTH PLAIN")
        elif word == "STARTTLS":
            self.say("220 go on")
            assert server.context is not None
            self.request = server.context.wrap_socket(self.request, server_side=True)
            super().setup()
        elif word == "AUTH":
            server.password = base64.b64decode(rest.split()[-1]).split(b"\0")[2].decode()
            self.say(f"535 not you, {server.password}" if server.shut else "235 welcome")
        elif word == "RCPT":
            who = rest.partition("<")[2].partition(">")[0]
            if who not in server.unknown:
                server.recipients.append(rest)
            self.say(server.unknown.get(who, "250 ok"))
        elif word == "DATA":
            return self.take()
        elif word == "QUIT":
            self.say(server.bye)
            return False
        else:
            self.say("250 ok")
        return True

    def take(self) -> bool:
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b"..") else line)
        self.hang_at(".")
        if not line:
            return False
        found = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        server = self.server
        server.messages.append(found)
        server.received.append("\n".join([str(found["Subject"]), *map(str, parts_of(found).values())]))
        self.say("250 taken" if server.status == 200 else f"{server.status} {server.answer.decode()}")
        return True


def parts_of(message: EmailMessage) -> dict[str, str]:
    """What a message says, by the kind of text."""
    return {part.get_content_type(): part.get_content() for part in message.iter_parts()}  # type: ignore[attr-defined]


@contextmanager
def serving(made: TCPServer) -> Iterator[None]:
    """Have a channel take what comes, during a block."""
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        if isinstance(made, _Channel):
            made.hang.set()
            made.drips = None
        made.shutdown()
        thread.join()
        made.server_close()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def certificate_in(folder: Path) -> Path:
    """A certificate of 127.0.0.1's own making, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "mail.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
