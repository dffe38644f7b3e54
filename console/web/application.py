"""The application: which address leads where, and what every answer says to a browser."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote_plus

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.web import answers, cron, health, metrics, openapi, pages, records
from console.web.drawn import nothing_there
from console.web.login import Login, Tries
from larder.settings import Settings

_STATIC = Path(__file__).parent / "static"

#: What no name and no number has in it, and PostgreSQL takes in no text.
_NOTHING = "\0"

#: Everything is its own, nothing comes from elsewhere, and nobody puts it into a frame.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

#: A year. Browsers that came by https come by nothing else from then on.
_HTTPS_ONLY = "max-age=31536000"


def application(settings: Settings) -> Starlette:
    """The console of `settings`, as an ASGI application."""
    tries = Tries()
    routes: list[BaseRoute] = [
        *pages.routes(),
        *health.routes(),
        *cron.routes(settings, tries),
        *records.routes(),
        *metrics.routes(),
        *openapi.routes(),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    middleware = [
        Middleware(Secured),
        Middleware(Login, settings=settings.console, tries=tries),
    ]
    made = Starlette(
        routes=routes, middleware=middleware, exception_handlers=answers.HANDLERS | {404: _not_found}
    )
    made.state.settings = settings
    made.router.redirect_slashes = False
    return made


def _not_found(request: Request, error: Exception) -> Response:
    """A page for people, a document for programs."""
    for_people = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    return nothing_there(request) if for_people else answers.of_http(request, error)


class Secured:
    """Adds to every answer what keeps a browser from doing with it what it is not meant for, to those of errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
                if _came_by_https(scope):
                    headers.setdefault("Strict-Transport-Security", _HTTPS_ONLY)
            await send(message)

        if _NOTHING in scope["path"] or _NOTHING in unquote_plus(scope["query_string"].decode("latin-1")):
            await answers.refusal(400, "a NUL is in the address")(scope, receive, sent)
            return
        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            # Starlette would answer this outside of here, without a header.
            if begun:
                raise
            await answers.unexpected(scope, error)(scope, receive, sent)


def _came_by_https(scope: Scope) -> bool:
    """Whether the browser's end is encrypted. A client that lies about it tells only itself what to do."""
    return scope["scheme"] == "https" or Headers(scope=scope).get("x-forwarded-proto", "") == "https"
