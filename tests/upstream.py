"""A small scripted server of OpenAI's protocol, to stand upstream of Companion in tests: both APIs, streamed and plain.

    python -m tests.upstream --port 8099        # then OPENAI_BASE_URL=http://127.0.0.1:8099/v1 OPENAI_API_KEY=test-key

The last user message says what happens. At the start of a line:

    count to N [slowly]        the numbers, a token each; slowly: 20 a second
    slowly: TEXT               the answer to TEXT at 20 tokens a second
    think: TEXT                reasoning, then the answer to the rest
    call TOOL {JSON}           a tool call; several lines are parallel calls
    refuse                     a refusal
    no usage: TEXT             the answer to TEXT, and no count of tokens
    fail HOW                   400, 401, context, 429, quota, 500, 503, timeout (504), filter, silent (no answer at
                               all); after some tokens: cut (broken connection), unfinished (ends without saying
                               so), hang, garbage, event (an error inside the stream)

`what did I say first?` and `my name is …` / `what is my name?` show what history was sent. Anything else is echoed.
It is as strict as OpenAI about keys, models, names of parameters, ids, and tool outputs. `GET /__state` (no key) tells
what was asked and how many callers went away early.
"""

import argparse
import asyncio
import base64
import itertools
import json
import re
import struct
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from shared.models.examples import example_of

type Json = dict[str, Any]

KEY = "test-key"
MODELS = ("test-large", "test-small")
SLOW_SECONDS = 0.05
CREATED = 1_760_000_000

_CHAT_PARAMETERS = frozenset(CompletionCreateParamsStreaming.__annotations__) | {"stream"}
_RESPONSES_PARAMETERS = frozenset(ResponseCreateParamsStreaming.__annotations__) | {"stream"}


@dataclass(slots=True)
class Heard:
    """A request, whichever API it came by."""

    model: str
    users: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    """Tool outputs since the user spoke last."""
    images: int = 0
    limit: int | None = None
    schema: Json | None = None
    tools: dict[str, str] = field(default_factory=dict[str, str])
    """Type of each tool offered, by name."""
    forced: str | None = None
    is_parallel: bool = True

    def user(self, text: str, images: int) -> None:
        self.users.append(text)
        self.images = images
        self.outputs = []


