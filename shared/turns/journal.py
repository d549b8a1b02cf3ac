"""The journal of a turn: what was shown, appended before it is shown. It is also the turn's lease and its fence.

Batches are created under consecutive ids in a partition of the response's own, each with the time until which its
writer claims the turn. So one mechanism carries four promises:

- replay: the batches in order are the stream, byte for byte;
- lease: the newest batch says until when the writer lives; in silence it appends empty ones;
- fence: whoever takes the turn over (or cancels it) creates the next id first, and the old writer's next append, which
  must create that same id, fails;
- order: two writers cannot both append at one place.

`response.created`, `response.in_progress` and the terminal event derive from the turn's record and are never written.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from shared.clock import Clock
from shared.errors import PayloadTooLarge, StorageUnavailable
from shared.storage.base import EVENTS, AlreadyExists, Create, Document, Store, Upsert
from shared.storage.rules import MAX_BYTES, MAX_OPERATIONS
from shared.turns.events import Batch

type Json = dict[str, Any]


FIRST_PAUSE = 0.05
"""Seconds before an append that the store did not answer is tried again; then twice as long, and so on."""
_LOOKS = 10

TOO_LARGE = (
    f"The response is larger than can be stored at once ({MAX_BYTES:,} bytes); ask for less at a time, or for fewer"
    " `top_logprobs`."
)

_LARGE = 64_000
"""Characters of a batch from which on what it says several times is looked for."""
_LONG = 4_000
"""Characters of a piece that is worth it."""
_MOST = 20
"""Pieces of a batch, the longest: each is looked for in all of it."""
_MARK = "\x01"
"""Around the number of such a piece: a character that JSON has only escaped."""


class Fenced(Exception):
    """Somebody else has appended where this writer was about to: the turn is no longer (only) its own."""


class TooLarge(Fenced):
    """What was to be appended cannot be stored, and so the turn has ended: that is what was appended instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One batch as stored."""

    number: int
    batch: Batch
    attempt: int
    until: float
    """Epoch seconds up to which the writer claims the turn."""
    outcome: Document | None
    """Not None: the output is whole and this is how the turn ends; only the commit is missing."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What a journal holds, oldest first."""

    entries: list[Entry] = field(default_factory=list[Entry])

    @property
    def number(self) -> int:
        """Of the newest batch; 0 when there is none."""
        return self.entries[-1].number if self.entries else 0

    @property
    def until(self) -> float:
        return self.entries[-1].until if self.entries else 0.0

    @property
    def outcome(self) -> Document | None:
        return next((entry.outcome for entry in self.entries if entry.outcome is not None), None)

    @property
    def events(self) -> Iterator[Json]:
        return (event for entry in self.entries for event in entry.batch.events)

    @property
    def next_sequence(self) -> int | None:
        """The number after the last event written; None when none was."""
        numbers = [entry.batch.last for entry in self.entries if not entry.batch.is_empty]
        return numbers[-1] + 1 if numbers else None


class Journal:
    """One writer's place at the end of one turn's journal."""

    def __init__(
        self,
        store: Store,
        response_id: str,
        clock: Clock,
        *,
        writer: str,
        lease: float,
        attempt: int = 1,
        number: int = 0,
    ) -> None:
        self._store = store
        self._id = response_id
        self._clock = clock
        self._lease = lease
        self._writer = writer
        self._attempt = attempt
        self.number = number
        """Of the newest batch this writer knows."""

    async def append(self, batch: Batch, *, outcome: Document | None = None) -> None:
        """Make a batch durable and renew the lease.

        Args:
            outcome: with the last batch: how the turn ends, so that whoever finds it uncommitted can commit it.

        Raises:
            Fenced: another writer was here first.
            TooLarge: the batch is too large to be stored, and so the turn has ended: whoever looks for it next commits
                that.
            StorageUnavailable: the store was in trouble for longer than the lease; whether it was written is unknown.
        """
        try:
            await self._append(batch, outcome)
        except PayloadTooLarge:
            await self._end(batch, outcome)
            raise TooLarge(self._id) from None

    async def _end(self, batch: Batch, outcome: Document | None) -> None:
        """End the turn `failed`, with what can be kept of a batch that is too large; the lease is given up."""
        error = {"code": "server_error", "message": TOO_LARGE}
        ending = {**(outcome or {}), "status": "failed", "error": error, "incomplete_reason": None}
        ending.pop("params", None)  # they may be what is large
        shorter = [without_logprobs(event) for event in batch.events]
        lease, self._lease = self._lease, 0.0
        try:
            await self._append(Batch.of(shorter) if shorter else EMPTY, ending)
        except PayloadTooLarge:
            await self._append(EMPTY, ending)
        finally:
            self._lease = lease

    async def _append(self, batch: Batch, outcome: Document | None) -> None:
        """Until it is written or the lease has run out."""
        deadline, pause = self._clock.now() + self._lease, FIRST_PAUSE
        while True:
            try:
                await self._create(batch, outcome)
            except StorageUnavailable:
                if self._clock.now() + pause > deadline:
                    raise
                await self._clock.sleep(pause)
                pause *= 2
            else:
                self.number += 1
                return

    async def _create(self, batch: Batch, outcome: Document | None) -> None:
        """One try; an earlier one that took effect without saying so is recognised."""
        document: Document = {
            "id": batch_id(self.number + 1),
            "first": batch.first,
            "last": batch.last,
            "writer": self._writer,
            "attempt": self._attempt,
            "until": self._clock.now() + self._lease,
            **_said_once(batch.data.decode()),
        }
        if outcome is not None:
            document["outcome"] = outcome
        try:
            await self._store.batch(EVENTS, self._id, [Create(document)])
        except AlreadyExists:
            if not await self._is_own(document):
                raise Fenced(self._id) from None

    async def sign_of_life(self) -> None:
        """Renew the lease when there is nothing to say."""
        await self.append(EMPTY)

    async def release(self) -> None:
        """Give the lease up at once: whoever follows may take the turn over."""
        lease, self._lease = self._lease, 0.0
        try:
            await self.append(EMPTY)
        finally:
            self._lease = lease

    async def _is_own(self, document: Document) -> bool:
        """Whether what is stored is this very batch: an earlier try that succeeded without saying so."""
        for _ in range(_LOOKS):
            stored = await self._store.read(EVENTS, self._id, document["id"])
            if stored is not None:
                return all(stored.body[name] == document[name] for name in ("writer", "first", "last"))
            await self._clock.sleep(FIRST_PAUSE)  # it is there, but this replica does not show it yet
        return False


