"""Answers of Chat Completions: a turn's record as one `chat.completion`, or its events as chunks."""

import secrets
from typing import Any

from shared.conversations.chats import completion_id
from shared.conversations.records import TurnRecord
from shared.wire.chat_messages import tool_call
from shared.wire.responses import priced_usage

type Json = dict[str, Any]

PARAGRAPH = "\n\n"
"""Between two messages of one turn (a torn answer and the one given instead, say): this surface shows only one."""

_CALLS = ("function_call", "custom_tool_call")
_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


# whole


def render_completion(turn: TurnRecord) -> Json:
    """The `chat.completion` of a turn that ended `completed` or `incomplete`."""
    message = _message(turn)
    choice: Json = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(turn),
        "finish_reason": _finish_reason(turn.incomplete_reason, turn.output, is_legacy=is_legacy(turn)),
    }
    return {
        "id": completion_id(turn),
        "object": "chat.completion",
        "created": int(turn.created_at),
        "model": turn.params["model"],
        "choices": [choice],
        "usage": render_usage(priced_usage(turn.usage, turn.cost)),
        "service_tier": turn.params["service_tier"],
        "system_fingerprint": turn.system_fingerprint,
        "metadata": turn.params["metadata"],
    }


def render_stored(turn: TurnRecord) -> Json:
    """The same, with the settings it was made with: what the stored form adds."""
    params = turn.params
    format_ = params["text"]["format"]
    return {
        **render_completion(turn),
        "temperature": params["temperature"],
        "top_p": params["top_p"],
        "presence_penalty": params["presence_penalty"],
        "frequency_penalty": params["frequency_penalty"],
        "seed": turn.call.get("extra", {}).get("seed"),
        "input_user": params["user"],
        "tools": [_shown_tool(tool) for tool in params["tools"]] or None,
        "tool_choice": _shown_choice(params["tool_choice"]) if params["tools"] else None,
        "response_format": _shown_format(format_) if format_["type"] != "text" else None,
    }


def is_legacy(turn: TurnRecord) -> bool:
    """Whether its caller spoke of `functions`, which came before `tools`."""
    return bool(turn.call.get("is_legacy"))


def render_usage(usage: Json | None) -> Json | None:
    """The counts of a response, in this surface's words."""
    if usage is None:
        return None
    cached = usage["input_tokens_details"]
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {
            "cached_tokens": cached["cached_tokens"],
            "cache_write_tokens": cached["cache_write_tokens"],
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"],
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cost": usage["cost"],
    }


def _message(turn: TurnRecord) -> Json:
    """Everything the turn said, as one message."""
    said = [_parts(item) for item in turn.output if item["type"] == "message"]
    annotations = [_annotation(one) for parts in said for part in parts for one in part.get("annotations", ())]
    message: Json = {
        "role": "assistant",
        "content": _joined(["".join(part.get("text", "") for part in parts) for parts in said]),
        "refusal": _joined(["".join(part.get("refusal", "") for part in parts) for parts in said]),
        "annotations": annotations,
    }
    thought = _joined([text for item in turn.output if item["type"] == "reasoning" for text in _thoughts(item)])
    if thought is not None:
        message["reasoning_content"] = thought
    calls = [tool_call(item) for item in turn.output if item["type"] in _CALLS]
    if calls and is_legacy(turn):
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    elif message["content"] is None and message["refusal"] is None:
        message["content"] = ""
    return message


def _parts(item: Json) -> list[Json]:
    return item["content"]


def _thoughts(item: Json) -> list[str]:
    parts: list[Json] = [*(item.get("summary") or []), *(item.get("content") or [])]
    return [part["text"] for part in parts]


def _joined(texts: list[str]) -> str | None:
    return PARAGRAPH.join(text for text in texts if text) or None


def _logprobs(turn: TurnRecord) -> Json | None:
    tokens: list[Json] = []
    for item in turn.output:
        if item["type"] == "message":
            tokens += [token for part in _parts(item) for token in part.get("logprobs", ())]
    return {"content": tokens, "refusal": None} if tokens else None


def _annotation(annotation: Json) -> Json:
    """Flat in the Responses API, under its own name here."""
    kind: str = annotation["type"]
    return {"type": kind, kind: {name: value for name, value in annotation.items() if name != "type"}}


def _finish_reason(incomplete: str | None, output: list[Json], *, is_legacy: bool) -> str:
    if incomplete is not None:
        return _REASONS.get(incomplete, "stop")
    if any(item["type"] in _CALLS for item in output):
        return "function_call" if is_legacy else "tool_calls"
    return "stop"


def _shown_tool(tool: Json) -> Json:
    kind: str = tool["type"]
    body = {name: value for name, value in tool.items() if name != "type"}
    format_: Json = body.get("format") or {}
    if format_.get("type") == "grammar":
        grammar = {name: value for name, value in format_.items() if name != "type"}
        body["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": kind, kind: body}


def _shown_choice(choice: str | Json) -> str | Json:
    if isinstance(choice, str):
        return choice
    if choice["type"] == "allowed_tools":
        allowed = {"mode": choice["mode"], "tools": [_shown_choice(tool) for tool in choice["tools"]]}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    return {"type": choice["type"], choice["type"]: {"name": choice["name"]}}