@dataclass(slots=True)
class Answer:
    """What will be said."""

    text: str = ""
    thought: str = ""
    refusal: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Type, name, arguments."""
    end: str = "stop"
    """`stop`, `length`, `content_filter` or `tool_calls`."""
    trouble: str = ""
    delay: float = 0.0
    counts: bool = True

    @property
    def tokens(self) -> list[str]:
        return re.findall(r"\s*\S+", self.text)

    @property
    def size(self) -> int:
        return len(self.tokens) + len(self.thought.split()) + sum(len(call[2]) // 4 + 1 for call in self.calls)


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
        self.headers: dict[str, str] = {}


class Upstream:
    """The server's state: what it was asked, and its options.

    `refuses` are parameters (or `include` values) that it does not support; `one_write` sends a stream in one piece.
    """

    def __init__(self, *, refuses: Iterable[str] = (), one_write: bool = False) -> None:
        self.refuses = frozenset(refuses)
        self.one_write = one_write
        self.requests: list[Json] = []
        """`{path, headers, body}` of each call, headers in lower case."""
        self.disconnects = 0
        self.open = 0
        self._ids = itertools.count(1)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/__state", self._state)
        return app

    def last_body(self) -> Json:
        return self.requests[-1]["body"]

    # handlers

    async def _models(self, request: web.Request) -> web.Response:
        refusal = self._refused_key(request)
        if refusal is not None:
            return _error(refusal)
        self.requests.append({"path": request.path, "headers": _headers(request), "body": {}})
        data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "tests"} for name in MODELS]
        return web.json_response({"object": "list", "data": data})

    async def _embeddings(self, request: web.Request) -> web.Response:
        try:
            body = await self._body(request, None)
        except Refused as refused:
            return _error(refused)
        given: Any = body["input"]
        inputs = cast(list[Any], given) if isinstance(given, list) else [given]
        size: int = body.get("dimensions", 8)
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(str(text), size, body.get("encoding_format"))}
            for index, text in enumerate(inputs)
        ]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def _state(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"requests": self.requests, "disconnects": self.disconnects, "open": self.open})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, _CHAT_PARAMETERS, hear_chat, ChatSpeech)

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, _RESPONSES_PARAMETERS, hear_responses, ResponsesSpeech)

    async def _answer(self, request: web.Request, known: frozenset[str], hear: Any, speech: Any) -> web.StreamResponse:
        self.open += 1
        try:
            body = await self._body(request, known)
            heard: Heard = hear(body)
            answer = decide(heard)
            if answer.trouble == "silent":
                await asyncio.sleep(3600)
            said = speech(body, heard, answer, next(self._ids))
            if not body.get("stream"):
                return web.json_response(said.plain())
            return await self._stream(request, said.events(), answer)
        except Refused as refused:
            return _error(refused)
        except asyncio.CancelledError:
            self.disconnects += 1
            raise
        finally:
            self.open -= 1

    async def _stream(self, request: web.Request, events: Iterable[bytes], answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        if self.one_write and not answer.trouble:
            await response.write(b"".join(events))
            return response
        for event in events:
            if event == HANG:
                await asyncio.sleep(3600)
            if event == CUT:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(event)
            if answer.delay:
                await asyncio.sleep(answer.delay)
        return response

    # checks

    async def _body(self, request: web.Request, known: frozenset[str] | None) -> Json:
        refusal = self._refused_key(request)
        if refusal is not None:
            raise refusal
        try:
            body: Json = await request.json()
        except json.JSONDecodeError:
            raise Refused(400, "We could not parse the JSON body of your request.") from None
        self.requests.append({"path": request.path, "headers": _headers(request), "body": body})
        if body.get("model") not in MODELS and known is not None:
            raise Refused(404, f"The model `{body.get('model')}` does not exist.", "model_not_found", "model")
        for name in body:
            if known is not None and name not in known:
                raise Refused(400, f"Unknown parameter: '{name}'.", "unknown_parameter", name)
            if name in self.refuses:
                raise Refused(
                    400,
                    f"Unsupported parameter: '{name}' is not supported with this model.",
                    "unsupported_parameter",
                    name,
                )
        if self.refuses.intersection(body.get("include") or ()):
            raise Refused(400, "Encrypted content is not supported with this model.", None, "include")
        return body

    def _refused_key(self, request: web.Request) -> Refused | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("api-key")
        return None if given == KEY else Refused(401, f"Incorrect API key provided: {given}.", "invalid_api_key")


def _headers(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _error(refused: Refused) -> web.Response:
    return web.json_response(refused.body, status=refused.status, headers=refused.headers)


def _vector(text: str, size: int, encoding: str | None) -> Any:
    vector = [round(((len(text) + place) % 7) / 7, 3) for place in range(size)]
    return base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if encoding == "base64" else vector


# what was heard


def hear_chat(body: Json) -> Heard:
    heard = Heard(body["model"], limit=body.get("max_completion_tokens") or body.get("max_tokens"))
    pending: list[str] = []
    for message in body["messages"]:
        role, content = message["role"], message.get("content")
        if pending and role != "tool":
            raise Refused(
                400,
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. Missing: {', '.join(pending)}",
                param="messages",
            )
        if role == "tool":
            if message["tool_call_id"] not in pending:
                raise Refused(400, "messages with role 'tool' must be a response to 'tool_calls'.", param="messages")
            pending.remove(message["tool_call_id"])
            heard.outputs.append(_text(content))
        elif role == "user":
            heard.user(_text(content), _count(content, "image_url"))
        elif role == "assistant":
            pending = [call["id"] for call in message.get("tool_calls") or ()]
    if pending:
        raise Refused(400, f"No tool message for {', '.join(pending)}", param="messages")
    for tool in body.get("tools") or ():
        heard.tools[tool[tool["type"]]["name"]] = tool["type"]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        heard.forced = choice[choice["type"]]["name"]
    elif choice == "required":
        heard.forced = next(iter(heard.tools))
    heard.is_parallel = body.get("parallel_tool_calls", True)
    format_: Json = body.get("response_format") or {}
    heard.schema = (format_.get("json_schema") or {"schema": None})["schema"]
    return heard


def hear_responses(body: Json) -> Heard:
    heard = Heard(body["model"], limit=body.get("max_output_tokens"))
    given: Any = body["input"]
    items: list[Json] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    pending: list[str] = []
    for item in items:
        type_ = item.get("type", "message")
        if "id" in item and type_ != "reasoning":
            raise Refused(404, f"Item with id '{item['id']}' not found. Items are not persisted.", param="input")
        if type_ == "message" and item["role"] == "user":
            heard.user(_text(item["content"]), _count(item["content"], "input_image"))
        elif type_ in ("function_call", "custom_tool_call"):
            pending.append(item["call_id"])
        elif type_ in ("function_call_output", "custom_tool_call_output"):
            if item["call_id"] not in pending:
                message = f"No tool call found for function call output with call_id {item['call_id']}."
                raise Refused(400, message, param="input")
            pending.remove(item["call_id"])
            heard.outputs.append(_text(item["output"]))
        elif type_ == "reasoning" and not item.get("encrypted_content"):
            raise Refused(404, "Reasoning items are not persisted when `store` is set to false.", param="input")
    if pending:
        raise Refused(400, f"No tool output found for function call {pending[0]}.", param="input")
    for tool in body.get("tools") or ():
        heard.tools[tool["name"]] = tool["type"]
    choice: Any = body.get("tool_choice")
    if isinstance(choice, dict) and cast(Json, choice)["type"] == "allowed_tools":
        allowed = cast(Json, choice)
        heard.tools = {tool["name"]: tool["type"] for tool in allowed["tools"]}
        choice = allowed["mode"]
    if isinstance(choice, dict):
        heard.forced = cast(Json, choice)["name"]
    elif choice == "required":
        heard.forced = next(iter(heard.tools))
    heard.is_parallel = body.get("parallel_tool_calls", True)
    text: Json = body.get("text") or {}
    format_: Json = text.get("format") or {}
    heard.schema = format_.get("schema")
    return heard


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in cast(list[Json], content))
    return content or ""


def _count(content: Any, type_: str) -> int:
    return sum(part["type"] == type_ for part in cast(list[Json], content)) if isinstance(content, list) else 0


# what to say


def decide(heard: Heard) -> Answer:
    """The answer to the last user message.

    Raises:
        Refused: the message asks for an error.
    """
    text = heard.users[-1] if heard.users else ""
    answer = _obey(text, heard)
    tokens = answer.tokens
    if heard.limit is not None and len(tokens) > heard.limit:
        answer.text = "".join(tokens[: heard.limit])
        answer.end = "length"
    return answer


def _obey(text: str, heard: Heard) -> Answer:
    if match := re.search(r"^think: (.+)$", text, re.MULTILINE):
        answer = _obey((text[: match.start()] + text[match.end() :]).strip(), heard)
        answer.thought = match[1]
        return answer
    if text.startswith("slowly:"):
        answer = _obey(text.removeprefix("slowly:").strip(), heard)
        answer.delay = SLOW_SECONDS
        return answer
    if text.startswith("no usage:"):
        answer = _obey(text.removeprefix("no usage:").strip(), heard)
        answer.counts = False
        return answer
    if match := re.match(r"fail (\w+)", text):
        return _fail(match[1])
    if text.startswith("refuse"):
        return Answer(refusal="I refuse, as told.")
    if match := re.match(r"count to (\d+)( slowly)?", text):
        numbers = " ".join(str(number) for number in range(1, int(match[1]) + 1))
        return Answer(text=numbers, delay=SLOW_SECONDS if match[2] else 0.0)
    calls = _calls(text, heard)
    if calls:
        return Answer(calls=calls, end="tool_calls")
    if heard.schema is not None:
        return Answer(text=json.dumps(example_of(heard.schema, text)))
    return Answer(text=_reply(text, heard))


def _calls(text: str, heard: Heard) -> list[tuple[str, str, str]]:
    if heard.outputs:
        return []
    asked = re.findall(r"^call ([\w.-]+) *(.*)$", text, re.MULTILINE)
    calls = [(heard.tools[name], name, arguments or "{}") for name, arguments in asked if name in heard.tools]
    if not calls and heard.forced:
        calls = [(heard.tools[heard.forced], heard.forced, "{}")]
    return calls if heard.is_parallel else calls[:1]


def _reply(text: str, heard: Heard) -> str:
    if heard.outputs:
        return " and ".join(f"the tool said: {output}" for output in heard.outputs)
    if "what did I say first" in text:
        return f"First you said: {heard.users[0]}"
    if "what is my name" in text.lower():
        names = [match[1] for said in heard.users if (match := re.search(r"[Mm]y name is (\w+)", said))]
        return f"Your name is {names[-1]}." if names else "You did not say."
    if heard.images:
        return f"I see {heard.images} image{'s' if heard.images > 1 else ''}."
    return f"You said: {text}"


def _fail(how: str) -> Answer:
    words = "These words come first"
    if how == "filter":
        return Answer(text=words, end="content_filter")
    if how in ("cut", "unfinished", "hang", "garbage", "event", "silent"):
        return Answer(text=words, trouble=how)
    status, message, code, headers = _ERRORS[how]
    refused = Refused(status, message, code)
    refused.headers = headers
    raise refused


_ERRORS: dict[str, tuple[int, str, str | None, dict[str, str]]] = {
    "400": (400, "This request is refused, as told.", "invalid_value", {}),
    "401": (401, "Incorrect API key provided: sk-secret.", "invalid_api_key", {}),
    "context": (400, "This model's maximum context length is 8 tokens.", "context_length_exceeded", {}),
    "429": (429, "Rate limit reached for requests.", "rate_limit_exceeded", {"retry-after": "7"}),
    "quota": (429, "You exceeded your current quota.", "insufficient_quota", {}),
    "500": (500, "The server had an error.", None, {}),
    "503": (503, "The engine is currently overloaded.", None, {"retry-after-ms": "1500"}),
    "timeout": (504, "Gateway timeout.", None, {}),
}


# how it is said

HANG = b"<hang>"
CUT = b"<cut>"


class ChatSpeech:
    """An answer as `chat/completions` gives it."""

    def __init__(self, body: Json, heard: Heard, answer: Answer, number: int) -> None:
        self._body = body
        self._answer = answer
        self._usage = {
            "prompt_tokens": sum(len(text.split()) for text in heard.users),
            "completion_tokens": answer.size,
            "total_tokens": sum(len(text.split()) for text in heard.users) + answer.size,
            "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": len(answer.thought.split()), "audio_tokens": 0},
        }
        self._head: Json = {
            "id": f"chatcmpl-{number}",
            "created": CREATED,
            "model": f"{heard.model}-2026-01-01",
            "service_tier": "default",
            "system_fingerprint": "fp_tests",
        }
        self._number = number

    def plain(self) -> Json:
        answer = self._answer
        message: Json = {"role": "assistant", "content": answer.text or None, "refusal": answer.refusal or None}
        if answer.calls:
            message["tool_calls"] = [self._call(place) for place in range(len(answer.calls))]
        choice = {"index": 0, "message": message, "finish_reason": answer.end, "logprobs": None}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage}

    def events(self) -> Iterable[bytes]:
        answer = self._answer
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        for word in answer.thought.split():
            yield self._chunk({"reasoning_content": f"{word} "})
        for token in answer.tokens:
            yield self._chunk({"content": token}, logprobs=self._logprobs(token))
        if answer.trouble:
            yield from _trouble(answer.trouble)
            return
        for word in answer.refusal.split():
            yield self._chunk({"refusal": f"{word} "})
        for place, call in enumerate(answer.calls):
            whole = self._call(place)
            arguments = call[2]
            key = "input" if call[0] == "custom" else "arguments"
            whole[call[0]][key] = ""
            yield self._chunk({"tool_calls": [{"index": place, **whole}]})
            for start in range(0, len(arguments), 4):
                piece = {key: arguments[start : start + 4]}
                yield self._chunk({"tool_calls": [{"index": place, call[0]: piece}]})
        yield self._chunk({}, reason=answer.end)
        options: Json = self._body.get("stream_options") or {}
        if answer.counts and options.get("include_usage"):
            body: Json = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage}
            yield f"data: {json.dumps(body)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _call(self, place: int) -> Json:
        type_, name, arguments = self._answer.calls[place]
        key = "input" if type_ == "custom" else "arguments"
        return {"id": f"call_{self._number}_{place}", "type": type_, type_: {"name": name, key: arguments}}

    def _logprobs(self, token: str) -> Json | None:
        if not self._body.get("logprobs"):
            return None
        return {"content": [{"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}]}

    def _chunk(self, delta: Json, *, reason: str | None = None, logprobs: Json | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        body = {**self._head, "object": "chat.completion.chunk", "choices": [choice], "usage": None}
        return f"data: {json.dumps(body)}\n\n".encode()


class ResponsesSpeech:
    """An answer as `responses` gives it."""

    def __init__(self, body: Json, heard: Heard, answer: Answer, number: int) -> None:
        self._body = body
        self._heard = heard
        self._answer = answer
        self._number = number
        self._sequence = 0
        self._output: list[Json] = []

    def plain(self) -> Json:
        for _ in self._items():
            pass
        return self._response(self._status)

    def events(self) -> Iterable[bytes]:
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        yield from self._items()
        if self._answer.trouble:
            yield from _trouble(self._answer.trouble)
            return
        yield self._event(f"response.{self._status}", response=self._response(self._status))

    @property
    def _status(self) -> str:
        return "incomplete" if self._answer.end in ("length", "content_filter") else "completed"

    def _items(self) -> Iterable[bytes]:
        answer = self._answer
        if answer.thought:
            yield from self._reasoning(answer.thought)
        if answer.text or answer.refusal:
            yield from self._message()
        for place in range(len(answer.calls)):
            yield from self._call(place)

    def _reasoning(self, thought: str) -> Iterable[bytes]:
        item: Json = {"type": "reasoning", "id": f"rs_up{self._number}", "summary": [], "encrypted_content": ""}
        place = self._add(item)
        yield self._event("response.output_item.added", output_index=place, item=dict(item))
        where = {"item_id": item["id"], "output_index": place, "summary_index": 0}
        part = {"type": "summary_text", "text": ""}
        yield self._event("response.reasoning_summary_part.added", **where, part=part)
        for word in thought.split():
            yield self._event("response.reasoning_summary_text.delta", **where, delta=f"{word} ")
        text = "".join(f"{word} " for word in thought.split())
        yield self._event("response.reasoning_summary_text.done", **where, text=text)
        part = {"type": "summary_text", "text": text}
        yield self._event("response.reasoning_summary_part.done", **where, part=part)
        item |= {"summary": [part], "encrypted_content": "sealed-thought"}
        yield self._event("response.output_item.done", output_index=place, item=item)

    def _message(self) -> Iterable[bytes]:
        answer = self._answer
        item: Json = {"type": "message", "id": f"msg_up{self._number}", "role": "assistant", "content": []}
        place = self._add(item)
        yield self._event("response.output_item.added", output_index=place, item={**item, "status": "in_progress"})
        where = {"item_id": item["id"], "output_index": place, "content_index": 0}
        if answer.refusal:
            part: Json = {"type": "refusal", "refusal": ""}
            yield self._event("response.content_part.added", **where, part=dict(part))
            for word in answer.refusal.split():
                yield self._event("response.refusal.delta", **where, delta=f"{word} ")
                part["refusal"] += f"{word} "
            yield self._event("response.refusal.done", **where, refusal=part["refusal"])
        else:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._event("response.content_part.added", **where, part=dict(part))
            for token in answer.tokens:
                yield self._event("response.output_text.delta", **where, delta=token, logprobs=self._logprobs(token))
            if answer.trouble:
                return
            part |= {"text": answer.text, "logprobs": []}
            yield self._event("response.output_text.done", **where, text=answer.text, logprobs=[])
        yield self._event("response.content_part.done", **where, part=part)
        item |= {"content": [part], "status": self._status}
        yield self._event("response.output_item.done", output_index=place, item=item)

    def _call(self, place: int) -> Iterable[bytes]:
        type_, name, arguments = self._answer.calls[place]
        kind, key, event = _CALL_EVENTS[type_]
        call_id = f"call_{self._number}_{place}"
        item: Json = {"type": kind, "id": f"fc_up{self._number}_{place}", "call_id": call_id, "name": name, key: ""}
        index = self._add(item)
        yield self._event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        where = {"item_id": item["id"], "output_index": index}
        for start in range(0, len(arguments), 4):
            yield self._event(f"response.{event}.delta", **where, delta=arguments[start : start + 4])
        named = {"name": name} if key == "arguments" else {}
        yield self._event(f"response.{event}.done", **where, **{key: arguments}, **named)
        item |= {key: arguments, "status": "completed"}
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _add(self, item: Json) -> int:
        self._output.append(item)
        return len(self._output) - 1

    def _logprobs(self, token: str) -> list[Json]:
        if "message.output_text.logprobs" not in (self._body.get("include") or ()):
            return []
        return [{"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}]

    def _response(self, status: str) -> Json:
        is_final = status != "in_progress"
        reason = "max_output_tokens" if self._answer.end == "length" else "content_filter"
        given = sum(len(text.split()) for text in self._heard.users)
        usage = {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens": self._answer.size,
            "output_tokens_details": {"reasoning_tokens": len(self._answer.thought.split())},
            "total_tokens": given + self._answer.size,
        }
        return {
            "id": f"resp_up{self._number}",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "model": f"{self._heard.model}-2026-01-01",
            "output": list(self._output) if is_final else [],
            "error": None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "instructions": self._body.get("instructions"),
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "top_p": 1.0,
            "tool_choice": self._body.get("tool_choice", "auto"),
            "tools": self._body.get("tools", []),
            "service_tier": "default",
            "store": self._body.get("store", True),
            "usage": usage if is_final and self._answer.counts else None,
        }

    def _event(self, type_: str, **fields: Any) -> bytes:
        body = {"type": type_, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return f"event: {type_}\ndata: {json.dumps(body)}\n\n".encode()


_CALL_EVENTS = {
    "function": ("function_call", "arguments", "function_call_arguments"),
    "custom": ("custom_tool_call", "input", "custom_tool_call_input"),
}


def _trouble(kind: str) -> Iterable[bytes]:
    match kind:
        case "cut":
            yield CUT
        case "hang":
            yield HANG
        case "garbage":
            yield b'data: {"choices": [{"delta\n\n'
        case "event":
            error = {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}
            yield f"event: error\ndata: {json.dumps({'type': 'error', **error, 'error': error})}\n\n".encode()
        case _:
            return


# how it is run


@asynccontextmanager
async def running(upstream: Upstream | None = None, *, port: int = 0) -> AsyncGenerator[tuple[Upstream, str]]:
    """The server on a loopback port: itself, and its base URL (up to and including /v1)."""
    upstream = upstream or Upstream()
    runner = web.AppRunner(upstream.app(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield upstream, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def _serve(port: int) -> None:
    async with running(port=port) as (_, url):
        print(f"serving {url}", flush=True)  # noqa: T201
        await asyncio.Event().wait()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description="A scripted model server.")
    parser.add_argument("--port", type=int, default=0)
    try:
        asyncio.run(_serve(parser.parse_args(arguments).port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
