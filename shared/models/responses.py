"""The Responses API as an upstream: stateless (`store=false`), our items as its input, its events into ours."""

from typing import Any

import orjson

from shared.errors import AssistantError, InvalidRequest, UpstreamError
from shared.models.base import (
    SUMMARY_MARKER,
    AnnotationAdded,
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
    counted,
    object_of,
    summary_of,
)
from shared.models.chat import mcp_call_output, refuse_unknown_there
from shared.models.gathering import Delta, Gathering
from shared.models.transport import CUT, Halves, payload_error

PATH = "/responses"

ENCRYPTED_REASONING = "reasoning.encrypted_content"

# request


def responses_body(request: ModelRequest, *, is_openai: bool = True) -> Json:
    """The body of a streamed call. `is_openai`: the server is OpenAI's or Azure's own, not a compatible one.

    Raises:
        InvalidRequest: the request holds something this API has no word for; `param` names it.
    """
    for name in _NO_WORD:
        if getattr(request, name):
            raise InvalidRequest(f"{name} is not supported by this model.", param=name)
    refuse_unknown_there(request, is_openai=is_openai)
    include = [ENCRYPTED_REASONING]
    if request.logprobs or request.top_logprobs:
        include.append("message.output_text.logprobs")
    body: Json = {
        "model": request.model,
        "input": response_input(request.items, is_openai=is_openai),
        "stream": True,
        "store": False,
        "include": include,
    }
    if is_openai:
        body["stream_options"] = {"include_obfuscation": False}
    for name in _SAME_NAME:
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.top_logprobs:
        body["top_logprobs"] = request.top_logprobs
    return body | _tools(request)


_NO_WORD = ("stop", "seed", "logit_bias", "presence_penalty", "frequency_penalty", "prediction")
_SAME_NAME = (
    "instructions",
    "text",
    "reasoning",
    "temperature",
    "top_p",
    "max_output_tokens",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)


def _tools(request: ModelRequest) -> Json:
    if not request.tools:
        if request.tool_choice in (None, "auto", "none"):
            return {}
        raise InvalidRequest("tool_choice names a tool, but none is offered.", param="tool_choice")
    # Left out, `strict` means true there, which a schema must be written for.
    body: Json = {
        "tools": [{"strict": False, **tool} if tool["type"] == "function" else tool for tool in request.tools]
    }
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def amend_responses_body(body: Json, refusal: InvalidRequest) -> bool:
    """Take out what a server refused although we could do without it; True: ask it again."""
    said = f"{refusal.code} {refusal.param} {refusal.message}".lower()
    if "encrypted" not in said:
        return False
    if refusal.code == "invalid_encrypted_content":
        # Reasoning of another deployment or key: it can be read only where it was written.
        kept = [item for item in body["input"] if item["type"] != "reasoning"]
        was_changed = len(kept) < len(body["input"])
        body["input"] = kept
        return was_changed
    if ENCRYPTED_REASONING not in body["include"]:
        return False
    body["include"] = [name for name in body["include"] if name != ENCRYPTED_REASONING]
    return True


# items


def response_input(items: list[Json], *, is_openai: bool = True) -> list[Json]:
    """Items as input of a stateless call. Ids are ours and mean nothing there, so they are left out.

    Raises:
        InvalidRequest: an item or part that this API has no word for.
    """
    given: list[Json] = []
    for place, item in enumerate(items):
        match item.get("type", "message"):
            case "message":
                given.append(_message(item))
            case "function_call":
                given.append(_present(item, "type", "call_id", "name", "namespace", "arguments"))
            case "custom_tool_call":
                given.append(_present(item, "type", "call_id", "name", "namespace", "input"))
            case "function_call_output" | "custom_tool_call_output":
                given.append({"type": item["type"], "call_id": item["call_id"], "output": _parts(item["output"])})
            case "mcp_call":
                call_id, output = mcp_call_output(item)
                call = {"type": "function_call", "call_id": call_id, "name": item["name"]}
                given.append({**call, "arguments": item["arguments"] or "{}"})
                given.append({"type": "function_call_output", "call_id": call_id, "output": output})
            case "compaction":
                given.append(_compaction(item))
            case "reasoning":
                if _is_followed(items, place):
                    given += _reasoning(item, is_openai=is_openai)
            case "mcp_list_tools" | "mcp_approval_request" | "mcp_approval_response":
                continue
            case other:
                raise InvalidRequest(f"Items of type {other!r} are not supported by this model.", param="input")
    return given


