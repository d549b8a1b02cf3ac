"""Chat Completions as an upstream: our items into its messages, its chunks into our events."""

from typing import Any, cast

import orjson

from shared.errors import InvalidRequest, UpstreamError
from shared.ids import RandomIds
from shared.models.base import (
    AnnotationAdded,
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Usage,
    counted,
    summary_of,
)
from shared.models.gathering import Gathering
from shared.models.transport import CUT, UNREADABLE, Halves, payload_error
from shared.safety.untrusted import mark

PATH = "/chat/completions"

# request


def chat_body(request: ModelRequest, *, is_openai: bool = True) -> Json:
    """The body of a streamed call. `is_openai`: the server is OpenAI's or Azure's own, not a compatible one.

    Raises:
        InvalidRequest: the request holds something this API has no word for; `param` names it.
    """
    refuse_unknown_there(request, is_openai=is_openai)
    body: Json = {
        "model": request.model,
        "messages": chat_messages(request.items, request.instructions),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.prefix is not None:
        body["messages"].append({"role": "assistant", "content": request.prefix})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    for name in _SAME_NAME:
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.max_output_tokens is not None:
        body |= _limit(request.max_output_tokens, is_openai=is_openai)
    if request.logprobs or request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    return body | _tools(request) | _text(request.text) | _reasoning(request.reasoning)


def refuse_unknown_there(request: ModelRequest, *, is_openai: bool) -> None:
    """What compatible servers would take no notice of.

    Raises:
        InvalidRequest: naming it.
    """
    if request.prompt_cache_retention is not None and not is_openai:
        raise InvalidRequest(
            "prompt_cache_retention is not supported by this model; leave it out.",
            param="prompt_cache_retention",
            code="unsupported_parameter",
        )


_SAME_NAME = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "seed",
    "logit_bias",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
    "prediction",
)


def _limit(tokens: int, *, is_openai: bool) -> Json:
    """OpenAI's newer models refuse `max_tokens`; of the compatible servers some ignore the newer name, silently."""
    newer = {"max_completion_tokens": tokens}
    return newer if is_openai else {**newer, "max_tokens": tokens}


def amend_chat_body(body: Json, refusal: InvalidRequest) -> bool:
    """Take out what a server refused although we could do without it; True: ask it again."""
    if "max_tokens" not in body or "max_completion_tokens" not in body:
        return False
    said = f"{refusal.param} {refusal.message}"
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in said]
    if not names:
        return False
    del body[names[0]]
    return True


