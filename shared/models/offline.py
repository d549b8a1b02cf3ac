"""The offline model: what answers when no model is configured. Deterministic, and says what it is.

It knows the conversation ("what did I say first?", "my name is Ada" … "what is my name?") and these commands, each at
the start of a line of the user's last message:

    help                       this list
    show markdown              a table, code, math, a list and a link
    count to N [slowly]        the numbers from 1 to N
    write N words              N words of filler
    slowly [SECONDS s]: TEXT   the answer to TEXT, spread over so many seconds (10)
    think: TEXT                reason with these words first, then answer the rest
    call TOOL {JSON}           call a tool that is offered; several lines are parallel calls
    refuse                     a refusal
    fail HOW                   400, 429, 500, 503, timeout, filter, cut (in the middle) or hang (until the deadline)

A `json_schema` format is answered with an instance of the schema; `max_output_tokens` and `stop` are honoured.
"""

import base64
import hashlib
import itertools
import re
from asyncio import sleep as let_others_run
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from shared.clock import Clock, SystemClock
from shared.errors import (
    AssistantError,
    InvalidRequest,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    UpstreamError,
)
from shared.models.base import (
    SUMMARY_INSTRUCTIONS,
    TITLE_INSTRUCTIONS,
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
    summary_of,
)
from shared.models.chat import plain_text
from shared.models.examples import BadSchema, example_of

OFFLINE_MODELS = ("companion", "companion-fast", "companion-reasoning")
WORD_SECONDS = 0.02
SLOW_SECONDS = 0.2
IMAGE_TOKENS = 800
YIELD_EVERY = 64
"""Words said without a pause before others may run."""