def _message(item: Json) -> Json:
    if item.get("name"):
        raise InvalidRequest("Names of participants are not supported by this model.", param="messages.name")
    content: str | list[Json] = item["content"]
    if item["role"] == "assistant" and not isinstance(content, str):
        content = [_said(part) for part in content]
    else:
        content = _parts(content)
    message: Json = {"type": "message", "role": item["role"], "content": content}
    return message | _present(item, "phase")


def _said(part: Json) -> Json:
    if part["type"] == "refusal":
        return {"type": "refusal", "refusal": part["refusal"]}
    return {"type": "output_text", "text": part["text"], "annotations": []}


def _parts(content: str | list[Json]) -> str | list[Json]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Json) -> Json:
    match part["type"]:
        case "input_text" | "output_text" | "text":
            return {"type": "input_text", "text": part["text"]}
        case "input_image" if part.get("image_url"):
            return {"type": "input_image", "image_url": part["image_url"], "detail": part.get("detail") or "auto"}
        case "input_file" if part.get("file_data") or part.get("file_url"):
            return _present(part, "type", "file_data", "file_url", "filename", "detail")
        case other:
            raise InvalidRequest(f"This model cannot be given this {other!r} part.", param="input")


def _compaction(item: Json) -> Json:
    if item["encrypted_content"].startswith(SUMMARY_MARKER):
        return {"type": "message", "role": "developer", "content": summary_of(item)}
    return {"type": "compaction", "encrypted_content": item["encrypted_content"]}


def _reasoning(item: Json, *, is_openai: bool) -> list[Json]:
    """Only its writer can read `encrypted_content`, and only under its own id or none. Open text needs no key."""
    summary: list[Json] = item.get("summary") or []
    if item.get("encrypted_content"):
        return [{"type": "reasoning", "summary": summary, "encrypted_content": item["encrypted_content"]}]
    if item.get("content") and not is_openai:
        return [{"type": "reasoning", "id": item["id"], "summary": summary, "content": item["content"]}]
    return []


def _is_followed(items: list[Json], place: int) -> bool:
    """Reasoning that led to nothing (a turn was torn) is refused; what it led to comes right after it."""
    for item in items[place + 1 :]:
        type_ = item.get("type", "message")
        if type_ != "reasoning":
            return type_ in _LED_TO or (type_ == "message" and item["role"] == "assistant")
    return False


_LED_TO = ("function_call", "custom_tool_call", "mcp_call")


def _present(source: Json, *names: str) -> Json:
    return {name: source[name] for name in names if source.get(name) is not None}


# stream


