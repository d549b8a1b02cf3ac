"""The two atomic writes of a turn: accept, before anything is shown, and commit, before the end is shown."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from shared.conversations.records import HEADERS, ConversationRecord, TurnRecord, header_sort
from shared.conversations.repository import SPENT_SECONDS, find_turn
from shared.errors import Conflict, PayloadTooLarge, StorageUnavailable
from shared.ids import turn_of
from shared.storage.base import STATE, AlreadyExists, Create, Document, Missing, Replace, Stale, Store, Stored
from shared.storage.large import SPENT
from shared.storage.mutate import Change, mutate
from shared.turns.journal import TOO_LARGE, without_logprobs
from shared.turns.output import FIRST_SEQUENCE
from shared.usage import meter
from shared.usage.records import Spent, UsageDocument, UsageRecord

RETRY_AFTER_BUSY = 0.5
"""Seconds after which a client that met a busy conversation may try again."""

_UNKNOWN_OUTCOME_TRIES = 6

UNKEPT_SECONDS = 300.0
"""How long a reservation is held for a turn without a record: should its process die, nobody else settles it."""
RENEW_SECONDS = 120.0
"""How often it is held for so much longer while its process lives."""
RENEWALS = 80
"""Some hours, which no turn takes: one that its process has given up is not held for ever."""

MOVED = "moved"
"""In the partition of a guest who signed in: the record that says where everything went (adoption/service.py)."""


class HeadMoved(Exception):
    """The conversation went on since its history was read: the context must be built again."""


class TurnTaken(Exception):
    """The turn is no longer as this process knew it: another host took it, ended it or deleted it."""


class _Unreserved(Exception):
    """A turn without a record has no reservation here: it was settled, or its guest signed in."""


class _ConversationGone(Exception):
    """It was deleted while a turn ran in it; the turn ends all the same."""


class KnownUsage:
    """An owner's usage record of a month, as this process last read or wrote it.

    One for all turns of the owner that run here, and gone with the last: each one's own would hold the reservations of
    all of them.
    """

    __slots__ = ("__weakref__", "is_known", "stored")

    def __init__(self) -> None:
        self.stored: Stored | None = None
        self.is_known = False
        """True: `stored` is what was there, even where that was nothing."""

    def learn(self, stored: Stored | None) -> None:
        """What was read or written; the same once more is not parsed again."""
        if stored is not None and self.stored is not None and stored.etag == self.stored.etag:
            return
        if stored is not None and not isinstance(stored.body, UsageDocument):
            stored = Stored(UsageDocument(stored.body, UsageRecord.of(stored.body)), stored.etag)
        self.stored, self.is_known = stored, True

    def record(self, id_: str) -> UsageRecord:
        return UsageRecord.of(self.stored.body) if self.stored is not None else meter.fresh(id_)


_known: WeakValueDictionary[tuple[int, str, str], KnownUsage] = WeakValueDictionary()


def known_usage(store: Store, owner: str, id_: str) -> KnownUsage:
    """What this process knows of it."""
    key = (id(store), owner, id_)
    known = _known.get(key)
    if known is None:
        known = _known[key] = KnownUsage()
    return known


@dataclass(slots=True)
class Ledger:
    """What a turn needs to know of its records between accept and commit, so that neither has to read."""

    store: Store
    owner: str
    turn_etag: str = ""
    header: Stored | None = None
    usage: KnownUsage = field(default_factory=KnownUsage)
    _renewal: asyncio.TimerHandle | asyncio.Task[None] | None = field(default=None, init=False, repr=False)

    async def accept(
        self, turn: TurnRecord, *, header: ConversationRecord | None, reserve: Callable[[UsageRecord], UsageRecord]
    ) -> None:
        """Create the turn, hold its conversation, reserve its usage: all or nothing.

        Raises:
            AlreadyExists: this very turn was accepted before.
            HeadMoved: the conversation has a newer turn than the context was built on.
            Conflict: another turn holds the conversation.
            NotFound: the conversation is gone.
        """
        changes = [self._usage_change(turn.usage_id, reserve)]
        if header is not None:
            changes.append(self._header_change(header.id, _hold(header, turn)))
        fixed = [Create(turn.document())] if turn.is_kept else []
        if turn.send_key is not None and not turn.is_kept:  # of it only the key stays: a twin must not run under its id
            fixed = [Create({"id": turn.id, "kind": SPENT, "body_hash": turn.body_hash, "ttl": SPENT_SECONDS})]
        for attempt in range(_UNKNOWN_OUTCOME_TRIES):
            try:
                etags, stored = await mutate(self.store, STATE, self.owner, fixed, changes)
            except AlreadyExists:
                found = await find_turn(self.store, self.owner, turn.id)
                if attempt == 0 or found is None or found.record.nonce != turn.nonce:
                    raise
                self.turn_etag = found.etag  # an earlier try took effect without saying so
                self.usage.learn(await self.store.read(STATE, self.owner, turn.usage_id))
                self.header = None
                return
            except StorageUnavailable:
                await self._pause(attempt, changes)
            else:
                self.turn_etag = etags[0] if etags else ""
                self.usage.learn(stored[0])
                self.header = stored[1] if header is not None else None
                if not turn.is_kept:
                    self._renew_later(turn.id, turn.usage_id, RENEWALS)
                return

    async def update(self, turn: TurnRecord) -> None:
        """Replace the record of a turn that is still ours.

        Raises:
            TurnTaken: it is not.
        """
        for attempt in range(_UNKNOWN_OUTCOME_TRIES):
            try:
                etags = await self.store.batch(STATE, self.owner, [Replace(turn.document(), self.turn_etag)])
            except (Stale, Missing) as failure:
                found = await find_turn(self.store, self.owner, turn.id)
                if found is None and await self._follow(turn):
                    continue
                if found is None or found.record != turn:
                    raise TurnTaken(turn.id) from failure
                self.turn_etag = found.etag
                return
            except StorageUnavailable:
                await self._pause(attempt, [])
            else:
                self.turn_etag = etags[0]
                return

    async def commit(
        self, turn: TurnRecord, *, spent: Spent, model: str, now: float, leave: Callable[[UsageRecord], UsageRecord]
    ) -> ConversationRecord | None:
        """Replace the turn by its final form, settle its usage, let go of its conversation: all or nothing.

        Args:
            leave: what else the end of the turn changes in the usage record (its place among background turns).

        Returns:
            The conversation's header as it is now, if there is one that was not deleted.

        Raises:
            TurnTaken: somebody else ended or took over the turn, and nothing was written; or it ended here, but as
                `failed`, because its record would have been too large.
        """
        with suppress(PayloadTooLarge):
            return await self._commit(turn, spent=spent, model=model, now=now, leave=leave)
        for short in _shorter(turn):
            with suppress(PayloadTooLarge):
                await self._commit(short, spent=spent, model=model, now=now, leave=leave)
                raise TurnTaken(turn.id)
        raise PayloadTooLarge(TOO_LARGE)

    async def _commit(
        self, turn: TurnRecord, *, spent: Spent, model: str, now: float, leave: Callable[[UsageRecord], UsageRecord]
    ) -> ConversationRecord | None:
        """As `commit`, of what may be too large."""

        def settle(usage: UsageRecord) -> UsageRecord:
            if not turn.is_kept and turn.id not in usage.reserved:
                raise _Unreserved
            usage = meter.settle(usage, turn.id, model=model, spent=spent, now=now)
            if turn.status == "failed" or not turn.is_kept:
                usage = meter.forget_send(usage, turn.id)  # nothing to join: a client that retries wants another try
            return leave(usage)

        def parts() -> tuple[list[Replace], list[Change]]:
            changes = [self._usage_change(turn.usage_id, settle)]
            if turn.conversation is not None:
                changes.append(self._header_change(turn.conversation, _release(turn, now)))
            return [Replace(turn.document(), self.turn_etag)] if turn.is_kept else [], changes

        self.let_go()
        fixed, changes = parts()
        for attempt in range(_UNKNOWN_OUTCOME_TRIES):
            try:
                _, stored = await mutate(self.store, STATE, self.owner, fixed, changes)
                self.usage.learn(stored[0])
                header = ConversationRecord.model_validate(stored[1].body) if len(stored) > 1 else None
                return header if header is not None and header.kind == "conversation" else None
            except Stale as stale:
                found = await find_turn(self.store, self.owner, turn.id)
                if found is None or found.record != turn:
                    raise TurnTaken(turn.id) from stale
                return None  # an earlier try took effect without saying so
            except Missing as gone:
                if not await self._follow(turn):
                    raise TurnTaken(turn.id) from gone
                fixed, changes = parts()
            except _Unreserved:
                # What another turn of the owner has read may be older than this one's reservation.
                self.usage.learn(await self.store.read(STATE, self.owner, turn.usage_id))
                if turn.id not in self.usage.record(turn.usage_id).reserved:
                    account = await self._account()
                    if account is None:
                        return None  # an earlier try settled it; with no record, nothing else would show that
                    self._move_to(account)
                fixed, changes = parts()
            except _ConversationGone:
                del changes[1:]
            except StorageUnavailable:
                await self._pause(attempt, changes)
        raise AssertionError("the last try returns or raises")

    def let_go(self) -> None:
        """Hold the reservation no longer than it is held now: the turn ends, or is given up."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    def _renew_later(self, turn: str, usage_id: str, times: int) -> None:
        """By a timer, not a task that sleeps: most turns are over before it is time."""

        def renew() -> None:
            self._renewal = asyncio.create_task(self._renew(turn, usage_id, times))

        self._renewal = asyncio.get_running_loop().call_later(RENEW_SECONDS, renew)

    async def _renew(self, turn: str, usage_id: str, times: int) -> None:
        """Hold the reservation of a turn without a record for longer, now and so many times in all."""

        def longer(usage: UsageRecord) -> UsageRecord:
            if turn not in usage.reserved:
                raise _Unreserved
            return meter.renew(usage, turn, seconds=RENEW_SECONDS)

        change = self._usage_change(usage_id, longer)
        change.is_known = False  # minutes have passed
        with suppress(StorageUnavailable, _Unreserved):  # there is time for another try
            _, stored = await mutate(self.store, STATE, self.owner, [], [change])
            self.usage.learn(stored[0])
        if times > 1:
            self._renew_later(turn, usage_id, times - 1)

    async def _follow(self, turn: TurnRecord) -> bool:
        """The turn is not where it was: go where its guest's data went when they signed in, if that is why."""
        account = await self._account()
        found = await find_turn(self.store, account, turn.id) if account else None
        if account is None or found is None or found.record.is_final:
            return False
        if (found.record.host, found.record.attempt) != (turn.host, turn.attempt):
            return False
        self._move_to(account)
        self.turn_etag = found.etag
        return True

    async def _account(self) -> str | None:
        """Whose the owner's data is now, if the owner is a guest who signed in."""
        mark = await self.store.read(STATE, self.owner, MOVED)
        return mark.body.get("account") if mark is not None else None

    def _move_to(self, account: str) -> None:
        self.owner = account
        self.header, self.usage = None, KnownUsage()

    @staticmethod
    async def _pause(attempt: int, changes: list[Change]) -> None:
        """Before a write of unknown outcome is tried again; on the last try, raise what is being handled."""
        if attempt == _UNKNOWN_OUTCOME_TRIES - 1:
            raise  # noqa: PLE0704 - the StorageUnavailable being handled
        await asyncio.sleep(0.05 * 2**attempt)
        for change in changes:
            change.is_known = False

    def _usage_change(self, id_: str, change: Callable[[UsageRecord], UsageRecord]) -> Change:
        def apply(body: Document | None) -> Document:
            record = UsageRecord.of(body) if body else meter.fresh(id_)
            return change(record).document()

        return Change(id_, apply, known=self.usage.stored, is_known=self.usage.is_known)

    def _header_change(self, id_: str, apply: Callable[[Document | None], Document]) -> Change:
        return Change(id_, apply, known=self.header, is_known=self.header is not None)


