"""The order of a turn: prepare, accept, model, journal and show, commit.

begin_turn ──► prepare   reads: usage, conversation or parent, history (one round)
           ──► accept    one batch; beside the model's own latency
           ──► run_loop  model and tools; every interval: journal, then show
           ──► commit    one batch; only then the terminal event
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.errors import AssistantError, Conflict, StorageUnavailable
from shared.models.base import ModelEvent, ModelRequest, Usage
from shared.principal import Principal
from shared.storage.base import AlreadyExists
from shared.telemetry import Tally, tallied
from shared.turns.context import estimate_tokens
from shared.turns.journal import Fenced, Journal
from shared.turns.ledger import HeadMoved, Ledger, TurnTaken, busy
from shared.turns.live import LiveTurn
from shared.turns.loop import LoopResult, pending_calls, run_loop
from shared.turns.output import Output
from shared.turns.prepare import Plan, TurnRequest, prepare
from shared.turns.replay import ending, middle, opening
from shared.turns.writer import Writer
from shared.usage import meter
from shared.usage.records import Spent, UsageRecord
from shared.wire.responses import render_usage

type Json = dict[str, Any]

log = logging.getLogger("companion.turns")

_PREPARE_TRIES = 4


async def begin_turn(app: App, caller: Principal, request: TurnRequest) -> LiveTurn:
    """Accept a turn and set it going; it runs to its end whatever becomes of the caller.

    Returns:
        The running turn, accepted: follow it for a stream, or wait until it is finished.

    Raises:
        InvalidRequest, NotFound, Conflict: it cannot be accepted; nothing was stored.
    """
    with tallied() as tally:
        for _ in range(_PREPARE_TRIES):
            plan = await prepare(app, caller, request)
            try:
                return await _accept(app, caller, plan, tally)
            except HeadMoved:
                continue
            except AlreadyExists:
                raise Conflict("This request was accepted before.", code="duplicate_request", retry_after=1) from None
    assert plan.header is not None
    raise busy(plan.header)


async def _accept(app: App, caller: Principal, plan: Plan, tally: Tally) -> LiveTurn:
    """Make the turn durable while the model already thinks; let go of the model when it is not accepted."""
    primed = _Primed(app.models.stream(plan.request))
    try:
        await plan.ledger.accept(plan.turn, header=plan.header, reserve=_reserving(app, plan))
    except BaseException:
        await primed.discard()
        raise
    run = Run.of(app, caller.owner, plan.turn, plan.ledger, tally)
    run.live.publish(opening(plan.turn))
    run.begin(plan.request, primed)
    return run.live


def _reserving(app: App, plan: Plan) -> Any:
    def reserve(usage: UsageRecord) -> UsageRecord:
        return meter.reserve(
            usage,
            plan.turn.id,
            tokens=plan.reserve_tokens,
            cost=0.0,
            now=plan.turn.created_at,
            seconds=app.settings.model.timeout + 60,
        )

    return reserve


class _Primed:
    """A model call that has begun before anybody asks for its first event."""

    def __init__(self, stream: AsyncIterator[ModelEvent]) -> None:
        self._stream = stream
        self._first: asyncio.Task[ModelEvent | None] = asyncio.create_task(self._fetch())

    async def _fetch(self) -> ModelEvent | None:
        return await anext(self._stream, None)

    async def events(self) -> AsyncGenerator[ModelEvent]:
        try:
            first = await self._first
            if first is not None:
                yield first
                async for event in self._stream:
                    yield event
        finally:
            await self.discard()

    async def discard(self) -> None:
        """End the call, wherever it is."""
        if not self._first.done():
            self._first.cancel()
            await asyncio.wait([self._first])
        elif not self._first.cancelled():
            self._first.exception()  # seen: nobody else will look
        if isinstance(self._stream, AsyncGenerator):
            await self._stream.aclose()


@dataclass(slots=True)
class Run:
    """A turn under way in this process."""

    app: App
    owner: str
    live: LiveTurn
    output: Output
    writer: Writer
    ledger: Ledger
    tally: Tally
    result: LoopResult = field(default_factory=LoopResult)
    first_token_ms: float | None = None

    @classmethod
    def of(cls, app: App, owner: str, turn: TurnRecord, ledger: Ledger, tally: Tally) -> "Run":
        settings = app.settings.turn
        live, output = LiveTurn(turn), Output(turn.token)
        writer_id = f"{app.host}.{turn.attempt}"
        journal = (
            Journal(app.store, turn.id, app.clock, writer=writer_id, lease=settings.lease, attempt=turn.attempt)
            if turn.is_kept
            else None
        )
        writer = Writer(output, live, journal, interval=settings.interval, lease=settings.lease)
        return cls(app, owner, live, output, writer, ledger, tally)

    def begin(self, request: ModelRequest, primed: _Primed | None = None) -> None:
        """Run the turn in a task of its own."""
        self.app.live.add(self.owner, self.live)
        task = asyncio.create_task(self._to_the_end(request, primed), name=self.live.record.id)
        self.live.task = task
        self.app.live.keep(task)

    async def _to_the_end(self, request: ModelRequest, primed: _Primed | None) -> None:
        """Whatever happens, the turn ends in storage, or is left there for another host to take over."""
        try:
            ended = await self._answer(request, primed)
            if ended is not None:
                await self._commit(*ended)
        except (Fenced, TurnTaken):
            log.info("turn.taken", extra={"response_id": self.live.record.id})
        except StorageUnavailable:
            log.warning("turn.left", extra={"response_id": self.live.record.id}, exc_info=True)
        finally:
            self.app.live.remove(self.owner, self.live)
            if not self.live.is_over:
                self.live.end()

    async def _answer(self, request: ModelRequest, primed: _Primed | None) -> tuple[TurnRecord, bool] | None:
        """Model, tools, journal, show.

        Returns:
            The turn's final form, and whether its events were shown already; None when it is not ours to end.
        """
        stream = self._streams(primed)
        turn = self.live.record
        try:
            self.writer.start(asyncio.current_task())
            await run_loop(
                stream,
                request,
                self.output,
                self.writer,
                tools=self.app.tools.offered(turn.params["tools"]),
                max_tool_calls=turn.params["max_tool_calls"],
                result=self.result,
                on_first=self._on_first,
            )
            status, error = ("incomplete" if self.result.incomplete else "completed"), None
        except AssistantError as raised:
            status, error = "failed", raised
        except asyncio.CancelledError:
            if not self.live.is_cancelling:
                await self.writer.stop()  # raises why the writer gave up; without a reason the process is going down
                raise
            status, error = "cancelled", None
        finally:
            self.live.is_ending = True
            if primed is not None:
                await primed.discard()
        self.live.error = error
        await self.writer.stop()
        self.output.close("completed" if status == "completed" else "incomplete")
        for index in pending_calls(self.output):
            self.output.finish_item(index, status="incomplete")
        is_shown = await self.writer.flush(is_closing=True)
        return self._final(status, error, request), is_shown

    def _streams(self, primed: _Primed | None) -> Any:
        """The first call is the one already begun; later ones begin when asked for."""
        waiting = [primed] if primed is not None else []

        def stream(request: ModelRequest) -> AsyncIterator[ModelEvent]:
            return waiting.pop().events() if waiting else self.app.models.stream(request)

        return stream

    def _on_first(self) -> None:
        if self.first_token_ms is None:
            self.first_token_ms = round((self.app.clock.now() - self.live.record.created_at) * 1000, 1)

    def _final(self, status: str, error: AssistantError | None, request: ModelRequest) -> TurnRecord:
        turn, result = self.live.record, self.result
        usage = result.usage
        if not result.is_usage_complete or (status != "completed" and usage == Usage()):
            usage = estimated_usage(request, self.output.items)
        now = self.app.clock.now()
        changes: Json = {
            "status": status,
            "completed_at": now,
            "output": self.output.items,
            "usage": usage_body(usage),
            "incomplete_reason": result.incomplete if status == "incomplete" else None,
            "error": failure(error) if error is not None else None,
            "due": None,
            "next_sequence": self.output.sequence,
            "deployment": result.deployment,
            "cost": result.cost,
            "first_token_ms": self.first_token_ms,
            "charge": round(self.tally.charge, 2),
        }
        if result.service_tier:
            changes["params"] = {**turn.params, "service_tier": result.service_tier}
        return turn.model_copy(update=changes)

    async def _commit(self, final: TurnRecord, is_shown: bool) -> None:
        """Make the end durable, then show it."""
        turn = self.live.record
        silent = None if is_shown else middle(final)
        if not is_shown:
            final = final.model_copy(update={"next_sequence": silent.last + 1 if silent else 2})
        now = self.app.clock.now()
        await self.ledger.commit(final, spent=spent(final), model=turn.params["model"], now=now)
        if silent is not None:
            self.live.publish(silent)
        self.live.publish(ending(final))
        self.live.end(final)
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


def estimated_usage(request: ModelRequest, output: list[Json]) -> Usage:
    """For an upstream that did not count: the same estimate that budgets use."""
    return Usage(input_tokens=estimate_tokens(request.items), output_tokens=estimate_tokens(output) if output else 0)


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


_FAILURES = {"rate_limit_exceeded": "rate_limit_exceeded", "content_policy_violation": "invalid_prompt"}
"""The protocol's closed list of codes for a failed response; everything else is a server error."""


def failure(error: AssistantError) -> Json:
    """The `error` of a failed response: exactly code and message."""
    code = _FAILURES.get(error.code or "", "invalid_prompt" if error.status == 400 else "server_error")
    return {"code": code, "message": error.message}
