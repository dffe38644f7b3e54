"""email: a message by SMTP, as plain text and as HTML.

The connection is encrypted and the server's certificate checked: `smtps://` from the first byte on, `smtp://` by
STARTTLS, without which nothing is sent unless the configuration says so.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from larder import notices
from larder.errors import RefusedError, UnreachableError
from larder.fields import YesNo
from larder.markup import Markup, element
from larder.notifiers import NEWS, Notice, Notifier, NotifierSettings, PartlyToldError, Word

#: The port of each scheme, where the address names none.
_PORTS = {"smtps": 465, "smtp": 587}

#: Characters of a subject.
_LONGEST = 200


def _server(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
        usable = usable and parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("has to be a server's address, smtps://…@host:465 or smtp://…@host:587")
    return value


def _mailbox(value: str) -> str:
    try:
        found = Address(addr_spec=value)
    except (MessageError, ValueError, IndexError):
        found = Address()
    if not found.username or not found.domain or not value.isprintable():
        raise ValueError("has to be an address, as alerts@example.com")
    return value


def _somebody(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("is empty")
    return values


Mailbox = Annotated[str, AfterValidator(_mailbox)]


class EmailSettings(NotifierSettings):
    """People who read mail."""

    on: tuple[Word, ...] = Field(default=NEWS, description="what it is told about")
    url: Annotated[SecretStr, AfterValidator(_server)] = Field(
        description="the server, with the password: smtps://user:password@host:465 or smtp://host:587"
    )
    sender: Mailbox = Field(description="the address that messages come from")
    to: Annotated[tuple[Mailbox, ...], AfterValidator(_somebody)] = Field(
        description="the addresses that they go to"
    )
    starttls: YesNo = Field(
        default=True, description="smtp://: whether nothing is sent before the connection is encrypted"
    )

    @model_validator(mode="after")
    def _one_way(self) -> EmailSettings:
        if not self.starttls and urlsplit(self.url.get_secret_value()).scheme == "smtps":
            raise ValueError("starttls = false is for smtp://: smtps:// is encrypted anyway")
        return self

    def secrets(self) -> Iterator[str]:
        """The whole address, and the password alone."""
        yield from super().secrets()
        password = urlsplit(self.url.get_secret_value()).password or ""
        yield from (password, unquote(password))


class _Plainly(smtplib.SMTP):
    """A connection that is closed where an answer is waited for no longer, even the first one."""

    def getreply(self) -> tuple[int, bytes]:
        """The server's next answer."""
        try:
            return super().getreply()
        except BaseException:
            self.close()
            raise


class _Encrypted(_Plainly, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte on."""


class Email(Notifier):
    """Sends through one server."""

    def __init__(self, settings: EmailSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def post(self, notice: Notice, seconds: float) -> None:
        """Send one message to all."""
        try:
            server = self._connection(seconds)
            try:
                refused = server.send_message(_message(notice, self._settings))
                # It has the message. What it makes of a goodbye is not waited for: it may take long, or be an error.
                server.putcmd("QUIT")
            finally:
                server.close()
        except smtplib.SMTPException as error:
            raise _plain(error) from None
        if refused:
            raise PartlyToldError(
                f"it refused {len(refused)} of {len(self._settings.to)} addresses, and has taken it for the others",
                "see to, and what is in it",
            )

    def _connection(self, seconds: float) -> smtplib.SMTP:
        parts = urlsplit(self._settings.url.get_secret_value())
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        context = ssl.create_default_context()
        server: smtplib.SMTP
        if parts.scheme == "smtps":
            server = _Encrypted(host, port, timeout=seconds, context=context)
        else:
            server = _Plainly(host, port, timeout=seconds)
        try:
            self._open(server, parts, context)
        except BaseException:
            server.close()
            raise
        return server

    def _open(self, server: smtplib.SMTP, parts: SplitResult, context: ssl.SSLContext) -> None:
        if parts.scheme == "smtp" and self._settings.starttls:
            server.ehlo()
            if not server.has_extn("starttls"):
                raise RefusedError(
                    "it does not encrypt the connection (STARTTLS)",
                    "use smtps://, or starttls = false for a server that nothing but this machine can listen to",
                )
            server.starttls(context=context)
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))


def _plain(error: smtplib.SMTPException) -> UnreachableError:
    """What the server answered, by its number: its words may repeat who wanted to log in, and as what."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = sorted({code for code, _ in error.recipients.values()})
    elif isinstance(error, smtplib.SMTPResponseException):
        codes = [error.smtp_code]
    else:
        codes = []
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return UnreachableError("it closed the connection")
    if not codes:
        return RefusedError(
            f"it does not work with it ({type(error).__name__})", "see what the server offers"
        )
    message = f"it answered {', '.join(map(str, codes))}"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return RefusedError(f"{message} to the login", "see user and password in its url")
    if all(500 <= code < 600 for code in codes):
        return RefusedError(message, "see sender and to, and what the server says of them in its log")
    return UnreachableError(message)


def _message(notice: Notice, settings: EmailSettings) -> EmailMessage:
    made = EmailMessage(policy=SMTP)
    made["Subject"] = f"{notices.icon(notice)} {notices.headline(notice)}"[:_LONGEST]
    made["From"] = settings.sender
    made["To"] = ", ".join(settings.to)
    made["Date"] = formatdate()
    made["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
    # No answer of an absent reader's is wanted: https://www.rfc-editor.org/rfc/rfc3834#section-5
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(f"{notices.title(notice)}\n\n{notices.as_text(notice)}\n")
    made.add_alternative(_page(notice), subtype="html")
    return made


def _page(notice: Notice) -> str:
    rows = [
        element("tr", element("td", name, style="color:#666;padding-right:1em"), element("td", value))
        for name, value in notices.facts(notice)
    ]
    told: list[Markup] = [
        element("h2", f"{notices.icon(notice)} {notices.title(notice)}"),
        element("table", rows),
    ]
    for name, text in notices.passages(notice):
        told.append(element("h3", name))
        told.append(element("p", text, style="white-space:pre-wrap"))
    told.append(element("p", notices.footer(notice), style="color:#666"))
    return "<!DOCTYPE html>\n" + element("html", element("body", told, style="font-family:sans-serif"))


SETTINGS = EmailSettings
NOTIFIER = Email