type Incomplete = Literal["max_output_tokens", "content_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is going to be said, in this order."""

    thought: str = ""
    text: str = ""
    refusal: str = ""
    calls: tuple[tuple[Json, str], ...] = ()
    """Tool and its arguments (or input)."""
    seconds: float | None = None
    """For the whole text; None: word by word at the usual pace."""
    failure: AssistantError | None = None
    hangs: bool = False
    incomplete: Incomplete | None = None


class OfflineModel:
    """See the module. `word_delay` is in seconds; 0 in tests."""

    def __init__(self, *, word_delay: float = WORD_SECONDS, clock: Clock | None = None) -> None:
        self._delay = word_delay
        self._clock = clock or SystemClock()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See `Model`."""
        seen = _Seen(request)
        reply = reply_to(seen)
        speech = _Speech(request)
        pace = self._delay if reply.seconds is None else reply.seconds / max(1, len(_words(reply.text)))
        for place, event in enumerate(speech.events(reply, request)):
            yield event
            if pace and type(event) in _SPOKEN:
                await self._clock.sleep(pace)
            elif place % YIELD_EVERY == YIELD_EVERY - 1:
                await let_others_run(0)
        if reply.hangs:
            await self._clock.sleep(request.deadline or 600.0)
            raise ModelTimeout("The offline model was told to hang.")
        if reply.failure is not None:
            raise reply.failure
        usage = Usage(input_tokens=seen.tokens, output_tokens=speech.tokens, reasoning_tokens=speech.reasoning_tokens)
        incomplete = reply.incomplete or ("max_output_tokens" if speech.is_cut else None)
        yield Finished(usage=usage, incomplete=incomplete, model=request.model, system_fingerprint="fp_offline")

    async def close(self) -> None:
        return None


_SPOKEN = (TextDelta, RefusalDelta, ReasoningDelta, SummaryDelta)


# how it is said


class _Speech:
    """A reply as events, and what it cost in tokens; cut where the limit is reached."""

    def __init__(self, request: ModelRequest) -> None:
        self._limit = request.max_output_tokens
        self._characters = 0
        self.reasoning_tokens = 0
        self.is_cut = False

    @property
    def tokens(self) -> int:
        return _tokens(self._characters)

    def events(self, reply: Reply, request: ModelRequest) -> Iterator[ModelEvent]:
        key = 0
        is_whole = not (reply.incomplete or reply.failure or reply.hangs)
        if reply.thought:
            yield from self._thought(key, reply.thought, request)
            self.reasoning_tokens = self.tokens
            key += 1
        if (reply.text or reply.refusal) and not self.is_cut:
            yield ItemStarted(key, "message")
            for word in self._affordable(reply.text):
                yield TextDelta(key, word, _logprobs(word, request))
            for word in self._affordable(reply.refusal):
                yield RefusalDelta(key, word)
            if is_whole and not self.is_cut:
                yield ItemDone(key)
            key += 1
        for place, (tool, arguments) in enumerate(reply.calls):
            if self.is_cut:
                return
            yield from self._call(key + place, tool, arguments, request)

    def _thought(self, key: int, thought: str, request: ModelRequest) -> Iterator[ModelEvent]:
        asked = request.reasoning or {}
        yield ItemStarted(key, "reasoning")
        for word in self._affordable(thought):
            if asked.get("summary"):
                yield SummaryDelta(key, 0, word)
            else:
                yield ReasoningDelta(key, word)
        if not self.is_cut:
            sealed = base64.b64encode(f"offline:{thought}".encode()).decode()
            yield ItemDone(key, {"encrypted_content": sealed})

    def _call(self, key: int, tool: Json, arguments: str, request: ModelRequest) -> Iterator[ModelEvent]:
        kind = "custom_tool_call" if tool["type"] == "custom" else "function_call"
        facts = f"{len(request.items)}:{key}:{tool['name']}:{arguments}"
        call_id = f"call_{hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()}"
        yield ItemStarted(key, kind, tool["name"], call_id)
        middle = len(arguments) // 2
        for piece in (arguments[:middle], arguments[middle:]):
            if piece:
                self._characters += len(piece)
                yield ArgumentsDelta(key, piece)
        yield ItemDone(key)

    def _affordable(self, text: str) -> Iterator[str]:
        for word in _words(text):
            if self._limit is not None and _tokens(self._characters + len(word)) > self._limit:
                self.is_cut = True
                return
            self._characters += len(word)
            yield word


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+(?:\s+$)?", text)


def _tokens(characters: int) -> int:
    return -(-characters // 4)


def _logprobs(word: str, request: ModelRequest) -> list[Json] | None:
    if not (request.logprobs or request.top_logprobs):
        return None
    token: Json = {"token": word, "logprob": -0.1, "bytes": list(word.encode())}
    return [{**token, "top_logprobs": [dict(token)] if request.top_logprobs else []}]


# what it sees


@dataclass(slots=True)
class _Seen:
    """The conversation, as far as it matters here."""

    request: ModelRequest
    users: list[str] = field(default_factory=list[str])
    """What the user said, oldest first."""
    facts: list[str] = field(default_factory=list[str])
    """The same, and summaries of what is no longer there."""
    said: str = ""
    """What the assistant said last."""
    images: int = 0
    files: list[str] = field(default_factory=list[str])
    calls: int = 0
    """Tool calls made since the user spoke last."""
    outputs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Tool and output, since the user spoke last."""
    tokens: int = 0

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        self.tokens = _tokens(len(self.request.instructions or "") + _length(self.request.tools))
        for item in self.request.items:
            self.tokens += 4
            match item.get("type", "message"):
                case "message":
                    self._message(item)
                case "function_call" | "custom_tool_call":
                    names[item["call_id"]] = item["name"]
                    self.calls += 1
                    self.tokens += _tokens(len(item.get("arguments") or item.get("input") or ""))
                case "function_call_output" | "custom_tool_call_output":
                    text = plain_text(item["output"])
                    self.outputs.append((names.get(item["call_id"], "a tool"), text))
                    self.tokens += _tokens(len(text))
                case "mcp_call":
                    self.calls += 1
                    self.outputs.append((item["name"], str(item.get("output") or item.get("error"))))
                case "compaction":
                    self.facts.append(summary_of(item))
                case _:
                    continue

    @property
    def last(self) -> str:
        return self.users[-1] if self.users else ""

    def _message(self, item: Json) -> None:
        content: str | list[Json] = item["content"]
        text = plain_text(content)
        self.tokens += _tokens(len(text))
        if item["role"] == "assistant":
            self.said = text
        if item["role"] != "user":
            return
        parts = [] if isinstance(content, str) else content
        self.images = sum(1 for part in parts if part["type"] == "input_image")
        self.files = [part.get("filename") or "a file" for part in parts if part["type"] == "input_file"]
        self.tokens += self.images * IMAGE_TOKENS
        self.users.append(text)
        self.facts.append(text)
        self.calls = 0
        self.outputs = []


def _length(value: Any) -> int:
    return len(orjson.dumps(value)) if value else 0


# what it says


def reply_to(seen: _Seen) -> Reply:
    """The whole of the model's mind: the first rule that has something to say."""
    request = seen.request
    if TITLE_INSTRUCTIONS in (request.instructions or ""):
        return Reply(text=_title(seen))
    if SUMMARY_INSTRUCTIONS in (request.instructions or ""):
        return Reply(text=_summary(seen))
    reply = _command(seen.last, seen)
    if not reply.thought and _reasons(request) and reply.failure is None:
        reply = replace(reply, thought=f"The user said {_short(seen.last)!r}. I answer without a model.")
    return replace(reply, text=_stopped(reply.text, request.stop))


def _command(text: str, seen: _Seen) -> Reply:
    for pattern, rule in _COMMANDS:
        match = pattern.search(text)
        reply = rule(match, text, seen) if match else None
        if reply is not None:
            return reply
    calls = _asked_calls(text, seen) or _forced_call(text, seen)
    if calls:
        return Reply(calls=calls)
    return Reply(text=_structured(text, seen) or _answer(text, seen))


def _think(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    rest = (text[: match.start()] + text[match.end() :]).strip()
    return replace(_command(rest, seen), thought=match[1].strip())


def _slowly(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    return replace(_command(text[match.end() :].strip(), seen), seconds=float(match[1] or 10))


def _count(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    del text, seen
    last = min(int(match[1]), 100_000)
    return Reply(
        text=" ".join(str(number) for number in range(1, last + 1)), seconds=last * SLOW_SECONDS if match[2] else None
    )


def _write(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    del text, seen
    words = itertools.islice(itertools.cycle(_FILLER.split()), min(int(match[1]), 100_000))
    return Reply(text=" ".join(words))


def _refuse(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    del match, text, seen
    return Reply(refusal="I'm sorry, but I was told to refuse.")


def _fail(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    del text, seen
    how = match[1].lower()
    words = "This answer ends before its"
    match how:
        case "hang":
            return Reply(text=words, hangs=True)
        case "filter":
            return Reply(text=words, incomplete="content_filter")
        case "cut":
            failure = UpstreamError("The offline model was told to stop in the middle.", code="upstream_cut")
            return Reply(text=words, failure=failure)
        case _:
            return Reply(failure=_FAILURES[how]())


def _help(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    del match, text, seen
    return Reply(text=HELP)


def _markdown(match: re.Match[str], text: str, seen: _Seen) -> Reply:
    del match, text, seen
    return Reply(text=MARKDOWN)


_FAILURES: dict[str, Callable[[], AssistantError]] = {
    "400": lambda: InvalidRequest("The offline model was told to refuse this request.", code="invalid_prompt"),
    "429": lambda: RateLimited("The offline model was told to be busy.", retry_after=1.0),
    "500": lambda: UpstreamError("The offline model was told to fail."),
    "503": lambda: ModelUnavailable("The offline model was told to be away.", retry_after=1.0),
    "timeout": lambda: ModelTimeout("The offline model was told to time out."),
}


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


_COMMANDS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str, _Seen], Reply | None]], ...] = (
    (_rule(r"^\s*think:\s*(.+)$"), _think),
    (_rule(r"^\s*slowly(?:\s+(\d+(?:\.\d+)?)\s*s)?\s*:"), _slowly),
    (_rule(r"^\s*fail\s+(400|429|500|503|timeout|filter|cut|hang)\b"), _fail),
    (_rule(r"^\s*refuse\b"), _refuse),
    (_rule(r"^\s*count to (\d+)(\s+slowly)?"), _count),
    (_rule(r"^\s*write (\d+) words"), _write),
    (_rule(r"^\s*show markdown\b"), _markdown),
    (re.compile(r"^\s*/?help\W*$", re.IGNORECASE), _help),
)

_CALL = _rule(r"^\s*call\s+([\w.-]+)[ \t]*(.*)$")


def _asked_calls(text: str, seen: _Seen) -> tuple[tuple[Json, str], ...]:
    """The `call` lines whose tool is offered and whose turn has come."""
    request = seen.request
    if request.tool_choice == "none":
        return ()
    tools = {tool["name"]: tool for tool in _offered(request)}
    asked = [(tools[match[1]], match[2].strip()) for match in _CALL.finditer(text) if match[1] in tools]
    left = asked[seen.calls :]
    if request.parallel_tool_calls is False:
        left = left[:1]
    return tuple((tool, text if tool["type"] == "custom" else text or "{}") for tool, text in left)


def _forced_call(text: str, seen: _Seen) -> tuple[tuple[Json, str], ...]:
    """A tool that must be called is, once, with arguments made from its schema."""
    choice = seen.request.tool_choice
    mode = choice.get("mode") if isinstance(choice, dict) else choice
    name = choice.get("name") if isinstance(choice, dict) else None
    if seen.calls or not (name or mode == "required"):
        return ()
    tool = next((tool for tool in _offered(seen.request) if name in (None, tool["name"])), None)
    if tool is None:
        return ()
    if tool["type"] == "custom":
        return ((tool, text),)
    return ((tool, _instance(tool.get("parameters") or {"type": "object"}, text, param="tools")),)


def _offered(request: ModelRequest) -> list[Json]:
    choice = request.tool_choice
    tools = [tool for tool in request.tools if tool["type"] in ("function", "custom")]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        names = {tool.get("name") for tool in choice["tools"]}
        return [tool for tool in tools if tool["name"] in names]
    return tools


def _structured(text: str, seen: _Seen) -> str:
    format_: Json = (seen.request.text or {}).get("format") or {}
    if format_.get("type") == "json_schema":
        return _instance(format_["schema"], text, param="text.format.schema")
    if format_.get("type") == "json_object":
        return orjson.dumps({"answer": _answer(text, seen)}).decode()
    return ""


def _instance(schema: Json, text: str, *, param: str) -> str:
    """What fits the schema, as JSON.

    Raises:
        InvalidRequest: nothing does.
    """
    try:
        return orjson.dumps(example_of(schema, _short(text))).decode()
    except (BadSchema, orjson.JSONEncodeError) as exc:
        raise InvalidRequest(f"Invalid schema: {exc}.", param=param, code="invalid_json_schema") from exc


def _answer(text: str, seen: _Seen) -> str:
    if seen.outputs:
        return "\n".join(f"{name} said: {output}" for name, output in seen.outputs)
    unknown = _CALL.search(text)
    if unknown and unknown[2].startswith("{"):
        return f"No tool named {unknown[1]!r} is offered."
    if seen.images or seen.files:
        return _sight(text, seen)
    return _recalled(text, seen) or _echo(text, seen)


def _sight(text: str, seen: _Seen) -> str:
    images = f"{seen.images} image{'s' if seen.images != 1 else ''}"
    files = f" and {len(seen.files)} file{'s' if len(seen.files) != 1 else ''} ({', '.join(seen.files)})"
    return f"I see {images}{files if seen.files else ''}. You said: {_short(text)!r}."


def _echo(text: str, seen: _Seen) -> str:
    if not text:
        return "I am Companion's offline model. You said nothing."
    if len(seen.users) == 1:
        return (
            f"I am Companion's offline model: I answer without any AI, always the same way. You said: {text}\n\n"
            "Say `help` to see what I can do; set OPENAI_API_KEY or OPENAI_BASE_URL to talk to a real model."
        )
    return f"Offline model, message {len(seen.users)} of this conversation. You said: {text}"


_QUESTIONS = (
    (_rule(r"what (?:did i|i) (?:say|said|ask|asked|tell you|told you) (?:at )?first"), "first"),
    (_rule(r"what (?:was|is) (?:my|the) first (?:message|question|thing)"), "first"),
    (_rule(r"what did i (?:just )?(?:say|ask|tell you)"), "before"),
    (_rule(r"what did you (?:just )?(?:say|answer)"), "answer"),
    (_rule(r"how many (?:messages|turns|times)"), "count"),
    (_rule(r"what are your instructions"), "instructions"),
    (_rule(r"(?:who|what) are you"), "self"),
)
_FACT = _rule(r"\bmy ([\w' -]{1,40}?) (?:is|are) ([^.!?\n]{1,200})")
_FACT_QUESTION = _rule(r"what(?:'s| is| are| was) my ([\w' -]{1,40}?)\s*\?")


def _recalled(text: str, seen: _Seen) -> str:
    asked = _FACT_QUESTION.search(text)
    if asked:
        return _fact(asked[1].lower(), seen)
    question = next((name for pattern, name in _QUESTIONS if pattern.search(text)), None)
    earlier = seen.users[:-1]
    match question:
        case "first":
            return f"The first thing you said: {seen.users[0]}" if earlier else "This is the first thing you said."
        case "before":
            return f"Before this you said: {earlier[-1]}" if earlier else "This is the first thing you said."
        case "answer":
            return f"I said: {seen.said}" if seen.said else "I have not said anything yet."
        case "count":
            return f"This is message {len(seen.users)} of this conversation."
        case "instructions":
            return f"My instructions: {seen.request.instructions or 'none'}"
        case "self":
            return "I am Companion's offline model: deterministic, without any AI. Say `help` to see what I can do."
        case _:
            return ""


def _fact(name: str, seen: _Seen) -> str:
    """The newest `my NAME is …` of the conversation."""
    for said in reversed(seen.facts):
        for match in _FACT.finditer(said):
            if match[1].lower() == name:
                return f"Your {name} is {match[2].strip()}."
    return f"You have not told me your {name}."


def _title(seen: _Seen) -> str:
    """The first words of what the conversation began with, without markup."""
    text = re.sub(r"[`*_#>\[\]{}\"]|https?://\S+", " ", (seen.users[0] if seen.users else "").partition("\n\n")[0])
    return " ".join(text.split()[:6]).strip(" .,;:!?") or "New conversation"


def _summary(seen: _Seen) -> str:
    """What the user said, a short line each; the newest that fit."""
    lines = [line.removeprefix("user: ") for line in seen.last.splitlines() if line.startswith(("user: ", "- "))]
    kept = [f"- {_short(line.removeprefix('- '))}" for line in lines][-_SUMMARY_LINES:]
    return "\n".join(["The user said:", *kept])


_SUMMARY_LINES = 40


def _reasons(request: ModelRequest) -> bool:
    effort = (request.reasoning or {}).get("effort")
    return request.model.endswith("-reasoning") or effort not in (None, "none", "minimal")


def _stopped(text: str, stop: list[str] | None) -> str:
    ends = [place for place in (text.find(word) for word in stop or () if word) if place >= 0]
    return text[: min(ends)] if ends else text


def _short(text: str) -> str:
    return " ".join(text.split())[:60]


_FILLER = (
    "the quick brown fox jumps over the lazy dog while seven wise owls watch from an old oak and count the stars "
    "that rise one by one above a quiet river until the first light of morning "
)


HELP = "I am Companion's offline model. At the start of a line I understand:\n\n" + "\n".join(
    f"- {line}"
    for line in (
        "`show markdown` shows a table, code, math, a list and a link",
        "`count to N` or `count to N slowly` counts",
        "`write N words` writes filler",
        "`slowly 10s: TEXT` answers TEXT, spread over ten seconds",
        "`think: TEXT` reasons with these words first",
        '`call TOOL {"json": "arguments"}` calls a tool that is offered; several lines are parallel calls',
        "`refuse` refuses",
        "`fail 400|429|500|503|timeout|filter|cut|hang` fails that way",
        "`what did I say first?`, `what is my name?` show that I know our conversation",
    )
)

MARKDOWN = r"""# Markdown

A **bold** word, an *emphasised* one, `code`, and a [link](https://example.com/).

| city | people |
|---|---:|
| Paris | 2,103,000 |
| Bern | 134,000 |

```python
def greet(name: str) -> str:
    return f"Hello, {name}!"
```

Inline math $e^{i\pi} + 1 = 0$, and on its own:

$$\int_0^1 x^2 \, dx = \frac{1}{3}$$

1. first
2. second
   - nested

> A quotation."""
