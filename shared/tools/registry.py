"""Tools that Companion runs itself, offered to the model by `{"type": "mcp", "server_label": "companion"}`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

type Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTool:
    """One tool: what the model is told of it, and what runs when it is called."""

    name: str
    description: str
    parameters: Json
    """JSON schema of the arguments object."""
    call: Callable[[Json], Awaitable[str]]
    """From arguments to output text; raises `ToolFailed` or `ToolRetry` with a message for the model."""
    is_idempotent: bool = False
    """True: may be run again when a process died while it ran."""


class ToolFailed(Exception):
    """The call failed for good; the message becomes the tool's output."""


class ToolRetry(ToolFailed):
    """The arguments do not fit; the message tells the model how to mend them."""


@dataclass(frozen=True, slots=True)
class ToolRegistry:
    """The tools of this server, by name."""

    tools: dict[str, ServerTool] = field(default_factory=dict[str, ServerTool])

    def find(self, name: str) -> ServerTool | None:
        return self.tools.get(name)

    def offered(self, requested: list[Json]) -> dict[str, ServerTool]:
        """Those that a request's tool list asks for."""
        offered: dict[str, ServerTool] = {}
        for tool in requested:
            if tool["type"] == "mcp":
                offered |= {name: self.tools[name] for name in self._allowed(tool) if name in self.tools}
        return offered

    def _allowed(self, tool: Json) -> list[str]:
        allowed = tool.get("allowed_tools")
        if allowed is None:
            return list(self.tools)
        return list(allowed) if isinstance(allowed, list) else list(allowed.get("tool_names") or self.tools)  # pyright: ignore[reportUnknownArgumentType]
