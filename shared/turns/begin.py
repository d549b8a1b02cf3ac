"""The order of a turn, from request to running.

begin_turn ──► prepare   reads: usage, conversation or parent, history (one round)
           ──► accept    one batch; beside the model's own latency
           ──► Run       model and tools; every interval: journal, then show; commit; only then the terminal event

A send is exactly once: with an `Idempotency-Key` the turn's id derives from owner and key, so a second create conflicts
and joins the first; without one, an equal body shortly after is known by its hash.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from shared.app import App
from shared.errors import AssistantError, Conflict, Unprocessable
from shared.ids import derived_token
from shared.models.base import ModelRequest
from shared.models.gate import Ticket
from shared.principal import Principal
from shared.settings import Limits
from shared.stages import stage
from shared.storage.base import STATE, AlreadyExists
from shared.storage.large import SPENT
from shared.telemetry import Tally
from shared.turns.compaction import compact_first
from shared.turns.context import SUMMARY_CALLS, SUMMARY_TOKENS, Context
from shared.turns.follow import relay
from shared.turns.ledger import UNKEPT_SECONDS, HeadMoved
from shared.turns.live import LiveTurn
from shared.turns.loop import MAX_MODEL_CALLS
from shared.turns.prepare import DEFAULT_OUTPUT_TOKENS, Joined, Plan, TurnRequest, prepare
from shared.turns.queued import nudge, send_turn
from shared.turns.replay import opening
from shared.turns.run import Primed, Run
from shared.usage import meter
from shared.usage.limits import headers as rate_headers
from shared.usage.limits import is_roomy
from shared.usage.prices import cost_of
from shared.usage.records import UsageRecord

SPARE_SECONDS = 60.0
"""What a turn may take beside its model calls."""
_TRIES = 4


async def begin_turn(app: App, caller: Principal, request: TurnRequest, ticket: Ticket | None = None) -> LiveTurn:
    """Accept a turn and set it going; it runs to its end whatever becomes of the caller.

    `ticket` is its place among the turns of this host; without one, or where it was left, it waits for one here.

    Returns:
        The turn, accepted: follow it for a stream, or wait until it is finished. For a send that was accepted before,
        that very turn.

    Raises:
        InvalidRequest, NotFound, Conflict: it cannot be accepted; nothing was stored.
        RateLimited, QuotaExceeded: the caller's plan does not allow it now.
        ModelUnavailable: this host has more to do than it can.
        Unprocessable: the idempotency key was used for another body.
    """
    own = f"resp_{derived_token(caller.owner, request.send_key)}" if request.send_key else None
    if ticket is None or not ticket.claim():
        ticket = await app.models.gate.enter(caller.owner)
    try:
        return await _begin(app, caller, request, own, ticket)
    finally:
        if not ticket.is_held:
            ticket.leave()


async def _begin(app: App, caller: Principal, request: TurnRequest, own: str | None, ticket: Ticket) -> LiveTurn:
    with Tally() as tally:
        for attempt in range(_TRIES):
            try:
                await stage()
                plan = await prepare(app, caller, request)
                await stage()
                return await _accept(app, caller, plan, tally, ticket)
            except HeadMoved:
                continue
            except Joined as joined:
                live = await _join(app, caller, joined.turn, request)
                if live is not None:
                    return live
                request = replace(request, is_retry=False)  # what it would join is gone
            except (AssistantError, AlreadyExists) as failure:
                # A retry can trip over what its first try has changed; then the first try is the answer.
                live = await _join(app, caller, own, request) if own else None
                if live is not None:
                    return live
                if attempt == 0 and isinstance(failure, Conflict):
                    continue  # a twin may have been faster by a hair: the second look finds it
                if (
                    own is not None
                    and isinstance(failure, AlreadyExists)
                    and await _was_unkept(app, caller, own, request)
                ):
                    own, request = None, replace(request, send_key=None)  # its answer is nowhere: here is another
                    continue
                if isinstance(failure, AlreadyExists):
                    raise Conflict(
                        "The response to this Idempotency-Key was deleted; use a new key for a new request.",
                        code="response_deleted",
                    ) from None
                raise
    raise Conflict("The conversation keeps changing; try again.", code="conversation_locked", retry_after=1)


async def _was_unkept(app: App, caller: Principal, turn: str, request: TurnRequest) -> bool:
    """Whether nothing of the turn with this key was kept but that key.

    Raises:
        Unprocessable: it was for another body.
    """
    stored = await app.store.read(STATE, caller.owner, turn)
    if stored is None or stored.body.get("kind") != SPENT or "body_hash" not in stored.body:
        return False
    _check_body(stored.body["body_hash"], request)
    return True


def _check_body(body_hash: str | None, request: TurnRequest) -> None:
    if body_hash != request.body_hash:
        raise Unprocessable(
            "This Idempotency-Key was used for another request; use a new key for a new request.",
            code="idempotency_key_reused",
        )


async def _join(app: App, caller: Principal, turn: str, request: TurnRequest) -> LiveTurn | None:
    live = await relay(app, caller.owner, turn)
    if live is not None:
        _check_body(live.record.body_hash, request)
    if live is not None and live.record.status == "queued":  # its first host may have died before it told the workers
        await nudge(app, caller.owner, live.record)
    return live


async def _accept(app: App, caller: Principal, plan: Plan, tally: Tally, ticket: Ticket) -> LiveTurn:
    """Make the turn durable while the model already thinks; let go of the model when it is not accepted."""
    is_background = plan.turn.status == "queued"
    limits, cost = app.settings.usage.limits_of(caller.plan), _cost(app, plan)
    is_sure = _is_roomy(plan, limits, cost)
    waits = is_background or plan.context.needs_summary or not is_sure
    primed = None if waits else Primed(app.models.stream(plan.request))
    try:
        await plan.ledger.accept(plan.turn, header=plan.header, reserve=_reserving(app, plan, limits, cost))
        await stage()
    except BaseException:
        plan.ledger.let_go()
        if primed is not None:
            await primed.discard()
        raise
    headers = rate_headers(_usage(plan), limits, plan.turn.created_at)
    if is_background:
        live = await _enqueue(app, caller, plan)
        live.headers = headers
        return live
    plan.trace.accept_ms = plan.trace.elapsed()
    run = Run.fresh(app, caller.owner, plan.turn, plan.ledger, tally, trace=plan.trace)
    run.live.headers, run.ticket = headers, ticket.hold()
    run.live.publish(opening(plan.turn))
    run.begin(_answer(plan.context, plan.request, primed))
    return run.live


def _answer(context: Context, asking: ModelRequest, primed: Primed | None) -> Callable[[Run], Awaitable[None]]:
    """What the turn does; it holds on to no more of the plan than it uses."""
    if context.needs_summary:
        return lambda run: compact_first(run, context, asking)
    return lambda run: run.loop(asking, primed)


async def _enqueue(app: App, caller: Principal, plan: Plan) -> LiveTurn:
    """A background turn: put in the queue if it may run now; followed from the store wherever it runs."""
    if plan.turn.id in _usage(plan).background:
        await send_turn(app, caller.owner, plan.turn.id, tier=plan.turn.params["service_tier"])
    live = await relay(app, caller.owner, plan.turn.id)
    assert live is not None
    return live


def _usage(plan: Plan) -> UsageRecord:
    return plan.ledger.usage.record(plan.turn.usage_id)


def _is_roomy(plan: Plan, limits: Limits, cost: float) -> bool:
    """Whether the model may be asked before the reservation is written: it is far below what is left."""
    now = plan.turn.created_at
    return is_roomy(_usage(plan), limits, tokens=plan.reserve_tokens, cost=cost, now=now)


def _cost(app: App, plan: Plan) -> float:
    """What the turn's first call may cost at most, and the summary before it."""
    output = plan.turn.params["max_output_tokens"] or DEFAULT_OUTPUT_TOKENS
    output += SUMMARY_CALLS * SUMMARY_TOKENS if plan.context.needs_summary else 0
    tokens = max(0, plan.reserve_tokens - output)
    return cost_of(app.models, app.settings.usage, plan.request.model, input_tokens=tokens, output_tokens=output)


def _reserving(app: App, plan: Plan, limits: Limits, cost: float) -> Callable[[UsageRecord], UsageRecord]:
    turn, settings = plan.turn, app.settings
    # As long as a turn may last: one with a record is settled by whoever ends it, so this is for what nobody can end.
    patience = settings.model.timeout * MAX_MODEL_CALLS + SPARE_SECONDS

    def reserve(usage: UsageRecord) -> UsageRecord:
        usage = meter.reserve(
            usage,
            turn.id,
            limits=limits,
            tokens=plan.reserve_tokens,
            cost=cost,
            now=turn.created_at,
            seconds=patience if turn.is_kept else UNKEPT_SECONDS,
            is_background=turn.status == "queued",
        )
        if turn.body_hash is not None:
            usage = meter.remember_send(usage, turn.body_hash, turn.id, turn.created_at)
        if turn.status == "queued":
            is_first = turn.params["service_tier"] == "priority"
            usage = meter.enter_background(usage, turn.id, slots=settings.turn.background_slots, is_first=is_first)
        return usage

    return reserve