class ResponsesReader:
    """Events in, model events out (through `gathering`); an item's `output_index` is its key."""

    def __init__(self) -> None:
        self.gathering = Gathering()
        self._halves = Halves()
        self._open: dict[int, str] = {}
        """Type of each item that is being built."""
        self._streamed: set[int] = set()
        """Items of which deltas were seen: what others hold comes with their end."""
        self._final: Finished | None = None

    @property
    def is_over(self) -> bool:
        """The answer is whole, even if the stream should end badly now."""
        return self._final is not None

    def feed(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            try:
                event = orjson.loads(payload)
            except orjson.JSONDecodeError:
                event = orjson.loads(self._halves.join(payload))
            self._event(event)

    def _event(self, event: Json) -> None:
        type_: str = event.get("type") or ""
        delta = _DELTAS.get(type_)
        if delta is not None:
            self._delta(event, delta)
            return
        match type_:
            case "response.output_item.added":
                self._start(event["output_index"], event["item"])
            case "response.output_item.done":
                self._end(event["output_index"], event["item"])
            case "response.reasoning_summary_text.delta":
                self._streamed.add(event["output_index"])
                self.gathering.add(SummaryDelta(event["output_index"], event["summary_index"], event["delta"]))
            case "response.output_text.annotation.added":
                self.gathering.add(AnnotationAdded(event["output_index"], event["annotation"]))
            case "response.completed" | "response.incomplete":
                self._final = _finished(event["response"])
            case "response.failed":
                raise _failure(event["response"])
            case _:
                error = payload_error(event)
                if error is not None:
                    raise error

    def finish(self) -> None:
        """The stream is over: say how it ended.

        Raises:
            UpstreamError: it ended without its last event.
        """
        if self._final is None:
            raise UpstreamError(CUT, code="upstream_cut")
        if self._final.incomplete is None:
            for key in list(self._open):
                self._close(key)
        self.gathering.add(self._final)

    def _delta(self, event: Json, delta: Delta) -> None:
        key: int = event["output_index"]
        self._streamed.add(key)
        if key not in self._open:
            self._start(key, {"type": _IMPLIED[delta]})
        logprobs = event.get("logprobs")
        if logprobs and delta is TextDelta:
            self.gathering.add(TextDelta(key, event["delta"], logprobs))
        elif event["delta"]:
            self.gathering.delta(delta, key, event["delta"])

    def _start(self, key: int, item: Json) -> None:
        type_ = item["type"]
        if type_ not in ("message", "reasoning", "function_call", "custom_tool_call"):
            return
        self._open[key] = type_
        self.gathering.add(ItemStarted(key, type_, item.get("name", ""), item.get("call_id", "")))

    def _end(self, key: int, item: Json) -> None:
        if key not in self._open:
            self._start(key, item)
        if key not in self._open:
            return
        if key not in self._streamed:
            self._whole(key, item)
        if item.get("status") == "incomplete":
            return
        self._close(key, _present(item, "encrypted_content", "phase") or None)

    def _close(self, key: int, extra: Json | None = None) -> None:
        del self._open[key]
        self.gathering.add(ItemDone(key, extra))

    def _whole(self, key: int, item: Json) -> None:
        """The words of an item that came at once."""
        match item["type"]:
            case "message":
                for part in item["content"]:
                    if part["type"] == "refusal":
                        self.gathering.add(RefusalDelta(key, part["refusal"]))
                    elif part.get("text"):
                        self.gathering.add(TextDelta(key, part["text"], part.get("logprobs") or None))
            case "reasoning":
                for index, part in enumerate(item.get("summary") or ()):
                    self.gathering.add(SummaryDelta(key, index, part["text"]))
                for part in item.get("content") or ():
                    self.gathering.add(ReasoningDelta(key, part["text"]))
            case _:
                text = item.get("arguments") or item.get("input")
                if text:
                    self.gathering.add(ArgumentsDelta(key, text))


_DELTAS: dict[str, Delta] = {
    "response.output_text.delta": TextDelta,
    "response.refusal.delta": RefusalDelta,
    "response.function_call_arguments.delta": ArgumentsDelta,
    "response.custom_tool_call_input.delta": ArgumentsDelta,
    "response.reasoning_text.delta": ReasoningDelta,
}

_IMPLIED: dict[Delta, str] = {TextDelta: "message", RefusalDelta: "message", ReasoningDelta: "reasoning"}
"""What a delta belongs to whose item was not announced."""


def _finished(response: Json) -> Finished:
    incomplete: Any = None
    if response.get("status") == "incomplete":
        details = object_of(response.get("incomplete_details"))
        incomplete = "content_filter" if details.get("reason") == "content_filter" else "max_output_tokens"
    return Finished(
        usage=responses_usage(response.get("usage")),
        incomplete=incomplete,
        model=response.get("model") or "",
        service_tier=response.get("service_tier"),
    )


def _failure(response: Json) -> AssistantError:
    error: Json = response.get("error") or {}
    return payload_error({"error": error or {"message": "failed"}}) or UpstreamError(CUT)


def responses_usage(usage: Any) -> Usage | None:
    """The upstream's count of tokens; some servers leave out the details."""
    return counted(usage, given="input", made="output")