EMPTY = Batch(0, -1, data=b"")


def batch_id(number: int) -> str:
    return f"b{number:06d}"


async def read_entry(store: Store, response_id: str, number: int) -> Entry | None:
    """One batch by its number: how another host follows, with point reads of the next."""
    stored = await store.read(EVENTS, response_id, batch_id(number))
    return _entry(stored.body) if stored else None


async def read_tail(store: Store, response_id: str) -> Tail:
    """The whole journal."""
    return Tail([_entry(stored.body) for stored in await store.scan(EVENTS, response_id)])


async def seal(journal: Journal, read: Callable[[], Awaitable[Tail]]) -> Tail:
    """Shut a journal to every other writer: create the next id, whatever it takes.

    Args:
        journal: a new writer's place, at the newest batch known; a writer still at work may be ahead of it.
        read: the whole journal.

    Returns:
        Everything written, the seal included; `journal` stands behind it.
    """
    while True:
        try:
            await journal.sign_of_life()
        except Fenced:
            # One further, not to the end of what is read anew: a writer that is quicker than that reading would be
            # ahead for ever.
            journal.number += 1
            continue
        return await read()


async def scrub(store: Store, response_id: str) -> None:
    """Empty the journal of a turn that is deleted. Its ids stay: they fence a writer that does not know of its end."""
    while True:
        # What this process has written is in what it reads next, and so is everything before that.
        left = [body["id"] for body, _ in await store.scan(EVENTS, response_id) if body["sse"] or "outcome" in body]
        if not left:
            return
        for start in range(0, len(left), MAX_OPERATIONS):
            stubs = [Upsert(_stub(id_)) for id_ in left[start : start + MAX_OPERATIONS]]
            await store.batch(EVENTS, response_id, stubs)


def _stub(id_: str) -> Document:
    return {"id": id_, "first": 0, "last": -1, "writer": "", "attempt": 0, "until": 0.0, "sse": ""}


def _entry(body: Document) -> Entry:
    return Entry(
        number=int(body["id"][1:]),
        batch=Batch(body["first"], body["last"], data=_said_again(body).encode()),
        attempt=body["attempt"],
        until=body["until"],
        outcome=body.get("outcome"),
    )


def without_logprobs(value: Any) -> Any:
    """A copy without log probabilities: most of what an answer weighs that was asked for them."""
    if isinstance(value, dict):
        kept = {name: without_logprobs(inner) for name, inner in cast(Json, value).items() if name != "logprobs"}
        return kept | {"logprobs": list[Json]()} if "logprobs" in value else kept
    return [without_logprobs(inner) for inner in cast(list[Any], value)] if isinstance(value, list) else value


def _said_once(text: str) -> Document:
    """The fields for a batch's text; what each event at the end of an item repeats is in them once."""
    found: list[str] = []
    delta = ""
    for block in text.split("\n\n") if len(text) >= _LARGE else ():
        kind, _, data = block.partition("\ndata: ")
        if kind.endswith(".delta"):
            delta = _spelled(orjson.loads(data)["delta"])
        elif kind in _ENDS:
            event: Json = orjson.loads(data)
            for piece in [_spelled(event[name]) for name in _REPEATED if name in event]:
                found += [piece.removesuffix(delta), delta]  # the newest words are the end of it
    long = dict.fromkeys(piece for piece in found if len(piece) >= _LONG)
    said = sorted(long, key=len, reverse=True)[:_MOST]
    for number, piece in enumerate(said):
        text = text.replace(piece, f"{_MARK}{number}{_MARK}")
    return {"sse": text, "said": said} if said else {"sse": text}


def _spelled(value: Any) -> str:
    """What is between the quotation marks, or the brackets, of its JSON."""
    return orjson.dumps(value).decode()[1:-1]


_ENDS = frozenset(
    f"event: response.{what}.done"
    for what in (
        "output_text",
        "refusal",
        "reasoning_text",
        "reasoning_summary_text",
        "function_call_arguments",
        "custom_tool_call_input",
        "mcp_call_arguments",
    )
)
"""Events that say the whole of what was said in deltas; the ends of the part and of the item say it again."""
_REPEATED = ("text", "logprobs", "refusal", "arguments", "input")


def _said_again(body: Document) -> str:
    """A batch's text, byte for byte."""
    if "said" not in body:
        return body["sse"]
    parts: list[str] = body["sse"].split(_MARK)
    return "".join([body["said"][int(part)] if place % 2 else part for place, part in enumerate(parts)])
