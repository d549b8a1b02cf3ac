"""A turn under way: model and tools, journal and show, commit; the part that a take-over shares with a first run."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.eager import started
from shared.errors import AssistantError, StorageUnavailable
from shared.jobs.base import TURNS
from shared.models.base import ModelEvent, ModelRequest, Usage
from shared.models.deployment import steady_now
from shared.models.gate import Ticket
from shared.telemetry import Tally
from shared.telemetry.signals import TurnSignal, hashed, signals
from shared.tools.registry import ServerTool
from shared.turns.context import estimate_tokens
from shared.turns.journal import Fenced, Journal, TooLarge
from shared.turns.ledger import Ledger, TurnTaken
from shared.turns.live import LiveTurn
from shared.turns.loop import LoopResult, pending_calls, run_loop
from shared.turns.mend import mended
from shared.turns.output import FIRST_SEQUENCE, Output
from shared.turns.replay import ending, middle
from shared.turns.title import title_quietly
from shared.turns.trace import Trace
from shared.turns.writer import Writer
from shared.usage import meter
from shared.usage.prices import cost_of
from shared.usage.records import Spent, UsageRecord
from shared.wire.responses import render_usage

type Json = dict[str, Any]

log = logging.getLogger("companion.turns")


class Primed:
    """A model call that has begun before anybody asks for its first event."""

    def __init__(self, stream: AsyncIterator[ModelEvent]) -> None:
        self._stream: AsyncIterator[ModelEvent] = stream
        self._first: asyncio.Task[ModelEvent | None] | None = started(self._fetch())

    async def _fetch(self) -> ModelEvent | None:
        return await anext(self._stream, None)

    async def events(self) -> AsyncGenerator[ModelEvent]:
        try:
            assert self._first is not None, "events are asked for once"
            first = await self._first
            self._first = None
            if first is not None:
                yield first
                async for event in self._stream:
                    yield event
        finally:
            await self.discard()

    async def discard(self) -> None:
        """End the call, wherever it is."""
        first, self._first = self._first, None
        if first is not None and not first.done():
            first.cancel()
            await asyncio.wait([first])
        elif first is not None and not first.cancelled():
            first.exception()  # seen: nobody else will look
        aclose: Callable[[], Awaitable[None]] | None = getattr(self._stream, "aclose", None)
        if aclose is not None:
            await aclose()


@dataclass(slots=True, kw_only=True)
class Run:
    """A turn under way in this process."""

    app: App
    owner: str
    live: LiveTurn
    output: Output
    journal: Journal | None
    """None: the turn keeps no record (`store: false` outside a conversation)."""
    ledger: Ledger
    tally: Tally
    writer: Writer = field(init=False)
    result: LoopResult = field(default_factory=LoopResult)
    first_token_ms: float | None = None
    trace: Trace = field(default_factory=Trace)
    mends: int = 0
    """Calls that broke off and were made again."""
    ticket: Ticket | None = None
    """Its place among the turns of this host; given back at its end."""

    def __post_init__(self) -> None:
        settings = self.app.settings.turn
        self.writer = Writer(self.output, self.live, self.journal, interval=settings.interval, lease=settings.lease)

    @classmethod
    def fresh(
        cls, app: App, owner: str, turn: TurnRecord, ledger: Ledger, tally: Tally, *, trace: Trace | None = None
    ) -> "Run":
        """Of a turn just accepted."""
        journal = new_journal(app, turn) if turn.is_kept else None
        return cls(
            app=app,
            owner=owner,
            live=LiveTurn(turn),
            output=Output(turn.token, include=turn.include),
            journal=journal,
            ledger=ledger,
            tally=tally,
            trace=trace or Trace(),
        )

    def begin(self, answer: Callable[["Run"], Awaitable[None]]) -> None:
        """Run the turn in a task of its own; `answer` feeds the output until the answer is whole."""
        self.ticket = self.ticket or self.app.models.gate.take(self.owner)
        self.app.live.add(self.owner, self.live)
        # Begun at once: of a task that is cancelled before its first step nothing runs, not even what ends the turn.
        task = self.live.task = started(self._to_the_end(answer), name=self.live.record.id)
        self.app.live.keep(task)

    def begin_ended(self, outcome: Json) -> None:
        """Commit a turn whose output is whole, in a task of its own."""

        async def end() -> None:
            try:
                await self._flush_ended(outcome)
                await self.commit(outcome)
            except (Fenced, TurnTaken):
                log.info("turn.taken", extra={"response_id": self.live.record.id})
            except StorageUnavailable:
                log.warning("turn.left", extra={"response_id": self.live.record.id}, exc_info=True)
            finally:
                self.app.live.remove(self.owner, self.live)
                if not self.live.is_over:
                    self.live.end()

        self.app.live.add(self.owner, self.live)
        self.live.is_ending = True
        self.live.task = started(end(), name=self.live.record.id)
        self.app.live.keep(self.live.task)

    async def _flush_ended(self, outcome: Json) -> None:
        """Show how the items end. That says all of them again: where it cannot be stored, the stream does without."""
        sequence = self.output.sequence
        try:
            await self.writer.flush(outcome=outcome)
        except TooLarge:
            self.output.sequence = sequence

    async def remember(self, **changes: Any) -> None:
        """Make a change of the turn's record durable while it runs.

        Raises:
            TurnTaken: it is no longer ours.
        """
        self.live.record = self.live.record.model_copy(update=changes)
        if self.live.record.is_kept:
            await self.ledger.update(self.live.record)

    def note(self, text: str) -> None:
        """Something that the owner may want to know; stored with the turn's end."""
        self.live.record = self.live.record.model_copy(update={"notes": [*self.live.record.notes, text]})

    async def tear(self, ids: list[str], note: str) -> None:
        """Close what is open as `incomplete`; no model sees these items.

        That is durable before it is shown: should this host stop too, the next must not take torn text for an answer.
        """
        turn = self.live.record
        torn = list(dict.fromkeys([*turn.torn, *ids]))
        await self.remember(torn=torn, notes=[*turn.notes, note])
        self.output.close("incomplete")
        self.writer.touch()

    def close_items(self) -> None:
        """End what is open as `incomplete`."""
        self.output.close("incomplete")
        for index in pending_calls(self.output):
            self.output.finish_item(index, status="incomplete")

    async def loop(self, request: ModelRequest, primed: "Primed | None" = None) -> None:
        """Model and tools, from this request on; the first call may have begun already."""
        waiting = [primed] if primed is not None else []
        if primed is None:
            timeout = self.app.settings.model.timeout
            request = self.trace.on_behalf(request, self.owner, self.live.record, deadline=timeout)

        def stream(request: ModelRequest) -> AsyncIterator[ModelEvent]:
            events = waiting.pop().events() if waiting else self.app.models.stream(request)
            return self.app.guardrails.guard(events, self._found) if self.app.guardrails is not None else events

        try:
            await run_loop(
                stream,
                request,
                self.output,
                self.writer,
                tools=tools_of(self.app, self.live.record),
                max_tool_calls=self.live.record.params["max_tool_calls"],
                torn=lambda: self.live.record.torn,
                mend=lambda request, error, start: mended(self, request, error, start),
                trace=self.trace,
                result=self.result,
                on_first=self._on_first,
            )
            self.app.models.budget.helped(self.mends)
        finally:
            for unused in waiting:
                await unused.discard()

    async def _to_the_end(self, answer: Callable[["Run"], Awaitable[None]]) -> None:
        """Whatever happens, the turn ends in storage, or is left there for another host to take over."""
        try:
            outcome = await self._outcome(answer)
            is_shown = await self.writer.flush(outcome=outcome)
            await self.commit(outcome, is_shown=is_shown)
        except (Fenced, TurnTaken):
            log.info("turn.taken", extra={"response_id": self.live.record.id})
        except StorageUnavailable:
            log.warning("turn.left", extra={"response_id": self.live.record.id}, exc_info=True)
        finally:
            self.app.live.remove(self.owner, self.live)
            self.ledger.let_go()
            if self.ticket is not None:
                self.ticket.leave()
            if not self.live.is_over:
                self.live.end()

    async def _outcome(self, answer: Callable[["Run"], Awaitable[None]]) -> Json:
        """Run `answer` with the writer beside it.

        Returns:
            How the turn ended: the changes of its record that its output does not tell.
        """
        status, error = "completed", None
        try:
            self.writer.start(asyncio.current_task())
            await answer(self)
            status = "incomplete" if self.result.incomplete else "completed"
        except (StorageUnavailable, Fenced, TurnTaken):
            raise  # nothing can be written now, or not by us: the turn is left to be taken over
        except AssistantError as raised:
            status, error = "failed", raised
        except Exception:  # the worker of a turn: whatever a model or a tool does, the turn ends
            log.exception("turn.broke", extra={"response_id": self.live.record.id})
            message = f"The server had an error. Quote {self.live.record.id} when you report it."
            status, error = "failed", AssistantError(message)
        except asyncio.CancelledError:
            if not self.live.is_cancelling:
                await self.writer.stop()  # raises why the writer gave up; without a reason the process is going down
                await self._hand_over()
                raise
            status = "cancelled"
        finally:
            self.live.is_ending = True
        self.live.error = error
        await self.writer.stop()
        if status == "completed":
            self.output.close()
        self.close_items()
        return self._changes(status, error)

    async def _hand_over(self) -> None:
        """The process is going down: what is known is shown, and the lease given up, so that another host goes on."""
        await self.writer.flush()
        if self.journal is not None:
            await self.journal.release()

    def _found(self, finding: str) -> None:
        """A guardrail found something: it is said in the trace."""
        self.trace.extra["guardrails"] = [*self.trace.extra.get("guardrails", []), finding]

    def _on_first(self) -> None:
        if self.first_token_ms is None:
            self.first_token_ms = round((self.app.clock.now() - self.live.record.created_at) * 1000, 1)
            self.trace.first_ms = self.trace.elapsed()

    def _changes(self, status: str, error: AssistantError | None) -> Json:
        turn, result = self.live.record, self.result
        usage = result.usage
        if not result.is_usage_complete or (status in ("failed", "cancelled") and usage == Usage()):
            usage = estimated_usage(result.context_tokens, self.output.items)
        changes: Json = {
            "status": status,
            "usage": usage_body(usage),
            "incomplete_reason": result.incomplete if status == "incomplete" else None,
            "error": failure(error) if error is not None else None,
            "system_fingerprint": result.system_fingerprint,
            "deployment": result.deployment,
            "cost": result.cost,
            "first_token_ms": self.first_token_ms,
        }
        if result.service_tier:
            changes["params"] = {**turn.params, "service_tier": result.service_tier}
        return changes

    async def commit(self, outcome: Json, *, is_shown: bool = True) -> None:
        """Make the end durable, then show it. `is_shown` is False when nothing of the output was journalled.

        Raises:
            TurnTaken: somebody else ended the turn.
        """
        now = self.app.clock.now()
        final = self.live.record.model_copy(
            update={
                **outcome,
                "completed_at": now,
                "output": self.output.items,
                "due": None,
                "next_sequence": self.output.sequence,
                "charge": round(self.tally.charge, 2),
                "trace": self.trace.body(self.tally),
            }
        )
        final = self._priced(final)
        silent = None if is_shown else middle(final)
        if not is_shown:
            number = silent.last + 1 if silent else FIRST_SEQUENCE
            final = final.model_copy(update={"next_sequence": number, "is_journalled": False})
        admitted: list[str] = []

        def leave(usage: UsageRecord) -> UsageRecord:
            nonlocal admitted
            usage, admitted = meter.leave_background(usage, final.id, slots=self.app.settings.turn.background_slots)
            return usage

        began = steady_now()
        header = await self.ledger.commit(final, spent=spent(final), model=final.params["model"], now=now, leave=leave)
        commit_ms = round((steady_now() - began) * 1000, 1)
        for turn in admitted:
            self.app.live.keep(asyncio.create_task(self._admit(turn)))
        if silent is not None:
            self.live.publish(silent)
        self.live.publish(ending(final))
        self.live.end(final)
        if final.ttl is not None:
            return  # of a temporary conversation nothing is told: no title's model, no signals, no log
        if (
            header is not None
            and header.title is None
            and final.status == "completed"
            and self.app.settings.turn.titles
            and (final.flags or {}).get("titles") != "off"
        ):
            self.app.live.keep(asyncio.create_task(title_quietly(self.app, self.ledger.owner, final)))
        signals.turn(_signal(final, self.owner, charge=self.tally.charge, commit_ms=commit_ms))
        log.info(
            "turn.ended",
            extra={
                "response_id": final.id,
                "status": final.status,
                "tokens": (final.usage or {}).get("total_tokens"),
                "first_token_ms": final.first_token_ms,
                "charge": self.tally.charge,
            },
        )

    def _priced(self, final: TurnRecord) -> TurnRecord:
        """With the cost of what was used, where the deployment did not say it."""
        if final.cost or not final.usage:
            return final
        used = spent(final)
        cost = cost_of(
            self.app.models,
            self.app.settings.usage,
            final.params["model"],
            input_tokens=used.input_tokens,
            cached_tokens=used.cached_tokens,
            output_tokens=used.output_tokens,
        )
        return final.model_copy(update={"cost": cost})

    async def _admit(self, turn: str) -> None:
        """Send the owner's next background turn to the workers; should that fail, the recovery timer finds it."""
        try:
            await self.app.queue.send(TURNS, {"owner": self.owner, "turn": turn})
        except StorageUnavailable:
            log.warning("turn.not_sent", extra={"response_id": turn}, exc_info=True)


