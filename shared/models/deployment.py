"""What a route is made of: deployments, what they can do, what they cost, and how they have been doing."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, cast

from shared.errors import InvalidRequest
from shared.models.base import Json, Model, ModelRequest, Usage
from shared.models.breaker import Breaker
from shared.models.usual import Usual

DEFAULT_WINDOW = 128_000
LEAST_OUTPUT = 16
"""Tokens of an answer that is worth a call."""
SINCE = 1_767_225_600
"""`created` of the names that are ours: 1 January 2026."""

_PER = 1_000_000


def steady_now() -> float:
    """The event loop's time: steady, and virtual where the loop's is."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """US dollars per million tokens.

    >>> Prices(input=1.0, cached=0.1, output=10.0).of(Usage(input_tokens=1000, cached_tokens=500, output_tokens=100))
    0.00155
    """

    input: float = 0.0
    output: float = 0.0
    cached: float | None = None
    """Of input tokens that the upstream's prompt cache had; None: as other input."""

    def of(self, usage: Usage) -> float:
        cached = self.input if self.cached is None else self.cached
        fresh = usage.input_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output) / _PER


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a deployment can do; a request that needs more is refused before the call, or goes to another."""

    vision: bool = True
    tools: bool = True
    reasoning: bool = True
    structured: bool = True
    prefix: bool = False
    """Can go on with an answer that another call began."""
    window: int = DEFAULT_WINDOW
    """Tokens of input and output together."""

    def lacking(self, request: ModelRequest) -> tuple[str, str] | None:
        """What the request needs and is not there: a word for it, and the parameter; None: nothing."""
        text: Json = request.text or {}
        format_of: Json = text.get("format") or {}
        format_: str = format_of.get("type", "text")
        if request.tools and not self.tools:
            return "tools", "tools"
        if format_ != "text" and not self.structured:
            return f"a text format of type {format_!r}", "text.format"
        if (request.reasoning or {}).get("effort") and not self.reasoning:
            return "reasoning effort", "reasoning.effort"
        if not self.vision and _shows_images(request.items):
            return "images", "input"
        if request.prefix is not None and not self.prefix:
            return "going on with an answer", "input"
        return None

    def has_room(self, request: ModelRequest) -> bool:
        """Whether input and answer fit its window, by estimate."""
        return request.tokens <= most_input(self.window, request.max_output_tokens)


def most_input(window: int, max_output_tokens: int | None) -> int:
    """Tokens of input that leave room for some answer."""
    return window - min(max_output_tokens or LEAST_OUTPUT, window // 2)


def _shows_images(items: list[Json]) -> bool:
    for item in items:
        parts: Any = item.get("content") if item.get("type", "message") == "message" else item.get("output")
        if isinstance(parts, list) and any(part.get("type") == "input_image" for part in cast(list[Json], parts)):
            return True
    return False


class Health:
    """How a deployment has been doing on this host, as far as its own calls tell."""

    __slots__ = (
        "_first_ms",
        "_minute",
        "_quiet_until",
        "breaker",
        "calls",
        "cost",
        "failures",
        "in_flight",
        "input_tokens",
        "output_tokens",
        "usual",
    )

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.usual = Usual()
        self.calls = 0
        self.failures = 0
        self.in_flight = 0
        self.cost = 0.0
        self.input_tokens = 0
        self.output_tokens = 0
        self._first_ms: deque[float] = deque(maxlen=500)
        self._minute: deque[float] = deque()
        self._quiet_until = 0.0

    def began(self, now: float) -> None:
        self.breaker.begin()
        self.calls += 1
        self.in_flight += 1
        self._minute.append(now)

    def first(self, milliseconds: float) -> None:
        self._first_ms.append(milliseconds)

    def counted(self, usage: Usage, cost: float) -> None:
        self.cost += cost
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens

    def quieten(self, until: float) -> None:
        """It asked not to be asked before then."""
        self._quiet_until = max(self._quiet_until, until)

    def quiet_for(self, now: float) -> float:
        return max(0.0, self._quiet_until - now)

    def calls_in_minute(self, now: float) -> int:
        while self._minute and self._minute[0] < now - 60:
            self._minute.popleft()
        return len(self._minute)

    def next_in_minute(self, now: float) -> float:
        """Seconds until the oldest call of this minute no longer counts."""
        return max(0.0, self._minute[0] + 60 - now) if self._minute else 0.0

    def figures(self) -> Json:
        """For the operator, of this host since its start."""
        ordered = sorted(self._first_ms)
        return {
            "calls": self.calls,
            "failures": self.failures,
            "in_flight": self.in_flight,
            "breaker": self.breaker.state,
            "first_token_ms": {
                "p50": _quantile(ordered, 0.5),
                "p95": _quantile(ordered, 0.95),
                "count": len(ordered),
            },
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": round(self.cost, 6),
            "cost_per_call": round(self.cost / self.calls, 8) if self.calls else None,
        }


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A named place that serves a language model."""

    name: str
    """For logs, usage and `Finished.deployment`."""
    upstream: str
    """What the model is called there."""
    model: Model
    prices: Prices = Prices()
    capabilities: Capabilities = Capabilities()
    kind: Literal["paygo", "provisioned"] = "paygo"
    provider: str = ""
    """Who serves it, in the words of the GenAI conventions where they have one: `openai`, `azure.ai.openai`, …"""
    region: str = ""
    retires: date | None = None
    """From this day on it gets no calls."""
    timeout: float | None = None
    """Seconds one call may take; None: as long as any call."""
    first_token: float | None = None
    """Seconds until the first event of a call, before another try is made; None: by what is usual of it."""
    silence: float | None = None
    """Seconds without a word in the middle of an answer, before it counts as cut; None: by what is usual of it."""
    concurrency: int | None = None
    """Calls at a time from one host."""
    requests_per_minute: int | None = None
    """From one host."""
    is_left_alone: bool = True
    """While it does not answer. False: where failing is what it was told to, for one caller and not for the next."""
    health: Health = field(default_factory=Health, compare=False)

    def unavailable_for(self, now: float) -> float:
        """Seconds until it may be asked; 0: now."""
        health = self.health
        if self.is_left_alone and not health.breaker.allows(now):
            return max(0.1, health.breaker.retry_after(now))
        if self.concurrency is not None and health.in_flight >= self.concurrency:
            return 0.5
        if self.requests_per_minute is not None and health.calls_in_minute(now) >= self.requests_per_minute:
            return max(0.1, health.next_in_minute(now))
        return 0.0

    def is_quiet(self, now: float) -> bool:
        """It asked for patience: others are asked first, while there are others."""
        return self.health.quiet_for(now) > 0

    def is_retired(self, today: date) -> bool:
        return self.retires is not None and today >= self.retires

    def can_answer(self, request: ModelRequest, today: date) -> bool:
        """Whether it is in service and can do what is asked."""
        return not self.is_retired(today) and self.capabilities.lacking(request) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of a route's calls, by percent, for another deployment."""

    deployment: Deployment
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Deployments of one rank, with their weights."""

    choices: tuple[tuple[Deployment, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model's name, as clients say it, and where it leads."""

    id: str
    deployments: tuple[Deployment, ...] = ()
    """Ordered: each is asked when those before it fail. Short for steps of one."""
    steps: tuple[Step, ...] = ()
    canary: Share | None = None
    """A new deployment, asked first for some conversations."""
    shadow: Share | None = None
    """A candidate that gets a copy of some calls; nobody sees its answers."""
    owned_by: str = "companion"
    created: int = SINCE
    window: int = DEFAULT_WINDOW
    """Tokens of input and output together."""

    def __post_init__(self) -> None:
        if not self.steps:
            steps = tuple(Step(choices=((deployment, 1.0),)) for deployment in self.deployments)
            object.__setattr__(self, "steps", steps)
        if not self.deployments:
            ranked = tuple(deployment for step in self.steps for deployment, _ in step.choices)
            object.__setattr__(self, "deployments", ranked)

    def entry(self) -> Json:
        """As `GET /v1/models` shows it."""
        return {"id": self.id, "object": "model", "created": self.created, "owned_by": self.owned_by}

    def all(self) -> list[Deployment]:
        """Every deployment that this name can lead to, those that only shadow aside."""
        return [*([self.canary.deployment] if self.canary else []), *self.deployments]


def refusal(route: Route, request: ModelRequest, today: date) -> InvalidRequest:
    """What to say when no deployment of a route can do what is asked."""
    in_service = [deployment for deployment in route.deployments if not deployment.is_retired(today)]
    for deployment in in_service:
        lacking = deployment.capabilities.lacking(request)
        if lacking is not None:
            what, param = lacking
            return InvalidRequest(
                f"The model {route.id!r} does not support {what}; leave it out or choose another model.",
                param=param,
                code="unsupported_parameter",
            )
    return InvalidRequest(
        f"The model {route.id!r} was retired: none of its deployments is in service; choose another model.",
        param="model",
        code="model_retired",
    )
