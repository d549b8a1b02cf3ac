"""Money for model calls outside of turns: reserved before, settled after, by the same limits.

async with reserved(app, caller, model="companion", tokens=120) as bill:
    answer = await app.embedder.embed(body)
    bill.used(input_tokens=answer["usage"]["prompt_tokens"])
return json_response(answer, headers=bill.headers)
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.app import App
from shared.principal import Principal
from shared.storage.base import STATE, Document
from shared.storage.mutate import Change, mutate
from shared.usage import meter
from shared.usage.limits import headers
from shared.usage.prices import cost_of
from shared.usage.records import Spent, UsageRecord

SETTLING_SECONDS = 60.0
"""How much longer than a model may take the money of its call is held: to be settled in time."""


@dataclass(slots=True)
class Bill:
    """What one call uses; whoever makes the call says it here."""

    headers: dict[str, str] = field(default_factory=dict[str, str])
    """`x-ratelimit-*`, for the answer."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    """Where the deployment says it; None: by price."""
    is_used: bool = False

    def used(self, *, input_tokens: int = 0, output_tokens: int = 0, cost: float | None = None) -> None:
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        if cost:
            self.cost = (self.cost or 0.0) + cost
        self.is_used = True


@asynccontextmanager
async def reserved(
    app: App, caller: Principal, *, model: str, tokens: int, output_tokens: int = 0
) -> AsyncGenerator[Bill]:
    """Hold what a call of this size may cost; afterwards charge what the bill says, or nothing.

    Raises:
        RateLimited, QuotaExceeded: the caller's plan does not allow it now.
    """
    now, token = app.clock.now(), app.ids.token()
    seconds = app.settings.model.timeout + SETTLING_SECONDS
    id_, plan = meter.month_id(now), app.settings.usage.limits_of(caller.plan)

    def price(input_tokens: int, output_tokens: int) -> float:
        return cost_of(app.models, app.settings.usage, model, input_tokens=input_tokens, output_tokens=output_tokens)

    def hold(body: Document | None) -> Document:
        record = UsageRecord.of(body) if body else meter.fresh(id_)
        cost = price(tokens, output_tokens)
        total = tokens + output_tokens
        return meter.reserve(record, token, limits=plan, tokens=total, cost=cost, now=now, seconds=seconds).document()

    _, stored = await mutate(app.store, STATE, caller.owner, [], [Change(id_, hold)])
    bill = Bill(headers(UsageRecord.of(stored[0].body), plan, now))
    try:
        yield bill
    finally:

        def settle(body: Document | None) -> Document:
            record = UsageRecord.of(body) if body else meter.fresh(id_)
            if not bill.is_used:
                return meter.release(record, token).document()
            cost = price(bill.input_tokens, bill.output_tokens) if bill.cost is None else bill.cost
            spent = Spent(turns=1, input_tokens=bill.input_tokens, output_tokens=bill.output_tokens, cost=cost)
            return meter.settle(record, token, model=model, spent=spent, now=app.clock.now()).document()

        known = stored[0]
        await mutate(app.store, STATE, caller.owner, [], [Change(id_, settle, known=known, is_known=True)])
