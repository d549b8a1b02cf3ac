"""Which deployment answers a model's name. A model around models, so that the turn engine sees one.

A route maps a name that clients use to an ordered chain of deployments. Today the first of the chain is asked;
retries, fallback, weights and the circuit breaker belong into `Router.stream` and nowhere else.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.clock import Clock
from shared.errors import NotFound, UpstreamError
from shared.models.base import Embedder, Finished, Json, Model, ModelEvent, ModelRequest
from shared.models.embeddings import OfflineEmbedder, OpenAIEmbedder
from shared.models.endpoint import Catalog, Endpoint, azure_endpoint, openai_endpoint
from shared.models.offline import OFFLINE_MODELS, OfflineModel
from shared.models.openai import ChatUpstream, OpenAIModel, ResponsesUpstream
from shared.models.transport import Transport
from shared.settings import ModelSettings, SettingsError

DEFAULT_MODEL = "companion"
DEFAULT_WINDOW = 128_000
SINCE = 1_767_225_600
"""`created` of the names that are ours: 1 January 2026."""

_NO_CHAT = ("embed", "whisper", "tts", "dall-e", "image", "moderation", "transcribe", "audio", "realtime", "babbage")
"""What the names of models that do not chat contain; OpenAI's own list gives no better sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A named place that serves a language model."""

    name: str
    """For logs, usage and `Finished.deployment`."""
    upstream: str
    """What the model is called there."""
    model: Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model's name, as clients say it, and where it leads."""

    id: str
    deployments: tuple[Deployment, ...]
    owned_by: str = "companion"
    created: int = SINCE
    window: int = DEFAULT_WINDOW
    """Tokens of input and output together."""

    def entry(self) -> Json:
        """As `GET /v1/models` shows it."""
        return {"id": self.id, "object": "model", "created": self.created, "owned_by": self.owned_by}


type Discover = Callable[[], Awaitable[dict[str, Route]]]


class Router:
    """The models of this app, by name."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        discover: Discover | None = None,
        holds: Sequence[Model] = (),
        description: str = "",
    ) -> None:
        """`holds` are the models behind routes yet to be discovered; they are closed with the router."""
        self._routes = {route.id: route for route in routes}
        self._discover = discover
        self._description = description
        models = [*holds, *(deployment.model for route in routes for deployment in route.deployments)]
        self._models = {id(model): model for model in models}

    @classmethod
    def over(cls, model: Model, *names: str) -> "Router":
        """One model behind some names (`companion`, if none is given): for tests and simulations."""
        return cls(
            [_route(name, Deployment(name="only", upstream=name, model=model)) for name in names or ("companion",)]
        )

    async def resolve(self, model: str) -> str:
        """The name under which `stream` will know it.

        Raises:
            NotFound: no such model (`model_not_found`).
            AssistantError: the upstream that would know cannot be asked.
        """
        return (await self.route(model)).id

    async def route(self, model: str) -> Route:
        """Raises as `resolve` does."""
        route = self._routes.get(model) or (await self._discovered()).get(model)
        if route is None:
            raise NotFound(f"The model {model!r} does not exist.", code="model_not_found", param="model")
        return route

    async def models(self) -> list[Json]:
        """The models to choose from, the default first; raises when the upstream that knows them cannot be asked."""
        routes = {**self._routes, **await self._discovered()}
        first = [routes.pop(DEFAULT_MODEL)] if DEFAULT_MODEL in routes else []
        return [route.entry() for route in (*first, *routes.values())]

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See `Model`; `request.model` is a name that `resolve` gave."""
        route = await self.route(request.model)
        deployment = route.deployments[0]
        events = deployment.model.stream(replace(request, model=deployment.upstream))
        try:
            async for event in events:
                yield replace(event, deployment=deployment.name) if type(event) is Finished else event
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    def describe(self) -> str:
        """One line for the start banner."""
        return self._description or ", ".join(self._routes)

    async def close(self) -> None:
        for model in self._models.values():
            await model.close()

    async def _discovered(self) -> dict[str, Route]:
        if self._discover is None:
            return {}
        try:
            return await self._discover()
        except UpstreamError:
            # Not every server lists its models; what the operator named works without.
            if not self._routes:
                raise
            return {}


def _route(name: str, deployment: Deployment, **changes: Any) -> Route:
    return Route(id=name, deployments=(deployment,), **changes)


# from settings


