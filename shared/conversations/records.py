"""What is stored of conversations and turns."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

type Json = dict[str, Any]

type TurnStatus = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]

FINAL: frozenset[str] = frozenset({"completed", "failed", "incomplete", "cancelled"})
"""Statuses a turn never leaves."""

CHATS = "chat"
"""The group of all stored chat completions of an owner; they are in order of time, not of depth."""


DELETED = "conversation.deleted"
"""The kind of a conversation's header from its deletion to its purge, or its restoring."""
HEADERS: frozenset[str] = frozenset({"conversation", DELETED})
"""The kinds of a conversation's header."""

_NAMES: frozenset[str] = frozenset()


# Of the ways to say so what costs least: a plain default is copied deeply, and `list[str]()` takes ten times as long. A
# turn's record has a dozen.
def _list() -> Any:
    return []


def _dict() -> Any:
    return {}


class Record(BaseModel):
    """A stored document: frozen, changed by copy. What the store itself reads of it: storage/base.py."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str

    def model_post_init(self, context: Any, /) -> None:
        """Nobody asks which fields were given: names of them all would weigh as much as the record."""
        object.__setattr__(self, "__pydantic_fields_set__", _NAMES)

    def document(self) -> Json:
        """What the store writes: no field that is None."""
        return self.model_dump(exclude_none=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, less what frozen records without private fields do not need: a turn makes a dozen copies."""
        if deep:
            return super().model_copy(update=update, deep=True)
        copy = object.__new__(type(self))
        object.__setattr__(copy, "__dict__", {**self.__dict__, **(update or {})})
        object.__setattr__(copy, "__pydantic_fields_set__", _NAMES)
        object.__setattr__(copy, "__pydantic_extra__", None)
        object.__setattr__(copy, "__pydantic_private__", None)
        return copy


class ConversationRecord(Record):
    """A conversation's header. Its turns are records of their own, so no append ever rewrites history."""

    kind: Literal["conversation", "conversation.deleted"] = "conversation"
    """Deleted ones are of another kind, so that nothing finds them but what restores or purges them."""
    sort: str
    """Time of the last change, newest highest: `list` order."""
    created_at: float
    updated_at: float
    metadata: dict[str, str] = Field(default_factory=_dict)
    body_hash: str | None = None
    """Of the request that made it, where an idempotency key could bring it again."""
    title: str | None = None
    """None until one was made."""
    head: str | None = None
    """The last turn of the branch that is shown and continued."""
    is_rewound: bool = False
    """The head was moved to a turn that may have been continued before: what comes next begins a branch of its own."""
    running: str | None = None
    """The turn that holds the conversation; a second one is answered 409."""
    archived: bool = False
    pinned: bool = False
    project: str | None = None
    deleted_at: float | None = None
    due: float | None = None
    """When a deleted one is purged."""
    purged_at: float | None = None
    """When its turns began to be removed: it can no longer be restored, whatever breaks off the purge."""
    ttl: int | None = None
    """Set: a temporary conversation, in no list, search, change feed or log; its turns have the same."""

    @property
    def is_temporary(self) -> bool:
        return self.ttl is not None


class Tombstone(Record):
    """What is left of a record that was deleted: so that whoever synchronises hears of it."""

    kind: Literal["tombstone"] = "tombstone"
    of: str
    """The kind of what is gone."""
    deleted_at: float
    is_told: bool = True
    """False: of what is temporary, of which nobody has heard."""
    ttl: int = 30 * 86_400


def tombstone(id_: str, of: str, now: float, *, is_told: bool = True) -> Json:
    """The document to write in the same batch as a delete."""
    return Tombstone(id=f"gone_{id_}", of=of, deleted_at=now, is_told=is_told).document()


