"""The host's HTTP side: routes a request to a function, checks its key, and hands it to the extension's app."""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from functions._errors import error_response, new_request_id
from functions._guard import ANSWERED
from functions._routes import Template
from localhost import protos
from localhost.runtime import Function, InvocationFailed, Runtime
from shared.errors import NotFound, Unauthenticated

FUNCTION_KEY = "local-function-key"
MASTER_KEY = "local-master-key"
"""What `authLevel` function and admin ask for here; in the cloud the platform makes the keys."""

log = logging.getLogger("companion.localhost")


def read_host_json(directory: Path) -> dict[str, Any]:
    path = directory / "host.json"
    return json.loads(path.read_text()) if path.exists() else {}


@dataclass(frozen=True, slots=True)
class Endpoint:
    function: Function
    template: Template
    methods: frozenset[str]
    """Empty: any."""


class Host:
    """An ASGI app: the function app behind its routes. Nothing opens a port here."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.host_json = read_host_json(runtime.directory)
        prefix = self.host_json.get("extensions", {}).get("http", {}).get("routePrefix", "api")
        endpoints = [_endpoint(function, prefix) for function in runtime.of_type("httpTrigger")]
        self.endpoints = sorted(endpoints, key=lambda each: each.template.rank)
        self._literal: dict[str, list[Endpoint]] = {}
        for each in self.endpoints:
            if "{" not in each.template.text:  # found without a look at the others, which come after it anyway
                self._literal.setdefault(f"/{each.template.text.strip('/')}", []).append(each)
        self._invocations: set[asyncio.Task[None]] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        assert scope["type"] == "http", "the host serves HTTP only"
        found = self._route(scope)
        if found is None:
            return error_response(NotFound("No function has this route."), new_request_id())(scope, receive, send)
        endpoint, params = found
        if not _is_allowed(endpoint.function, scope):
            refusal = Unauthenticated("This function asks for a key: x-functions-key, or ?code=.")
            return error_response(refusal, new_request_id())(scope, receive, send)
        return self._dispatch(endpoint.function, params, scope, receive, send)

    def _route(self, scope: Scope) -> tuple[Endpoint, dict[str, str]] | None:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw.partition(b"?")[0].decode("latin-1")
        for endpoint in self._literal.get(path, ()):
            if not endpoint.methods or scope["method"] in endpoint.methods:
                return endpoint, {}
        for endpoint in self.endpoints:
            params = endpoint.template.match(path)
            if params is not None and (not endpoint.methods or scope["method"] in endpoint.methods):
                return endpoint, params
        return None

    async def _dispatch(
        self, function: Function, params: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Twice, as the host does: over HTTP to the extension, and as an invocation; an id joins both."""
        id_ = secrets.token_hex(16)
        headers = [header for header in scope["headers"] if not header[0].startswith(b"x-ms-")]
        app = self.runtime.http_app
        assert app is not None, "an app with HTTP functions has an extension"
        invocation = asyncio.get_running_loop().call_soon(self._start, function, params, id_, headers)
        scope["headers"] = [*headers, (b"x-ms-invocation-id", id_.encode())]
        await app(scope, receive, send)
        let_go = scope.get(ANSWERED)
        if let_go is not None:  # refused at once: here, and only here, the invocation can be called back
            invocation.cancel()
            let_go()

    def _start(self, function: Function, params: dict[str, str], id_: str, headers: list[tuple[bytes, bytes]]) -> None:
        task = asyncio.get_running_loop().create_task(self._invoke(function, params, id_, headers))
        self._invocations.add(task)  # outlives the response when the client leaves first
        task.add_done_callback(self._invocations.discard)

    async def _invoke(
        self, function: Function, params: dict[str, str], id_: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        trace = {name: value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")}
        try:
            await self.runtime.invoke(
                function,
                protos.TypedData(http=protos.RpcHttp(params=params)),
                invocation_id=id_,
                trace_parent=trace.get(b"traceparent") or _trace_parent(),
                trace_state=trace.get(b"tracestate", ""),
            )
        except InvocationFailed as exc:
            log.error("function.failed %s", exc)


async def load(directory: Path) -> Host:
    """See `Runtime.load`."""
    return Host(await Runtime.load(directory))


def _endpoint(function: Function, prefix: str) -> Endpoint:
    trigger = function.trigger
    route = trigger.get("route")
    template = Template.parse("/".join(filter(None, (prefix.strip("/"), function.name if route is None else route))))
    return Endpoint(function, template, frozenset(str(method).upper() for method in trigger.get("methods") or ()))


def _is_allowed(function: Function, scope: Scope) -> bool:
    level = str(function.trigger.get("authLevel", "function")).lower()
    if level == "anonymous":
        return True
    key = dict[bytes, bytes](scope["headers"]).get(b"x-functions-key", b"").decode("latin-1")
    key = key or _query(scope).get("code", [""])[0]
    accepted = (MASTER_KEY,) if level == "admin" else (FUNCTION_KEY, MASTER_KEY)
    return any(secrets.compare_digest(key.encode(), each.encode()) for each in accepted)


def _query(scope: Scope) -> Mapping[str, list[str]]:
    return parse_qs(scope["query_string"].decode("latin-1"))


def _trace_parent() -> str:
    made = secrets.token_hex(24)
    return f"00-{made[:32]}-{made[32:]}-00"