def _shorter(turn: TurnRecord) -> Iterator[TurnRecord]:
    """A turn that has too much to be stored, ended with less and less of it."""
    yield _failed(turn, output=without_logprobs(turn.output))
    yield _failed(turn, output=[], trace={})
    yield _failed(turn, output=[], trace={}, input=[])  # its input alone filled the batch that accepted it


def _failed(turn: TurnRecord, **changes: object) -> TurnRecord:
    error = {"code": "server_error", "message": TOO_LARGE}
    changes |= {"status": "failed", "error": error, "incomplete_reason": None}
    if not turn.is_journalled and not changes["output"]:
        changes["next_sequence"] = FIRST_SEQUENCE  # its stream is made from its items
    return turn.model_copy(update=changes)


def _hold(expected: ConversationRecord, turn: TurnRecord) -> Callable[[Document | None], Document]:
    """The header with this turn in its hands; what the context was built on must still be so."""

    def apply(body: Document | None) -> Document:
        if body is None or body.get("kind") != "conversation":
            raise HeadMoved
        header = ConversationRecord.model_validate(body)
        if header.running is not None and header.running != turn.id:
            raise busy(header)
        if header.head != expected.head:
            raise HeadMoved
        return touched(header, turn.created_at, running=turn.id).document()

    return apply


def _release(turn: TurnRecord, now: float) -> Callable[[Document | None], Document]:
    """The header after the turn: it is the new head unless it failed."""

    def apply(body: Document | None) -> Document:
        # One that was deleted is let go of all the same: it may be restored at this very moment, and would be held.
        if body is None or body.get("kind") not in HEADERS:
            raise _ConversationGone
        header = ConversationRecord.model_validate(body)
        if header.running != turn.id:
            return header.document()
        if turn.status == "failed":
            return touched(header, now, running=None).document()
        return touched(header, now, running=None, head=turn.id, is_rewound=False).document()

    return apply


def touched(header: ConversationRecord, now: float, **changes: object) -> ConversationRecord:
    """The header, changed just now: first in the list."""
    updated = max(now, header.updated_at)
    sort = header_sort(updated, turn_of(header.id) or header.id)
    return header.model_copy(update={"updated_at": updated, "sort": sort, **changes})


def busy(header: ConversationRecord) -> Conflict:
    return Conflict(
        f"Another response is being made in conversation {header.id!r}; try again when it is done.",
        param="conversation",
        code="conversation_locked",
        retry_after=RETRY_AFTER_BUSY,
    )
