"""Which deployment answers a model's name. A model around models, so that the turn engine sees one.

A route maps a name that clients use to an ordered chain of deployments (routes.py). This is the one layer that tries
again: before the first event only, on the next of the chain or after a wait, within a deadline, at most three tries and
a budget of calls in vain (retry.py); a deployment that does not answer is left alone (breaker.py). A call that breaks
after its first event is the turn engine's: nothing is ever spliced here.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from shared.clock import Clock, SystemClock
from shared.errors import (
    AssistantError,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    RateLimited,
    StorageUnavailable,
    UpstreamError,
)
from shared.models.base import (
    ArgumentsDelta,
    Finished,
    ItemStarted,
    Json,
    Model,
    ModelEvent,
    ModelRequest,
    Origin,
    TextDelta,
    Usage,
    changed,
)
from shared.models.breaker import STATES
from shared.models.deployment import Deployment, Route, refusal, steady_now
from shared.models.gate import Gate
from shared.models.retry import (
    BUDGET_OF_PLACES,
    BUDGET_START,
    MOST_TRIES,
    TRIES_IN_BAD_LUCK,
    RetryBudget,
    is_retryable,
    wait_before,
)
from shared.models.shadow import Keep
from shared.models.usual import kind_of
from shared.settings import SettingsError
from shared.telemetry import names
from shared.telemetry.signals import signals

__all__ = ["DEFAULT_MODEL", "Deployment", "Route", "Router", "Table"]

DEFAULT_MODEL = "companion"
MOST_NOTED = 48
"""Tries that a turn's trace holds."""
QUIET_AFTER_REFUSAL = 1.0
"""Seconds for which a deployment that said 429, and not for how long, is asked last."""
LONGEST_QUIET = 60.0
SHADOWS_AT_A_TIME = 4
LEFT = "left"
"""What a try came to that its caller did not wait for."""
_EPOCH = date(1970, 1, 1).toordinal()

log = logging.getLogger("companion.models")

