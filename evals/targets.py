"""What is evaluated: a model behind an address, with a prompt or a flag if one is named.

local/companion                                         this app, in this process, as its environment says
local/companion?prompt=companion@2                      … with a version of a prompt
local/companion?flag=prompt.companion:2                 … with a flag that gives everybody this value
http://127.0.0.1:7071/v1/companion-fast?key=MY_KEY      any server of the Responses API; the key's variable
https://api.openai.com/v1/gpt-5?key=OPENAI_API_KEY&usd=1.25,10    US dollars for a million tokens in, out
"""

import os
import time
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import parse_qsl

from evals.graders import Answer
from shared.app import App
from shared.bootstrap import build_app
from shared.errors import AssistantError
from shared.flags.base import Assignment
from shared.principal import Principal
from shared.settings import Settings
from shared.turns.begin import begin_turn
from shared.turns.follow import finished
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse

type Json = dict[str, Any]

OWNER = "evals"
SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target as named on the command line."""

    name: str
    base: str
    """`local`, or a URL up to and including /v1."""
    model: str
    prompt: str | None = None
    version: str | None = None
    flags: dict[str, str] = field(default_factory=dict[str, str])
    key: str = ""
    usd: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Raises `ValueError` saying what is wrong."""
        address, _, query = text.partition("?")
        base, slash, model = address.rpartition("/")
        if not slash or not model:
            raise ValueError(f"a target is BASE_URL/MODEL or local/MODEL, not {text!r}")
        said: list[tuple[str, str]] = parse_qsl(query)
        known = dict(said)
        unknown = set(known) - {"prompt", "flag", "key", "usd", "name"}
        if unknown:
            raise ValueError(f"a target has no {sorted(unknown)[0]!r}; it may have prompt, flag, key, usd, name")
        prompt, _, version = known.get("prompt", "").partition("@")
        flags = dict(_flag(value) for name, value in said if name == "flag")
        if flags and base != "local":
            raise ValueError(
                "flags can be forced on local/… alone; elsewhere use the key of an owner who has the variant"
            )
        return cls(
            name=known.get("name") or text,
            base=base,
            model=model,
            prompt=prompt or None,
            version=version or None,
            flags=flags,
            key=known.get("key", ""),
            usd=_prices(known["usd"]) if "usd" in known else None,
        )

    def body(self, inputs: Any) -> Json:
        """A case's inputs as a request: a text, or fields of a Responses request."""
        body: Json = {"input": inputs} if isinstance(inputs, str) else dict(inputs)
        body["model"] = self.model
        if self.prompt:
            prompt = {"id": self.prompt, **({"version": self.version} if self.version else {})}
            variables = body.pop("variables", None)
            body["prompt"] = {**prompt, **({"variables": variables} if variables else {})}
        return body

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        if self.usd is None:
            return None
        return (input_tokens * self.usd[0] + output_tokens * self.usd[1]) / 1e6


def _flag(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"a target's flag is NAME:VALUE, not {text!r}")
    return name, value


def _prices(text: str) -> tuple[float, float]:
    try:
        asked, answered = (float(price) for price in text.split(","))
    except ValueError:
        raise ValueError(f"a target's usd is IN,OUT for a million tokens, not {text!r}") from None
    return asked, answered


class Client(Protocol):
    """Answers cases for a target."""

    async def ask(self, inputs: Any) -> Answer: ...

    async def close(self) -> None: ...


def open_client(target: Target) -> Client:
    return LocalClient(target) if target.base == "local" else HttpClient(target)


class _Forced:
    """Flags with given values for everybody, and no others."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    async def fresh(self) -> None:
        return None

    def assign(self, flag: str, caller: Principal) -> Assignment | None:
        del caller
        value = self._values.get(flag)
        return Assignment(value, value) if value is not None else None

    async def close(self) -> None:
        return None


class LocalClient:
    """The app in this process, with a store of its own that is thrown away."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._folder = TemporaryDirectory()
        environ = {**os.environ, "COMPANION_DATA": self._folder.name, "COSMOS_ENDPOINT": "", "COMPANION_TITLES": "off"}
        environ.setdefault("COMPANION_OFFLINE_DELAY", "0")
        overrides = {"flags": _Forced(target.flags)} if target.flags else {}
        self._app: App = build_app(Settings.read(environ), **overrides)

    async def ask(self, inputs: Any) -> Answer:
        began = time.perf_counter()
        create = CreateResponse.model_validate({**self._target.body(inputs), "store": False})
        try:
            live = await begin_turn(self._app, Principal(owner=OWNER), TurnRequest(create=create))
            turn = await finished(self._app, OWNER, live)
        except AssistantError as error:
            return Answer(text=error.message, status="failed", seconds=time.perf_counter() - began)
        usage = turn.usage or {}
        tokens = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
        return Answer(
            text=text_of(turn.output),
            status=turn.status,
            seconds=time.perf_counter() - began,
            first_token=turn.first_token_ms / 1000 if turn.first_token_ms is not None else None,
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            usd=self._target.cost(*tokens) if self._target.usd else turn.cost,
            model=turn.deployment or turn.params["model"],
            prompt=turn.prompt_version,
            flags=turn.flags or {},
        )

    async def close(self) -> None:
        await self._app.close()
        self._folder.cleanup()


class HttpClient:
    """Any server of the Responses API, by OpenAI's own client."""

    def __init__(self, target: Target) -> None:
        from openai import AsyncOpenAI

        self._target = target
        key = os.environ.get(target.key, "") if target.key else ""
        self._client = AsyncOpenAI(base_url=target.base, api_key=key or "none", timeout=SECONDS, max_retries=2)

    async def ask(self, inputs: Any) -> Answer:
        import openai

        began = time.perf_counter()
        first: float | None = None
        final: Json = {}
        try:
            body = {**self._target.body(inputs), "stream": True}
            stream: Any = await self._client.post(
                "/responses", body=body, cast_to=object, stream=True, stream_cls=openai.AsyncStream[Any]
            )
            async for event in stream:
                seen: Json = event
                if first is None and str(seen.get("type")).endswith(".delta"):
                    first = time.perf_counter() - began
                final = seen.get("response") or final
        except openai.OpenAIError as error:
            return Answer(text=str(error), status="failed", seconds=time.perf_counter() - began)
        seconds = time.perf_counter() - began
        usage: Json = final.get("usage") or {}
        tokens = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
        trace = await self._trace(str(final.get("id")))
        usd = self._target.cost(*tokens)
        return Answer(
            text=text_of(final.get("output") or []),
            status=str(final.get("status")),
            seconds=seconds,
            first_token=first,
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            usd=trace.get("cost") if usd is None else usd,
            model=str(trace.get("deployment") or final.get("model") or ""),
            prompt=trace.get("prompt_version"),
            flags=trace.get("flags") or {},
        )

    async def _trace(self, response_id: str) -> Json:
        """What a Companion says of the answer; nothing elsewhere."""
        import openai

        try:
            return await self._client.get(f"/responses/{response_id}/trace", cast_to=dict[str, Any])
        except openai.OpenAIError:
            return {}

    async def close(self) -> None:
        await self._client.close()


def text_of(output: list[Json]) -> str:
    """What was said: text and refusals; calls of tools as JSON, so that rules can look at them."""
    pieces: list[str] = []
    for item in output:
        if item["type"] == "message":
            pieces += [part.get("text") or part.get("refusal") or "" for part in item["content"]]
        elif item["type"] == "function_call":
            pieces.append(f"{item['name']}({item['arguments']})")
    return "\n".join(pieces)
