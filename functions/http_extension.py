"""The HTTP extension: Starlette's request and response types, and the server the host forwards to.

The runtime finds this module through the metaclasses of `azurefunctions.extensions.base`, makes one `WebApp`, gives
its catch-all to `route`, and starts `WebServer`. Importing this module is what turns streaming on for the whole app.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from azurefunctions.extensions import base  # pyright: ignore[reportMissingTypeStubs]
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from functions._guard import Guard, entries_of

DRAIN = 220
"""Seconds a running response may take after SIGTERM; the platform gives an HTTP response 230 at most."""
KEEP_ALIVE = 120
"""Seconds an idle connection stays; longer than the host's pool keeps one, which must not find one closed."""

type CatchAll = Callable[[Request], Awaitable[Response]]


class RequestSynchronizer(base.RequestSynchronizer):
    def sync_route_params(self, request: Request, path_params: Mapping[str, Any]) -> None:
        request.scope["path_params"] = dict(path_params)  # there is none yet: no router has been here


class RequestType(metaclass=base.RequestTrackerMeta):
    request_type = Request
    synchronizer = RequestSynchronizer()


class ResponseType(metaclass=base.ResponseTrackerMeta):
    """Every response of Starlette is a subclass, streaming ones included."""

    label = base.ResponseLabels.STANDARD
    response_type = Response


class WebApp(base.WebApp):
    """One catch-all behind a guard; no router, no middleware."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    def route(self, func: CatchAll) -> CatchAll:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            response = await func(Request(scope, receive, send))
            await response(scope, receive, send)

        self._app = Guard(call, entries_of(func))
        return func

    def get_app(self) -> ASGIApp:
        assert self._app is not None, "route comes before get_app"
        return self._app


class WebServer(base.WebServer):
    """Uvicorn in the worker's own event loop, without its access log and its headers."""

    hostname: str
    port: int
    web_app: Any

    async def serve(self) -> None:
        import uvicorn  # noqa: PLC0415 - indexing does without it

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: Any = None) -> None:
                """Drain, then let go of what the app holds: afterwards the signal ends the process."""
                from functions._edge import close_app  # noqa: PLC0415 - the edge is built on these types

                await super().shutdown(sockets)
                await close_app()

        await Server(
            uvicorn.Config(
                self.web_app,
                host=self.hostname,
                port=self.port,
                http="httptools",
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=DRAIN,
            )
        ).serve()