def build_router(settings: ModelSettings, *, transport: Transport | None = None, clock: Clock | None = None) -> Router:
    """The routes that the settings mean.

    Azure OpenAI, if set: its deployment OPENAI_MODEL is `companion`. Else an OpenAI-compatible server, if a URL or key
    is set: its models go by their own names, and `companion` is OPENAI_MODEL or the first it lists. Else the offline
    model.

    Raises:
        SettingsError: a setting is missing.
    """
    endpoint = _endpoint(settings)
    if endpoint is None:
        return _offline_router(settings, clock)
    transport = transport or Transport(total=settings.timeout)
    upstream = _UPSTREAMS[settings.api](endpoint, transport)
    named = _named_routes(settings, endpoint, upstream)
    server = f"{settings.model or 'the first model'} of {endpoint.host} ({settings.api})"
    if endpoint.kind == "azure":
        # Its list of models is what could be deployed, not what is.
        return Router(named, description=server)
    catalog = Catalog(endpoint, transport)
    discovery = _Discovery(catalog, upstream, endpoint.host, settings)
    return Router(named, discover=discovery.routes, holds=(upstream,), description=server)


def build_embedder(settings: ModelSettings) -> Embedder:
    """Embeddings of the same server; `companion` means the model that OPENAI_MODEL names."""
    endpoint = _endpoint(settings)
    if endpoint is None:
        return OfflineEmbedder()
    names = {DEFAULT_MODEL: settings.model} if settings.model else {}
    return OpenAIEmbedder(endpoint, names=names)


_UPSTREAMS: dict[str, type[OpenAIModel]] = {"chat": ChatUpstream, "responses": ResponsesUpstream}


def _endpoint(settings: ModelSettings) -> Endpoint | None:
    if settings.azure_endpoint:
        if not settings.model:
            raise SettingsError("OPENAI_MODEL must name the deployment to use at AZURE_OPENAI_ENDPOINT")
        return azure_endpoint(settings.azure_endpoint, settings.azure_api_key, client_id=settings.client_id)
    if settings.base_url or settings.api_key:
        return openai_endpoint(settings.base_url, settings.api_key)
    return None


def _offline_router(settings: ModelSettings, clock: Clock | None) -> Router:
    model = OfflineModel(word_delay=settings.offline_delay, clock=clock)
    routes = [
        _route(name, Deployment(name="offline", upstream=name, model=model), window=settings.context_window)
        for name in OFFLINE_MODELS
    ]
    return Router(routes, description="offline: set OPENAI_API_KEY or OPENAI_BASE_URL for a real one")


def _named_routes(settings: ModelSettings, endpoint: Endpoint, upstream: Model) -> list[Route]:
    if not settings.model:
        return []
    deployment = _deployment(endpoint.host, settings.model, upstream)
    window = settings.context_window
    return [
        _route(DEFAULT_MODEL, deployment, window=window),
        _route(settings.model, deployment, window=window, owned_by=endpoint.host),
    ]


def _deployment(host: str, name: str, upstream: Model) -> Deployment:
    return Deployment(name=f"{host}/{name}", upstream=name, model=upstream)


class _Discovery:
    """Routes for what a server lists, made again when its list has changed."""

    def __init__(self, catalog: Catalog, upstream: Model, host: str, settings: ModelSettings) -> None:
        self._catalog = catalog
        self._upstream = upstream
        self._host = host
        self._settings = settings
        self._listed: list[Json] = []
        self._routes: dict[str, Route] = {}

    async def routes(self) -> dict[str, Route]:
        """By name; `companion` is the first that chats, unless OPENAI_MODEL says which."""
        listed = await self._catalog.models()
        if listed is not self._listed:
            self._routes = {entry["id"]: self._route(entry["id"], entry) for entry in listed}
            first = next((entry["id"] for entry in listed if _chats(entry["id"])), None)
            if first and not self._settings.model:
                self._routes.setdefault(DEFAULT_MODEL, self._route(DEFAULT_MODEL, {}, upstream=first))
            self._listed = listed
        return self._routes

    def _route(self, name: str, entry: Json, *, upstream: str = "") -> Route:
        deployment = _deployment(self._host, upstream or name, self._upstream)
        known = {key: entry[key] for key in ("created", "owned_by") if key in entry}
        return _route(name, deployment, window=self._settings.context_window, **known)


def _chats(name: str) -> bool:
    return not any(word in name.lower() for word in _NO_CHAT)