def _shown_format(format_: Json) -> Json:
    if format_["type"] != "json_schema":
        return {"type": format_["type"]}
    return {"type": "json_schema", "json_schema": {name: value for name, value in format_.items() if name != "type"}}


# streamed


class Chunks:
    """The events of one turn as `chat.completion.chunk`s: joined, they say what `render_completion` says."""

    def __init__(self, turn: TurnRecord, *, include_usage: bool = False, include_obfuscation: bool = False) -> None:
        self._head: Json = {
            "id": completion_id(turn),
            "object": "chat.completion.chunk",
            "created": int(turn.created_at),
            "model": turn.params["model"],
            "service_tier": turn.params["service_tier"],
            "system_fingerprint": None,
        }
        self._include_usage = include_usage
        self._include_obfuscation = include_obfuscation
        self._is_legacy = is_legacy(turn)
        self._has_role = False
        self.is_over = False
        """The last chunk has been made."""
        self._sources: dict[str, object] = {}
        """Field of the message, to where its last words came from."""
        self._calls: dict[int, int] = {}
        """Output index of a tool call, to its index here."""

    def learn(self, turn: TurnRecord) -> None:
        """What is known of the turn by now: who answered it shows only at its end."""
        self._head["system_fingerprint"] = turn.system_fingerprint

    def feed(self, event: Json) -> list[Json]:
        """One event. The first two say nothing here, and of a failure it is for the caller to tell."""
        kind: str = event["type"]
        match kind:
            case "response.output_text.delta":
                return self._words("content", event["output_index"], event["delta"], event.get("logprobs"))
            case "response.refusal.delta":
                return self._words("refusal", event["output_index"], event["delta"])
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                place = event.get("content_index", event.get("summary_index"))
                return self._words("reasoning_content", (kind, event["output_index"], place), event["delta"])
            case "response.output_text.annotation.added":
                return self._deltas({"annotations": [_annotation(event["annotation"])]})
            case "response.output_item.added" if event["item"]["type"] in _CALLS:
                return self._call(event["output_index"], event["item"])
            case "response.function_call_arguments.delta":
                return self._arguments(event["output_index"], "function", {"arguments": event["delta"]})
            case "response.custom_tool_call_input.delta":
                return self._arguments(event["output_index"], "custom", {"input": event["delta"]})
            case "response.completed" | "response.incomplete":
                return self._end(event["response"])
            case _:
                return []

    def _words(self, field: str, source: object, text: str, logprobs: list[Json] | None = None) -> list[Json]:
        if not text and not logprobs:
            return []
        if text:
            if self._sources.get(field, source) != source:
                text = PARAGRAPH + text
            self._sources[field] = source
        return self._deltas({field: text} if text else {}, logprobs=logprobs)

    def _call(self, output_index: int, item: Json) -> list[Json]:
        index = self._calls[output_index] = len(self._calls)
        call = tool_call(item)
        if not self._is_legacy:
            return self._deltas({"tool_calls": [{"index": index, **call}]})
        return self._deltas({"function_call": call["function"]}) if index == 0 else []

    def _arguments(self, output_index: int, kind: str, piece: Json) -> list[Json]:
        index = self._calls[output_index]
        if not self._is_legacy:
            return self._deltas({"tool_calls": [{"index": index, kind: piece}]})
        return self._deltas({"function_call": piece}) if index == 0 else []

    def _end(self, response: Json) -> list[Json]:
        """Why it stopped, in a chunk of its own; then, where asked for, what it used, in another without choices."""
        self.is_over = True
        self._head["service_tier"] = response["service_tier"]
        details: Json = response["incomplete_details"] or {}
        reason = _finish_reason(details.get("reason"), response["output"], is_legacy=self._is_legacy)
        has_answer = bool(self._calls or self._sources.keys() & {"content", "refusal"})
        last = {"content": ""} if self._has_role and not has_answer else None
        chunks = [*self._deltas(last), self._chunk({}, finish_reason=reason)]
        if self._include_usage:
            chunks.append({**self._head, "choices": [], "usage": render_usage(response["usage"])})
        return chunks

    def _deltas(self, delta: Json | None, *, logprobs: list[Json] | None = None) -> list[Json]:
        """This delta; before the first one, who speaks."""
        chunks: list[Json] = []
        if not self._has_role:
            self._has_role = True
            content = "" if delta is None or "content" in delta else None
            chunks.append(self._chunk({"role": "assistant", "content": content, "refusal": None}))
        if delta is not None:
            chunks.append(self._chunk(delta, logprobs=logprobs))
        return chunks

    def _chunk(self, delta: Json, *, logprobs: list[Json] | None = None, finish_reason: str | None = None) -> Json:
        choice: Json = {
            "index": 0,
            "delta": delta,
            "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
            "finish_reason": finish_reason,
        }
        chunk: Json = {**self._head, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        if self._include_obfuscation and delta:
            chunk["obfuscation"] = secrets.token_urlsafe(secrets.randbelow(16) + 1)
        return chunk