class Summary(BaseModel):
    """What a conversation was about, up to and including a turn; stored on the turn before whose answer it was made."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    text: str
    upto: str
    """The newest turn it covers."""


class TurnRecord(Record):
    """One request answered. Created `in_progress` (or `queued`), replaced once with its final form.

    While it runs, its life is in the journal (turns/journal.py): the lease is renewed there, not here.
    """

    kind: Literal["turn"] = "turn"
    group: str
    """The thread: the conversation's id, or the first turn's id of a chain without one."""
    sort: str
    """Depth in the thread, then the token: siblings share a depth."""
    depth: int
    parent: str | None = None
    """The turn continued, whose items come before these."""
    conversation: str | None = None
    """The conversation this turn is part of; a fork by `previous_response_id` is part of none."""
    branch: str = ""
    """Which branch of the conversation; a new one starts where a turn is not the head's child."""
    lineage: list[tuple[str, int]] = Field(default_factory=_list)
    """The branches this one grew from, and the depth up to which each counts."""
    surface: Literal["responses", "chat", "items"] = "responses"
    """Where it came from; `items` are added by hand and answered by nobody."""
    is_stored: bool = True
    """False: not to be retrieved as a response (`store: false`)."""
    status: TurnStatus
    created_at: float
    completed_at: float | None = None
    params: Json = Field(default_factory=_dict)
    """The effective settings, as the response object echoes them."""
    call: Json = Field(default_factory=_dict)
    """Which of the model's settings the caller really sent, and what only the older surface knows (`stop`, `seed`)."""
    include: list[str] = Field(default_factory=_list)
    input: list[Json] = Field(default_factory=_list)
    """Items in stored form: ids, type and status present."""
    output: list[Json] = Field(default_factory=_list)
    removed: list[str] = Field(default_factory=_list)
    """Items deleted from the conversation; the response keeps them."""
    summary: Summary | None = None
    """Made before this turn's model call, because what came before had outgrown the window."""
    torn: list[str] = Field(default_factory=_list)
    """Items that a dead process left unfinished; shown, but not part of what the model sees."""
    usage: Json | None = None
    error: Json | None = None
    incomplete_reason: str | None = None
    system_fingerprint: str | None = None
    """Of the upstream that answered; the older surface shows it."""
    prompt_version: str | None = None
    """Name, version and hash of the prompt it was asked with (`companion@1:3c61e5aa2090`)."""
    flags: dict[str, str] | None = None
    """Flag to variant, for those that had a say in it."""
    # who runs it
    due: float | None = None
    """When the first lease ends; the recovery timer looks at turns whose time has come. None once final."""
    attempt: int = 1
    """Grows with every take-over; a turn that kills three hosts ends failed."""
    host: str = ""
    notes: list[str] = Field(default_factory=_list)
    """What happened to it that a user may want to know: take-overs, torn items."""
    next_sequence: int | None = None
    """The number of the terminal event; known once final."""
    is_journalled: bool = True
    """False: nobody read it while it ran, so nothing was journalled, and its stream is made from its items."""
    # exactly-once send
    send_key: str | None = None
    body_hash: str | None = None
    nonce: str = ""
    """Of one try to accept it: so that two sends with one key on one host can tell whose try was accepted."""
    # what it cost
    usage_id: str = ""
    """The usage record its reservation is in."""
    deployment: str = ""
    cost: float = 0.0
    first_token_ms: float | None = None
    charge: float | None = None
    """Request units spent, up to the commit."""
    trace: Json = Field(default_factory=_dict)
    """What it did: model calls, tools, timings, parts of the context; see turns/trace.py."""
    ttl: int | None = None

    @property
    def is_kept(self) -> bool:
        """Whether there is a record at all: of what is stored, or part of a conversation."""
        return self.is_stored or self.conversation is not None

    @property
    def is_response(self) -> bool:
        """Whether the Responses API knows it."""
        return self.is_stored and self.surface == "responses"

    @property
    def token(self) -> str:
        return self.id.removeprefix("resp_")

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


def sort_key(depth: int, token: str) -> str:
    return f"{depth:08d}.{token}"


def header_sort(updated_at: float, token: str) -> str:
    """Milliseconds since the epoch, so that text order is time order."""
    return f"{int(updated_at * 1000):015d}.{token}"