type Discover = Callable[[], Awaitable[dict[str, Route]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All routes at a time; replaced as a whole."""

    routes: dict[str, Route]
    aliases: dict[str, str] = field(default_factory=dict[str, str])
    discover: Discover | None = None
    holds: tuple[Model, ...] = ()
    """Models behind routes yet to be discovered."""
    description: str = ""
    source: str = ""
    """The text it was read from."""

    def models(self) -> list[Model]:
        routed = (deployment for route in self.routes.values() for deployment in route.all())
        shadowing = (route.shadow.deployment for route in self.routes.values() if route.shadow)
        return [*self.holds, *(deployment.model for deployment in (*routed, *shadowing))]


class Source:
    """Where newer routes may come from, and what to make of them."""

    def __init__(self, load: Callable[[Table | None], Awaitable[Table]], seconds: float) -> None:
        """`load` is given the table in force and returns it, or a newer one; raises as `Router.refresh` says."""
        self.load = load
        self.seconds = seconds


class Router:
    """The models of this app, by name."""

    def __init__(
        self,
        routes: Sequence[Route] = (),
        *,
        table: Table | None = None,
        source: Source | None = None,
        discover: Discover | None = None,
        holds: Sequence[Model] = (),
        description: str = "",
        gate: Gate | None = None,
        clock: Clock | None = None,
        keep_shadow: Keep | None = None,
        most_tries: int = MOST_TRIES,
    ) -> None:
        """`routes` (and what goes with them), or a `table`; a `source` may replace it by a newer one."""
        self._table = table or Table(
            routes={route.id: route for route in routes},
            discover=discover,
            holds=tuple(holds),
            description=description,
        )
        self._source = source
        self._looked = -1e9
        self._look: asyncio.Task[None] | None = None
        self._clock = clock or SystemClock()
        self._keep_shadow = keep_shadow
        self._most_tries = most_tries
        self._shadows: set[asyncio.Task[None]] = set()
        self._models: dict[int, Model] = {}
        self._remember(self._table)
        self.gate = gate or Gate()
        self._budget = RetryBudget(max(BUDGET_START, self.gate.limit * BUDGET_OF_PLACES))

    @classmethod
    def over(cls, model: Model, *names: str) -> "Router":
        """One model behind some names (`companion`, if none is given): for tests and simulations.

        It asks once, and its gate is wide open.
        """
        routes = [
            Route(id=name, deployments=(Deployment(name="only", upstream=name, model=model),))
            for name in names or (DEFAULT_MODEL,)
        ]
        return cls(routes, gate=Gate(most=100_000, is_adaptive=False), most_tries=1)

    # names

    async def resolve(self, model: str) -> str:
        """The name under which `stream` will know it.

        Raises:
            NotFound: no such model (`model_not_found`).
            AssistantError: the upstream that would know cannot be asked.
        """
        return (await self.route(model)).id

    async def route(self, model: str) -> Route:
        """Raises as `resolve` does."""
        if self._source is not None:
            await self._fresh()
        route = self._known(model) or (await self._discovered()).get(model)
        if route is None:
            raise NotFound(f"The model {model!r} does not exist.", code="model_not_found", param="model")
        return route

    async def models(self) -> list[Json]:
        """The models to choose from, the default first; raises when the upstream that knows them cannot be asked."""
        if self._source is not None:
            await self._fresh()
        routes = {**self._table.routes, **await self._discovered()}
        for alias, name in self._table.aliases.items():
            routes[alias] = replace(routes[name], id=alias)
        first = [routes.pop(DEFAULT_MODEL)] if DEFAULT_MODEL in routes else []
        return [route.entry() for route in (*first, *routes.values())]

    def price(self, model: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """US dollars that a call of this size may cost at most, by the dearest deployment the name leads to.

        0.0 where the operator has set no prices.
        """
        route = self._known(model)
        usage = Usage(input_tokens=input_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens)
        return max((deployment.prices.of(usage) for deployment in route.all()), default=0.0) if route else 0.0

    def can_continue(self, request: ModelRequest) -> bool:
        """Whether some deployment would go on from `request.prefix`."""
        route = self._known(request.model)
        return route is not None and any(
            deployment.capabilities.prefix and deployment.capabilities.lacking(request) is None
            for deployment in route.all()
        )

    def describe(self) -> str:
        """One line for the start banner."""
        return self._table.description or ", ".join(self._table.routes)

    def figures(self) -> Json:
        """For the operator: each deployment of each model, how it has been doing on this host."""
        models: Json = {}
        for name, route in self._table.routes.items():
            models[name] = {
                "chain": [[[each.name, weight] for each, weight in step.choices] for step in route.steps],
                "canary": _share(route.canary),
                "shadow": _share(route.shadow),
            }
        known = {each.name: each for route in self._table.routes.values() for each in _everyone(route)}
        return {
            "models": models,
            "aliases": dict(self._table.aliases),
            "deployments": {name: _described(each) for name, each in known.items()},
            "gate": {
                "limit": int(self.gate.limit),
                "in_flight": self.gate.in_flight,
                "waiting": self.gate.waiting,
                "refused": self.gate.refused,
            },
        }

    # routes that change

    async def refresh(self) -> None:
        """Take newer routes now.

        Raises:
            SettingsError: they cannot be used; those in force stay.
            StorageUnavailable: they cannot be read.
        """
        if self._source is None:
            return
        self._looked = steady_now()
        table = await self._source.load(self._table)
        if table is not self._table:
            self._remember(table)
            self._table = table

    async def _fresh(self) -> None:
        """Before the first use, newer routes are waited for; after that they are looked for beside the work."""
        assert self._source is not None
        if steady_now() - self._looked < self._source.seconds:
            return
        is_first = self._looked < 0
        if self._look is None or self._look.done():
            # In a context of its own: it is no turn's operation, and no turn pays for it.
            self._look = asyncio.get_running_loop().create_task(self._refresh_quietly(), context=Context())
        if is_first:
            await asyncio.shield(self._look)

    async def _refresh_quietly(self) -> None:
        try:
            await self.refresh()
        except SettingsError as error:
            log.error("routes.refused", extra={"reason": str(error)})
        except StorageUnavailable:
            log.warning("routes.unread")

    def _remember(self, table: Table) -> None:
        """Models are closed with the router, also those that newer routes no longer lead to: calls may still run."""
        self._models |= {id(model): model for model in table.models()}

    def _known(self, model: str) -> Route | None:
        routes, aliases = self._table.routes, self._table.aliases
        return routes.get(model) or (routes.get(aliases[model]) if model in aliases else None)

    async def _discovered(self) -> dict[str, Route]:
        if self._table.discover is None:
            return {}
        try:
            return await self._table.discover()
        except UpstreamError:
            # Not every server lists its models; what the operator named works without.
            if not self._table.routes:
                raise
            return {}

    # calls

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See `Model`; `request.model` is a name that `resolve` gave.

        Raises:
            InvalidRequest: no deployment can do what is asked; `param` names it.
            ModelUnavailable, RateLimited, ModelTimeout, UpstreamError: none answered.
        """
        call = _Call(self, await self.route(request.model), request)
        event: ModelEvent | None = await call.begin()
        try:
            if type(event) is Finished:
                yield call.finished(event)
            else:
                yield event
                async for event in call.events:
                    yield call.finished(event) if type(event) is Finished else event
        except AssistantError as error:
            call.broke(error)
            raise
        finally:
            await call.end()

    async def close(self) -> None:
        tasks = [task for task in (self._look, *self._shadows) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for model in self._models.values():
            await model.close()

    def candidates(self, route: Route, request: ModelRequest) -> list[tuple[Deployment, str]]:
        """Who may be asked, best first, each with the reason for its place.

        The choice by weight is the same for all calls of a thread: its prompt cache is there.
        """
        origin = request.origin
        stick = f"{origin.owner}\x1f{origin.thread}" if origin else request.prompt_cache_key or ""
        ranked: list[tuple[Deployment, str]] = []
        if route.canary is not None and _draw(stick, route.id, "canary") * 100 < route.canary.percent:
            ranked.append((route.canary.deployment, "canary"))
        for place, step in enumerate(route.steps):
            chosen = step.choices
            if len(chosen) > 1:
                # Weighted rendezvous: a deployment that comes or goes moves only its own threads.
                chosen = sorted(chosen, key=lambda choice: _draw(stick, choice[0].name) ** (1 / choice[1]))[::-1]
            ranked += [
                (each, "primary" if place == order == 0 else "fallback") for order, (each, _) in enumerate(chosen)
            ]
        today = self._today()
        able = [(each, reason) for each, reason in ranked if each.can_answer(request, today)]
        if not able:
            raise refusal(route, request, today)
        # Tokens are estimates: the turn has made sure that they fit the chain, and none is refused for them here.
        return [choice for choice in able if choice[0].capabilities.has_room(request)] or able

    def check(self, route: Route, request: ModelRequest) -> None:
        """Before anything is accepted. A canary counts where every thread is led to it.

        Raises:
            InvalidRequest: no deployment can do what is asked; `param` names it.
        """
        today = self._today()
        is_whole = route.canary is not None and route.canary.percent >= 100
        if not any(each.can_answer(request, today) for each in (route.all() if is_whole else route.deployments)):
            raise refusal(route, request, today)

    def _today(self) -> date:
        return date.fromordinal(_EPOCH + int(self._clock.now() // 86_400))

    def tries_of(self, route: Route) -> int:
        """How often one answer may be begun; more often in bad luck: where most of the last calls succeeded."""
        if self._most_tries != MOST_TRIES:
            return self._most_tries
        now = steady_now()
        shares = [each.health.breaker.share_of_successes(now) for each in route.all()]
        is_bad_luck = any(share is not None and share > 0.5 for share in shares)
        return TRIES_IN_BAD_LUCK if is_bad_luck else MOST_TRIES

    @property
    def budget(self) -> RetryBudget:
        return self._budget

    def copy_to_shadow(self, route: Route, request: ModelRequest) -> None:
        """Now and then, ask the candidate the same, beside the answer."""
        shadow, origin = route.shadow, request.origin
        if shadow is None or self._keep_shadow is None or origin is None or not origin.turn:
            return
        if len(self._shadows) >= SHADOWS_AT_A_TIME or random.random() * 100 >= shadow.percent:  # noqa: S311
            return
        candidate = shadow.deployment
        if not (candidate.can_answer(request, self._today()) and candidate.capabilities.has_room(request)):
            return
        task = asyncio.get_running_loop().create_task(
            self._ask_shadow(self._keep_shadow, shadow.deployment, request, origin), context=Context()
        )
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _ask_shadow(self, keep: Keep, candidate: Deployment, request: ModelRequest, origin: Origin) -> None:
        began, first = steady_now(), None
        text, usage, error = "", Usage(), None
        health = candidate.health
        health.began(began)
        try:
            async for event in candidate.model.stream(replace(request, model=candidate.upstream, origin=None)):
                if first is None:
                    first = round((steady_now() - began) * 1000, 1)
                    health.first(first)
                if isinstance(event, TextDelta | ArgumentsDelta):
                    text += event.text
                elif isinstance(event, ItemStarted) and event.name:
                    text += f"\n{event.name} "
                elif isinstance(event, Finished):
                    usage = event.usage or usage
        except AssistantError as failure:
            error = failure.message
            health.failures += 1
        finally:
            health.in_flight -= 1
            health.breaker.let_go()
        cost = candidate.prices.of(usage)
        health.counted(usage, cost)
        result: Json = {
            "turn": origin.turn,
            "model": request.model,
            "deployment": candidate.name,
            "text": text.strip(),
            "error": error,
            "seconds": round(steady_now() - began, 3),
            "first_token_ms": first,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost": cost,
        }
        try:
            await keep(origin.owner, result)
        except StorageUnavailable:
            log.warning("shadow.not_kept", extra={"response_id": origin.turn})


class _Call:
    """One call of `Router.stream`: its tries until one begins to answer, then the evidence it gives."""

    __slots__ = (
        "_began",
        "_deadline",
        "_deployment",
        "_kind",
        "_note",
        "_request",
        "_route",
        "_router",
        "_tries",
        "events",
    )

    def __init__(self, router: Router, route: Route, request: ModelRequest) -> None:
        self._router = router
        self._route = route
        self._request = request
        self._began = 0.0
        self._deadline = steady_now() + request.deadline if request.deadline is not None else None
        self._deployment: Deployment | None = None
        self._note: Json = {}
        self._tries = 0
        self._kind = kind_of(request)
        self.events: AsyncIterator[ModelEvent] = _nothing()

    async def begin(self) -> ModelEvent:
        """The first event of the try that answered.

        Raises:
            AssistantError: none did.
        """
        router = self._router
        candidates = router.candidates(self._route, self._request)
        router.budget.first_call()
        asked: set[str] = set()
        while True:
            deployment, reason = self._next(candidates, asked)
            asked.add(deployment.name)
            try:
                event = await self._try(deployment, reason if self._tries == 0 else self._why(deployment, reason))
            except AssistantError as error:
                if not is_retryable(error):
                    raise
                await self._rest_before_next(error, candidates, asked)
            else:
                if self._tries > 1:
                    router.budget.helped(self._tries - 1)
                else:
                    router.copy_to_shadow(self._route, self._request)
                return event

    def _next(self, candidates: list[tuple[Deployment, str]], asked: set[str]) -> tuple[Deployment, str]:
        """The best that may be asked now: one not asked yet, before one that was."""
        now = steady_now()
        free = [candidate for candidate in candidates if candidate[0].unavailable_for(now) <= 0]
        if free:
            chosen = min(free, key=lambda candidate: (candidate[0].name in asked, candidate[0].is_quiet(now)))
            if not self._tries and len(free) < len(candidates):
                better = candidates[: candidates.index(chosen)]
                self._skipped([candidate for candidate in better if candidate not in free], now)
            return chosen
        wait = min(each.unavailable_for(now) for each, _ in candidates)
        if any(each.health.breaker.state == "closed" for each, _ in candidates):
            self._router.gate.is_too_busy()
        self._skipped(candidates, now)
        raise ModelUnavailable(
            f"The model {self._route.id!r} is not available right now; try again later.",
            retry_after=round(max(0.1, wait), 1),
        )

    def _skipped(self, candidates: list[tuple[Deployment, str]], now: float) -> None:
        for each, reason in candidates:
            closed = each.health.breaker.state == "closed"
            self._write(
                {"deployment": each.name, "reason": reason, "skipped": "busy" if closed else "breaker_open"}, now
            )

    def _why(self, deployment: Deployment, reason: str) -> str:
        before = self._note
        if before.get("deployment") == deployment.name:
            return "retry"
        return "spill" if before.get("kind") == "provisioned" and before.get("status") == 429 else reason

    async def _try(self, deployment: Deployment, reason: str) -> ModelEvent:
        now = steady_now()
        self._began, self._deployment = now, deployment
        self._tries += 1
        self._note = self._write({"deployment": deployment.name, "reason": reason}, now)
        if deployment.provider:
            self._note["provider"] = deployment.provider
        if deployment.kind == "provisioned":
            self._note["kind"] = deployment.kind
        deployment.health.began(now)
        try:
            return await self._first(deployment, self._left(deployment, now))
        except AssistantError as error:
            self._failed(error)
            await self.end()
            raise
        except BaseException:
            await self.end()
            raise

    async def _first(self, deployment: Deployment, seconds: float | None) -> ModelEvent:
        first, silence = self._patience(deployment)
        request = changed(self._request, model=deployment.upstream, deadline=seconds, silence=silence)
        self.events = aiter(deployment.model.stream(request))
        patience = min((each for each in (seconds, first) if each is not None), default=None)
        try:
            async with asyncio.timeout(patience):
                event = await anext(self.events)
        except TimeoutError:
            raise ModelTimeout("The model's server did not begin to answer in time; try again.") from None
        except StopAsyncIteration:
            raise UpstreamError("The model's server answered nothing; try again.", code="upstream_cut") from None
        milliseconds = round((steady_now() - self._began) * 1000, 1)
        self._note["first_ms"] = milliseconds
        deployment.health.first(milliseconds)
        deployment.health.usual.began(self._kind, milliseconds / 1000)
        return event

    def _patience(self, deployment: Deployment) -> tuple[float | None, float | None]:
        """Seconds to wait for its first word, and for each further one: what its operator set, or what is usual of it.

        Longer where no other call would be made in place of this one.
        """
        usual, is_spent = deployment.health.usual, self._router.budget.is_spent
        is_last = is_spent or self._tries >= self._router.tries_of(self._route)
        first = deployment.first_token or usual.first(self._kind, tries=self._tries, is_last=is_last)
        silence = deployment.silence or usual.silence(self._kind, is_last=is_spent or self._request.is_last_try)
        return first, silence

    def _left(self, deployment: Deployment, now: float) -> float | None:
        """Seconds that this try may take.

        Raises:
            ModelTimeout: none are left.
        """
        left = None if self._deadline is None else self._deadline - now
        if left is not None and left <= 0:
            raise ModelTimeout("The model's servers did not answer within the time that this call may take.")
        return min((each for each in (left, deployment.timeout) if each is not None), default=None)

    async def _rest_before_next(
        self, error: AssistantError, candidates: list[tuple[Deployment, str]], asked: set[str]
    ) -> None:
        """Wait until the next try is due; raise the error when there is none."""
        now = steady_now()
        if self._tries >= self._router.tries_of(self._route) or not self._router.budget.take():
            raise error
        fresh = [each for each, _ in candidates if each.name not in asked and each.unavailable_for(now) <= 0]
        if any(not each.is_quiet(now) for each in fresh):
            return
        wait = wait_before(self._tries - 1, error.retry_after)
        if wait is None or (self._deadline is not None and now + wait >= self._deadline):
            raise error
        await asyncio.sleep(wait)
        if all(each.unavailable_for(steady_now()) > 0 for each, _ in candidates):
            raise error

    # evidence

    def finished(self, event: Finished) -> Finished:
        """The event, with what the router knows of it."""
        deployment = self._deployment
        assert deployment is not None
        usage = event.usage or Usage()
        cost = deployment.prices.of(usage)
        self._judge(deployment, "succeeded")
        deployment.health.usual.ended(self._kind, event.longest_silence)
        deployment.health.counted(usage, cost)
        self._note |= {"cost": cost, "model": event.model, "input_tokens": usage.input_tokens}
        self._note |= {"cached_tokens": usage.cached_tokens, "output_tokens": usage.output_tokens, "outcome": "ok"}
        return replace(event, deployment=deployment.name, cost=cost, tries=self._tries)

    def broke(self, error: AssistantError) -> None:
        """The answer broke off after its first event: evidence, but the turn engine's to mend."""
        if "outcome" not in self._note:
            self._failed(error)

    async def end(self) -> None:
        """The try is over, however it went."""
        deployment, self._deployment = self._deployment, None
        if deployment is None:
            return
        deployment.health.in_flight -= 1
        if "outcome" not in self._note:
            self._note["outcome"] = LEFT
            deployment.health.breaker.let_go()
        self._note["ms"] = round((steady_now() - self._began) * 1000, 1)
        aclose: Callable[[], Awaitable[None]] | None = getattr(self.events, "aclose", None)
        if aclose is not None:
            await aclose()

    def _failed(self, error: AssistantError) -> None:
        deployment = self._deployment
        assert deployment is not None
        health, now = deployment.health, steady_now()
        self._note |= {"outcome": "failed", "status": error.status, "error": error.code or error.type}
        if isinstance(error, RateLimited):
            quiet = QUIET_AFTER_REFUSAL if error.retry_after is None else min(LONGEST_QUIET, error.retry_after)
            health.quieten(now + quiet)
            health.breaker.let_go()
        elif is_retryable(error):
            health.failures += 1
            if isinstance(error, ModelTimeout):
                health.usual.lost(self._kind)
            self._judge(deployment, "failed")
        else:
            self._judge(deployment, "succeeded")  # it works: it is the request that it refused

    @staticmethod
    def _judge(deployment: Deployment, verdict: Literal["succeeded", "failed"]) -> None:
        breaker = deployment.health.breaker
        before = breaker.state
        getattr(breaker, verdict)(steady_now())
        if breaker.state != before:
            log.warning("breaker.changed", extra={"deployment": deployment.name, "state": breaker.state})
            signals.measure(names.BREAKER, STATES.index(breaker.state), **{names.DEPLOYMENT: deployment.name})

    def _write(self, note: Json, now: float) -> Json:
        origin = self._request.origin
        note["at"] = now
        if origin is not None and len(origin.calls) < MOST_NOTED:
            origin.calls.append(note)
        return note


async def _nothing() -> AsyncGenerator[ModelEvent]:
    return
    yield


def _draw(*parts: str) -> float:
    """A number in (0, 1) that is the same for the same parts; random without anything to stick to."""
    if not parts[0]:
        return random.random() or 0.5  # noqa: S311 - a choice, not a secret
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 1) / (2**64 + 1)


def _everyone(route: Route) -> list[Deployment]:
    return [*route.all(), *([route.shadow.deployment] if route.shadow else [])]


def _share(share: Any) -> Json | None:
    return {"deployment": share.deployment.name, "percent": share.percent} if share else None


def _described(each: Deployment) -> Json:
    prices = each.prices
    return {
        "upstream": each.upstream,
        "kind": each.kind,
        "region": each.region or None,
        "retires": each.retires.isoformat() if each.retires else None,
        "prices": {"input": prices.input, "cached": prices.cached, "output": prices.output},
        **each.health.figures(),
    }