def tools_of(app: App, turn: TurnRecord) -> dict[str, ServerTool]:
    """The tools of ours that a turn may call; guardrails see what they give."""
    offered = app.tools.offered(turn.params["tools"])
    return app.guardrails.tools(offered) if app.guardrails is not None else offered


def new_journal(app: App, turn: TurnRecord, *, number: int = 0) -> Journal:
    """This process's place in the turn's journal, for the attempt the record names."""
    return Journal(
        app.store,
        turn.id,
        app.clock,
        writer=f"{app.host}.{turn.attempt}",
        lease=app.settings.turn.lease,
        attempt=turn.attempt,
        number=number,
    )


def estimated_usage(context_tokens: int, output: list[Json]) -> Usage:
    """For an upstream that did not count: the same estimate that budgets use."""
    return Usage(input_tokens=context_tokens, output_tokens=estimate_tokens(output))


def usage_body(usage: Usage) -> Json:
    return render_usage(
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def spent(turn: TurnRecord) -> Spent:
    """What a final turn adds to its owner's usage."""
    usage = turn.usage or {}
    return Spent(
        turns=1,
        input_tokens=usage.get("input_tokens", 0),
        cached_tokens=usage.get("input_tokens_details", {}).get("cached_tokens", 0),
        output_tokens=usage.get("output_tokens", 0),
        cost=turn.cost,
    )


def _signal(turn: TurnRecord, owner: str, *, charge: float, commit_ms: float) -> TurnSignal:
    """What is told of a final turn: everything but what was said."""
    return TurnSignal(
        response_id=turn.id,
        owner=hashed(owner),
        status=turn.status,
        model=str(turn.params.get("model", "")),
        deployment=turn.deployment,
        conversation=turn.conversation,
        ended_at=turn.completed_at or turn.created_at,
        attempt=turn.attempt,
        usage=turn.usage or {},
        cost=turn.cost,
        charge=charge,
        first_token_ms=turn.first_token_ms,
        trace=turn.trace,
        commit_ms=commit_ms,
    )


_FAILURES = {"rate_limit_exceeded": "rate_limit_exceeded", "content_policy_violation": "invalid_prompt"}
"""The protocol's closed list of codes for a failed response; everything else is a server error."""


def failure(error: AssistantError) -> Json:
    """The `error` of a failed response: exactly code and message."""
    code = _FAILURES.get(error.code or "", "invalid_prompt" if error.status == 400 else "server_error")
    return {"code": code, "message": error.message}