def _tools(request: ModelRequest) -> Json:
    choice = request.tool_choice
    tools = request.tools
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        # Few servers know `allowed_tools`; offering only those tools says the same to all of them.
        allowed = {(tool.get("type"), tool.get("name")) for tool in choice["tools"]}
        tools = [tool for tool in tools if (tool["type"], tool["name"]) in allowed]
        choice = choice["mode"]
    if not tools:
        if choice in (None, "auto", "none"):
            return {}
        raise InvalidRequest("tool_choice names a tool, but none is offered.", param="tool_choice")
    body: Json = {"tools": [_tool(tool) for tool in tools]}
    if choice is not None:
        body["tool_choice"] = choice if isinstance(choice, str) else _named_choice(choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def _tool(tool: Json) -> Json:
    match tool["type"]:
        case "function":
            return {"type": "function", "function": _present(tool, "name", "description", "parameters", "strict")}
        case "custom":
            custom = _present(tool, "name", "description")
            format_ = tool.get("format")
            if format_ and format_.get("type") == "grammar":
                custom["format"] = {"type": "grammar", "grammar": _present(format_, "syntax", "definition")}
            elif format_:
                custom["format"] = {"type": "text"}
            return {"type": "custom", "custom": custom}
        case other:
            raise InvalidRequest(f"Tools of type {other!r} are not supported by this model.", param="tools")


def _named_choice(choice: Json) -> Json:
    type_ = choice.get("type")
    if type_ not in ("function", "custom"):
        raise InvalidRequest(f"A tool_choice of type {type_!r} is not supported by this model.", param="tool_choice")
    return {"type": type_, type_: {"name": choice["name"]}}


def _text(text: Json | None) -> Json:
    if not text:
        return {}
    body: Json = {}
    if text.get("verbosity"):
        body["verbosity"] = text["verbosity"]
    format_: Json = text.get("format") or {}
    if format_.get("type") == "json_schema":
        schema = _present(format_, "name", "description", "schema", "strict")
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif format_.get("type") == "json_object":
        body["response_format"] = {"type": "json_object"}
    return body


def _reasoning(reasoning: Json | None) -> Json:
    body: Json = {}
    for name, value in (reasoning or {}).items():
        if value is None:
            continue
        if name != "effort":
            raise InvalidRequest(f"reasoning.{name} is not supported by this model.", param=f"reasoning.{name}")
        body["reasoning_effort"] = value
    return body


def _present(source: Json, *names: str) -> Json:
    return {name: source[name] for name in names if source.get(name) is not None}


# items to messages


def chat_messages(items: list[Json], instructions: str | None = None) -> list[Json]:
    """Items as messages: calls joined to one assistant message, outputs after it, reasoning left out.

    Raises:
        InvalidRequest: an item or part that this API has no word for.
    """
    messages = _Messages()
    if instructions:
        messages.system(instructions)
    for item in items:
        messages.add(item)
    return messages.done()


class _Messages:
    """Messages being built; the order that the API asks for is kept here."""

    def __init__(self) -> None:
        self._messages: list[Json] = []
        self._shown: list[Json] = []
        """Images of tool outputs, to be shown by the user once the outputs are over."""

    def done(self) -> list[Json]:
        self._show()
        return self._messages

    def add(self, item: Json) -> None:
        match item.get("type", "message"):
            case "message":
                self._message(item)
            case "function_call":
                function = {"name": item["name"], "arguments": item["arguments"] or "{}"}
                self._call({"id": item["call_id"], "type": "function", "function": function})
            case "custom_tool_call":
                custom = {"name": item["name"], "input": item["input"]}
                self._call({"id": item["call_id"], "type": "custom", "custom": custom})
            case "function_call_output" | "custom_tool_call_output":
                self._output(item["call_id"], item["output"])
            case "mcp_call":
                call_id, output = mcp_call_output(item)
                function = {"name": item["name"], "arguments": item["arguments"] or "{}"}
                self._call({"id": call_id, "type": "function", "function": function})
                self._output(call_id, output)
            case "compaction":
                self.system(summary_of(item))
            case "reasoning" | "mcp_list_tools" | "mcp_approval_request" | "mcp_approval_response":
                return
            case other:
                raise InvalidRequest(f"Items of type {other!r} are not supported by this model.", param="input")

    def system(self, text: str, named: Json | None = None) -> None:
        """`developer` is OpenAI's word alone; and many chat templates take one system message, at the start."""
        self._show()
        last = self._messages[-1] if self._messages else None
        if last is not None and last["role"] == "system" and len(self._messages) == 1 and not named:
            last["content"] += f"\n\n{text}"
            return
        self._messages.append({"role": "system", "content": text, **(named or {})})

    def _message(self, item: Json) -> None:
        content: str | list[Json] = item["content"]
        match item["role"]:
            case "user":
                self._show()
                self._messages.append({"role": "user", "content": _user_content(content), **_present(item, "name")})
            case "assistant":
                self._assistant(content, _present(item, "name"))
            case _:
                self.system(plain_text(content), _present(item, "name"))

    def _assistant(self, content: str | list[Json], named: Json) -> None:
        text = plain_text(content)
        refusal = "" if isinstance(content, str) else "".join(part.get("refusal", "") for part in content)
        last = self._messages[-1] if self._messages else None
        if last is not None and last.get("tool_calls"):
            # Its outputs must follow a message with calls at once, so words in between join that message.
            last["content"] = (last["content"] or "") + text
            return
        self._show()
        message: Json = {"role": "assistant", "content": text if text or not refusal else None, **named}
        self._messages.append(message | ({"refusal": refusal} if refusal else {}))

    def _call(self, call: Json) -> None:
        last = self._messages[-1] if self._messages else None
        if last is not None and last["role"] == "assistant":
            last.setdefault("tool_calls", []).append(call)
            last["content"] = last["content"] or None
            return
        self._show()
        self._messages.append({"role": "assistant", "content": None, "tool_calls": [call]})

    def _output(self, call_id: str, output: str | list[Json]) -> None:
        if isinstance(output, str):
            self._messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
            return
        shown = [_user_part(part) for part in output if part["type"] not in _TEXTS]
        text = plain_text(output)
        if shown:
            self._shown += [{"type": "text", "text": f"Output of {call_id}:"}, *shown]
            text = text or "The output follows in the next message of the user."
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": text})

    def _show(self) -> None:
        if self._shown:
            self._messages.append({"role": "user", "content": self._shown})
            self._shown = []


_TEXTS = ("input_text", "output_text", "text")


def plain_text(content: str | list[Json]) -> str:
    """The text of a message or tool output."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] in _TEXTS)


def mcp_call_output(item: Json) -> tuple[str, str]:
    """A tool that ran on the server, as a call id and what came back."""
    call_id = f"call_{item['id'].removeprefix('mcp_')}"
    error = item.get("error")
    if error:
        text = error if isinstance(error, str) else orjson.dumps(error).decode()
        return call_id, mark(text, source=item["name"], key=item["id"])
    output: str | None = item.get("output")
    if output is None:
        return call_id, "The outcome of this call is unknown."
    return call_id, mark(output, source=item["name"], key=item["id"])


def _user_content(content: str | list[Json]) -> str | list[Json]:
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0]["type"] in _TEXTS:
        return content[0]["text"]
    return [_user_part(part) for part in content]


def _user_part(part: Json) -> Json:
    match part["type"]:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part["text"]}
        case "input_image" if part.get("image_url"):
            image: Json = {"url": part["image_url"]}
            detail = part.get("detail")
            if detail:
                image["detail"] = "high" if detail == "original" else detail
            return {"type": "image_url", "image_url": image}
        case "input_file" if part.get("file_data"):
            return {"type": "file", "file": _present(part, "file_data", "filename")}
        case "input_audio":
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        case other:
            raise InvalidRequest(f"This model cannot be given this {other!r} part.", param="input")


# stream


class _Call:
    """A tool call under construction: started once its name is known."""

    __slots__ = ("id", "is_bare", "key", "pieces")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.key = -1
        self.is_bare = False
        """A function of which no arguments were said so far."""
        self.pieces: list[str] = []


_AT_ONCE = 32
"""Chunks that are looked at together; those behind an escape are looked at again."""
_MOST_LIKENESSES = 4
"""Some servers put something new into every chunk (a number, a filler): looking for what is common is given up."""


class Likeness:
    """What the chunks of an answer have in common whose words alone differ: then only those are parsed.

    Exact, not a guess: a payload with the same bytes around a valid JSON string is the same JSON but for that string.
    """

    __slots__ = ("_after", "_before", "_shortest")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._shortest = len(before) + len(after)

    @classmethod
    def of(cls, payload: bytes, text: str) -> "Likeness | None":
        """Of a chunk that says this text and no more; None: it spells it in a way of its own."""
        spelled = orjson.dumps(text)
        before, found, after = payload.partition(spelled)
        if not found:
            return None
        before, after = before + b'"', b'"' + after
        try:
            probe = orjson.loads(before + b"~" + after)
        except orjson.JSONDecodeError:
            return None
        is_text = probe["choices"][0]["delta"] == {"content": "~"}
        return cls(before, after) if is_text else None

    def texts_of(self, payloads: list[bytes]) -> list[bytes]:
        """The texts, as JSON spells them, of those payloads at the beginning that are like that and have no escapes."""
        before, after, shortest = self._before, self._after, self._shortest
        start, end = len(before), -len(after)
        texts: list[bytes] = []
        for payload in payloads:
            if len(payload) < shortest or not payload.startswith(before) or not payload.endswith(after):
                break
            texts.append(payload[start:end])
        if _is_plain(b"".join(texts)):
            return texts
        return texts[: next(place for place, text in enumerate(texts) if not _is_plain(text))]


def _is_plain(text: bytes) -> bool:
    return b"\\" not in text and b'"' not in text


class ChatReader:
    """Chunks in, model events out (through `gathering`); `finished` once the server has said how it ended."""

    def __init__(self) -> None:
        self.gathering = Gathering()
        self._halves = Halves()
        self._next_key = 0
        self._message = -1
        self._reasoning = -1
        self._torn: int | None = None
        """The item that was cut short: it never gets its end."""
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._last: Json = {}
        self._likeness: Likeness | None = None
        self._tries = _MOST_LIKENESSES

    @property
    def is_over(self) -> bool:
        """The answer is whole, even if the stream should end badly now."""
        return self._reason is not None

    def feed(self, payloads: list[bytes]) -> None:
        place = 0
        while place < len(payloads):
            likeness = self._likeness
            texts = likeness.texts_of(payloads[place : place + _AT_ONCE]) if likeness is not None else []
            if texts:
                self._say(texts)
            else:
                self._chunk(payloads[place])
            place += len(texts) or 1

    def _say(self, texts: list[bytes]) -> None:
        """What chunks said that are like one before, in JSON's spelling."""
        key = self._message if self._message >= 0 else self._open_message()
        try:
            self.gathering.delta(TextDelta, key, orjson.loads(b'"%b"' % b"".join(texts)))
        except orjson.JSONDecodeError:  # one of them is none: what came before it is told
            for text in texts:
                self.gathering.delta(TextDelta, key, orjson.loads(b'"%b"' % text))

    def _chunk(self, payload: bytes) -> None:
        chunk: Json
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            chunk = orjson.loads(self._halves.join(payload))
        choices = chunk.get("choices")
        if choices:
            choice: Json = choices[0]
            delta: Json | None = choice.get("delta")
            if delta:
                text = delta.get("content")
                if type(text) is str and text and len(delta) == 1 and self._message >= 0 and not choice.get("logprobs"):
                    self.gathering.delta(TextDelta, self._message, text)  # nearly every chunk is this and no more
                    if self._tries and not choice.get("finish_reason") and not chunk.get("usage"):
                        self._tries -= 1
                        self._likeness = Likeness.of(payload, text)
                else:
                    self._delta(delta, choice.get("logprobs"))
            reason = choice.get("finish_reason")
            if reason:
                self._reason = reason
                self._last = chunk
        usage = chunk.get("usage")
        if usage:
            self._usage = chat_usage(usage) or self._usage
        if not choices and not usage:
            error = payload_error(chunk)
            if error is not None:
                raise error

    def finish(self) -> None:
        """The stream is over: close what is whole and say how it ended.

        Raises:
            UpstreamError: it ended without a reason.
        """
        if self._reason is None:
            raise UpstreamError(CUT, code="upstream_cut")
        if self._reason == "error":
            raise UpstreamError("The model's server failed in the middle of its answer; try again.")
        incomplete = _INCOMPLETE.get(self._reason)
        if incomplete:
            self._torn = self._next_key - 1
        self._close_words()
        for call in self._calls:
            self._end_call(call)
        self.gathering.add(
            Finished(
                usage=self._usage,
                incomplete=incomplete,
                model=self._last.get("model") or "",
                service_tier=self._last.get("service_tier"),
                system_fingerprint=self._last.get("system_fingerprint"),
            )
        )

    def _delta(self, delta: Json, logprobs: Json | None) -> None:
        text = delta.get("content")
        if type(text) is list:
            self._parts(cast(list[Json], text))
            text = None
        if text:
            key = self._message if self._message >= 0 else self._open_message()
            tokens: list[Json] | None = logprobs.get("content") if logprobs else None
            if tokens:
                self.gathering.add(TextDelta(key, text, tokens))
            else:
                self.gathering.delta(TextDelta, key, text)
        if len(delta) == 1 and text is not None:
            return
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought:
            self.gathering.delta(ReasoningDelta, self._open_reasoning(), thought)
        refusal = delta.get("refusal")
        if refusal:
            key = self._message if self._message >= 0 else self._open_message()
            self.gathering.delta(RefusalDelta, key, refusal)
        for annotation in delta.get("annotations") or ():
            self._annotate(annotation)
        for call in delta.get("tool_calls") or ():
            self._call_delta(call)

    def _parts(self, parts: list[Json]) -> None:
        """Words in parts, as Mistral's reasoning models give them; those of `thinking` are in parts again."""
        for part in parts:
            match part["type"]:
                case "text":
                    self._delta({"content": part["text"]}, None)
                case "thinking":
                    for thought in part["thinking"]:
                        self._delta({"reasoning": thought.get("text")}, None)
                case _:
                    pass  # Mistral's references, say: nothing that is shown

    def _annotate(self, annotation: Json) -> None:
        key = self._message if self._message >= 0 else self._open_message()
        type_ = annotation["type"]
        self.gathering.add(AnnotationAdded(key, {"type": type_, **annotation.get(type_, {})}))

    def _call_delta(self, delta: Json) -> None:
        call = self._call_of(delta)
        body: Json = delta.get("function") or delta.get("custom") or {}
        if call.key < 0 and body.get("name"):
            self._close_words()
            call.key = self._key()
            kind = "custom_tool_call" if "custom" in delta else "function_call"
            call.is_bare = kind == "function_call"
            self.gathering.add(ItemStarted(call.key, kind, body["name"], call.id))
        piece = body.get("arguments") or body.get("input")
        if piece:
            call.pieces.append(piece)
        if call.key >= 0:
            for text in call.pieces:
                call.is_bare = False
                self.gathering.delta(ArgumentsDelta, call.key, text)
            call.pieces.clear()

    def _call_of(self, delta: Json) -> _Call:
        """By index; some servers give every call index 0, or none, and tell them apart by id alone."""
        index: int = delta.get("index") or 0
        id_: str | None = delta.get("id")
        call = self._by_index.get(index)
        if call is None or (id_ and id_ != call.id):
            call = _Call(id_ or f"call_{RandomIds().token()}")
            self._by_index[index] = call
            self._calls.append(call)
        return call

    def _end_call(self, call: _Call) -> None:
        if call.key < 0 and self._torn is None:
            raise UpstreamError(UNREADABLE)
        if call.is_bare and call.key != self._torn:
            # Many servers say nothing where there are no arguments; clients parse them as JSON.
            self.gathering.delta(ArgumentsDelta, call.key, "{}")
        self._close(call.key)

    def _open_message(self) -> int:
        self._close_words()
        self._message = self._key()
        self.gathering.add(ItemStarted(self._message, "message"))
        return self._message

    def _open_reasoning(self) -> int:
        if self._reasoning < 0:
            self._close_words()
            self._reasoning = self._key()
            self.gathering.add(ItemStarted(self._reasoning, "reasoning"))
        return self._reasoning

    def _close_words(self) -> None:
        self._close(self._reasoning)
        self._close(self._message)
        self._reasoning = self._message = -1

    def _close(self, key: int) -> None:
        if key >= 0 and key != self._torn:
            self.gathering.add(ItemDone(key))

    def _key(self) -> int:
        key = self._next_key
        self._next_key += 1
        return key


_INCOMPLETE: dict[str, Any] = {"length": "max_output_tokens", "content_filter": "content_filter"}


def chat_usage(usage: Any) -> Usage | None:
    """Chat's words for tokens into ours; servers leave out the details or say null."""
    return counted(usage, given="prompt", made="completion")
