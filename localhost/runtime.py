"""The azure-functions-runtime library, driven as the host's gRPC messages would drive it."""

import importlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self
from uuid import uuid4

import azure_functions_runtime as _library  # pyright: ignore[reportMissingTypeStubs]
from azure_functions_runtime import http_v2 as _http_v2  # pyright: ignore[reportMissingTypeStubs]
from starlette.types import ASGIApp

from localhost import protos

library: Any = _library
http_v2: Any = _http_v2
log = logging.getLogger("companion.localhost")

_NO_RETRY = SimpleNamespace(retry_count=0, max_retry_count=0, exception=None)


class AppFailed(Exception):
    """The function app could not be loaded or indexed; the message is the runtime's."""


class InvocationFailed(Exception):
    """A function raised; the message is the runtime's, with the traceback."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function as the runtime has indexed it."""

    id: str
    name: str
    trigger: Mapping[str, Any]
    """The trigger's binding: `type`, `name`, and what its kind adds (`route`, `schedule`, `queueName`, …)."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A loaded function app. The library keeps its state in globals: one app per process."""

    directory: Path
    functions: tuple[Function, ...]
    http_app: ASGIApp | None
    """The web extension's own app; None in an app without HTTP functions, or when it has a port of its own."""
    http_uri: str = ""
    """Where the extension's server listens, when it does."""

    @classmethod
    async def load(cls, directory: Path, *, on_port: bool = False) -> Self:
        """Import and index `function_app.py` in `directory`; `on_port`: with the extension's server, as in the cloud.

        Raises:
            AppFailed: it cannot be imported, or the runtime refuses it.
        """
        sys.path.insert(0, str(directory))
        logging.getLogger("azure.functions").setLevel(logging.WARNING)  # it logs four lines per request
        server = _NoServer()
        if not on_port:
            _take_over_web_server(directory, server)
        library.start_threadpool_executor()
        init = SimpleNamespace(capabilities={}, function_app_directory=str(directory))
        worker = await library.worker_init_request(_request(worker_init_request=init))
        _check(worker)
        metadata = await library.functions_metadata_request(_request())
        functions = [_function(each) for each in metadata.function_metadata_results or ()]
        for function in functions:
            load = SimpleNamespace(function_id=function.id)
            _check(await library.function_load_request(_request(function_load_request=load)))
        return cls(directory, tuple(functions), server.app, worker.capabilities.get("HttpUri", "") if on_port else "")

    def of_type(self, type_: str) -> list[Function]:
        return [function for function in self.functions if function.trigger["type"] == type_]

    async def invoke(
        self,
        function: Function,
        data: protos.TypedData,
        *,
        invocation_id: str | None = None,
        metadata: Mapping[str, protos.TypedData] | None = None,
        trace_parent: str = "",
        trace_state: str = "",
    ) -> None:
        """Run a function once.

        Raises:
            InvocationFailed: it raised.
        """
        request = SimpleNamespace(
            invocation_id=invocation_id or str(uuid4()),
            function_id=function.id,
            input_data=[protos.ParameterBinding(name=function.trigger["name"], data=data)],
            trigger_metadata=metadata or {},
            trace_context=SimpleNamespace(trace_parent=trace_parent, trace_state=trace_state, attributes={}),
            retry_context=_NO_RETRY,
        )
        response = await library.invocation_request(_request(invocation_request=request))
        if response.result.status != protos.StatusResult.Success:
            error = response.result.exception
            raise InvocationFailed(f"{function.name}: {error.message}\n{error.stack_trace}")


class _NoServer:
    """In place of the extension's web server: keeps the app, opens no port."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    def __call__(self, hostname: str, port: int, web_app: Any) -> Self:
        self.app = web_app.get_app()
        return self

    async def serve(self) -> None: ...


def _take_over_web_server(directory: Path, server: _NoServer) -> None:
    """Import the app before the runtime does, so that its extension is known, and put our server into it."""
    try:
        importlib.import_module("function_app")
    except ModuleNotFoundError as exc:
        if exc.name == "function_app":
            raise AppFailed(f"There is no function_app.py in {directory}.") from None
        raise
    if http_v2.HttpV2Registry.http_v2_enabled():
        extension = sys.modules[http_v2.HttpV2Registry.ext_base().ModuleTrackerMeta.get_module()]
        _replace(extension, "WebServer", server)


def _replace(module: ModuleType, name: str, value: Callable[..., Any]) -> None:
    setattr(module, name, value)


def _request(**content: Any) -> SimpleNamespace:
    properties = {"host": "127.0.0.1", "protos": protos}
    return SimpleNamespace(request=SimpleNamespace(**content), properties=properties)


def _check(response: Any) -> None:
    if response.result.status != protos.StatusResult.Success:
        raise AppFailed(f"{response.result.exception.message}\n{response.result.exception.stack_trace}")


def _function(metadata: Any) -> Function:
    bindings: list[dict[str, Any]] = [json.loads(raw) for raw in metadata.raw_bindings]
    trigger = next(binding for binding in bindings if str(binding["type"]).lower().endswith("trigger"))
    return Function(metadata.function_id, metadata.name, trigger)
