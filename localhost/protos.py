"""Stand-ins for the protobuf messages between host and worker, as far as the runtime looks into them.

The runtime takes this module as its `protos`.
"""

from typing import Any, ClassVar


class Message:
    """Fields by keyword. An absent one is an AttributeError, which shows where a stand-in lacks something."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class TypedData(Message):
    """A value of one kind: `string`, `bytes`, `json`, `http`, …"""

    def WhichOneof(self, _: str) -> str | None:
        return next(iter(vars(self)), None)


class ParameterBinding(Message):
    def WhichOneof(self, _: str) -> str:
        return "data"


class RpcHttp(Message):
    """An HTTP request; with streaming on, only the route's parameters travel this way."""

    def __init__(self, *, params: dict[str, str]) -> None:
        super().__init__(method="", url="", headers={}, params=params, query={}, body=TypedData())


class StatusResult(Message):
    Failure: ClassVar[int] = 0
    Success: ClassVar[int] = 1


class BindingInfo(Message):
    undefined: ClassVar[int] = 0
    out: ClassVar[int] = 1
    inout: ClassVar[int] = 2


class RpcException(Message): ...


class RpcFunctionMetadata(Message): ...


class RpcRetryOptions(Message): ...


class WorkerMetadata(Message): ...


class WorkerInitResponse(Message): ...


class FunctionMetadataResponse(Message): ...


class FunctionLoadResponse(Message): ...


class FunctionEnvironmentReloadResponse(Message): ...


class InvocationResponse(Message): ...
