"""The application: which address leads where, and what every answer says to a browser."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.web import answers, cron, health, metrics, openapi, pages, records
from console.web.login import Login, Tries
from larder.settings import Settings

_STATIC = Path(__file__).parent / "static"

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
    made = Starlette(routes=routes, middleware=middleware, exception_handlers=answers.HANDLERS)
    made.state.settings = settings
    made.router.redirect_slashes = False
    return made


class Secured:
    """Adds to every answer what keeps a browser from doing with it what it is not meant for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, sent)
