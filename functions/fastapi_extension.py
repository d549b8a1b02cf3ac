"""Microsoft's FastAPI extension with the same guard as ours: what COMPANION_HTTP_EXTENSION=fastapi switches to.

The runtime takes `WebApp` from the vendor's module, so ours is put there; and because the base package allows one
extension module only, ours says that it comes from there.
"""

from collections.abc import Callable
from typing import Any, cast, override

from azurefunctions.extensions.http.fastapi import web  # pyright: ignore[reportMissingTypeStubs]
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from functions._errors import error_response, new_request_id
from functions._guard import Guard, entries_of


async def _render(_: Request, exc: Exception) -> Response:
    return error_response(exc, new_request_id())


class WebApp(web.WebApp):
    __module__ = web.__name__

    def __init__(self) -> None:
        """Without the documentation routes, which would answer in place of functions of the same name."""
        self.web_app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, exception_handlers={Exception: _render})

    @override
    def route(self, func: Callable[..., Any]) -> Callable[..., Any]:
        self._guard = Guard(self.web_app, entries_of(func))
        return cast(Callable[..., Any], super().route(func))  # pyright: ignore[reportUnknownMemberType]

    @override
    def get_app(self) -> Any:
        return self._guard


web.WebApp = WebApp
