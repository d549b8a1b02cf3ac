"""Routers and embedders from what the operator has set: routes that are written down, or the few simple settings."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.clock import Clock
from shared.models.base import Embedder, Json, Model
from shared.models.deployment import Capabilities, Deployment, Health, Prices, Route, Share, Step
from shared.models.embeddings import OfflineEmbedder, OpenAIEmbedder
from shared.models.endpoint import Catalog, Endpoint, azure_endpoint, openai_endpoint
from shared.models.gate import Gate
from shared.models.offline import OFFLINE_MODELS, OfflineModel
from shared.models.openai import ChatUpstream, OpenAIModel, ResponsesUpstream
from shared.models.router import DEFAULT_MODEL, Router, Source, Table
from shared.models.routes import OFFLINE, DeploymentSchema, ModelSchema, RoutesSchema, ShareSchema, parse_routes
from shared.models.shadow import Keep
from shared.models.transport import Transport
from shared.settings import ModelSettings, Secret, SettingsError

_NO_CHAT = ("embed", "whisper", "tts", "dall-e", "image", "moderation", "transcribe", "audio", "realtime", "babbage")
"""What the names of models that do not chat contain; OpenAI's own list gives no better sign."""
_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")

type ReadRoutes = Callable[[], Awaitable[str | None]]
"""The routes that an operator has put into the store, as text; None: none."""


def build_router(
    settings: ModelSettings,
    *,
    transport: Transport | None = None,
    clock: Clock | None = None,
    read_routes: ReadRoutes | None = None,
    keep_shadow: Keep | None = None,
) -> Router:
    """The routes that the settings mean: those that are written down, in the store or by COMPANION_ROUTES; else:

    Azure OpenAI, if set: its deployment OPENAI_MODEL is `companion`. Else an OpenAI-compatible server, if a URL or key
    is set: its models go by their own names, and `companion` is OPENAI_MODEL or the first it lists. Else the offline
    model.

    Raises:
        SettingsError: a setting is missing, or the routes cannot be used.
    """
    maker = TableMaker(settings, transport=transport, clock=clock)
    text = maker.given()
    table = maker.written(text) if text else maker.simple()
    is_changing = read_routes is not None or maker.is_file
    source = Source(maker.loader(table, read_routes), settings.routes_refresh) if is_changing else None
    return Router(
        table=table, source=source, clock=clock, gate=Gate(most=settings.concurrency), keep_shadow=keep_shadow
    )


def build_embedder(settings: ModelSettings) -> Embedder:
    """Embeddings of the same server; `companion` means the model that OPENAI_MODEL names."""
    endpoint = simple_endpoint(settings)
    if endpoint is None:
        return OfflineEmbedder()
    names = {DEFAULT_MODEL: settings.model} if settings.model else {}
    return OpenAIEmbedder(endpoint, names=names)


_UPSTREAMS: dict[str, type[OpenAIModel]] = {"chat": ChatUpstream, "responses": ResponsesUpstream}


def simple_endpoint(settings: ModelSettings) -> Endpoint | None:
    """The one server that the simple settings name; None: the offline model."""
    if settings.azure_endpoint:
        if not settings.model:
            raise SettingsError("OPENAI_MODEL must name the deployment to use at AZURE_OPENAI_ENDPOINT")
        return azure_endpoint(settings.azure_endpoint, settings.azure_api_key, client_id=settings.client_id)
    if settings.base_url or settings.api_key:
        return openai_endpoint(settings.base_url, settings.api_key)
    return None


class TableMaker:
    """Makes tables of routes; what two of them share keeps its connections and its evidence."""

    def __init__(self, settings: ModelSettings, *, transport: Transport | None, clock: Clock | None) -> None:
        self._settings = settings
        self._transport = transport or Transport(total=settings.timeout)
        self._clock = clock
        self._made: dict[tuple[str, str], tuple[Model, Health]] = {}
        self._file_seen: tuple[int, int] | None = None
        self._file_text = ""

    @property
    def is_file(self) -> bool:
        """Whether COMPANION_ROUTES names a file."""
        text = self._settings.routes
        return bool(text) and not text.lstrip().startswith("{")

    def given(self) -> str:
        """What COMPANION_ROUTES says, or the file it names; read again only when it has changed.

        Raises:
            SettingsError: there is no such file.
        """
        if not self.is_file:
            return self._settings.routes
        path = Path(self._settings.routes)
        try:
            stat = path.stat()
            seen = (stat.st_mtime_ns, stat.st_size)
            if seen != self._file_seen:
                self._file_text, self._file_seen = path.read_text(), seen
        except OSError as exc:
            raise SettingsError(f"COMPANION_ROUTES names a file that cannot be read: {exc}") from None
        return self._file_text

    def loader(self, first: Table, read_routes: ReadRoutes | None) -> Callable[[Table | None], Awaitable[Table]]:
        """Gives the table in force while nothing has changed, else a new one."""
        plain = first

        async def load(now: Table | None) -> Table:
            nonlocal plain
            stored = await read_routes() if read_routes is not None else None
            text = stored or self.given()
            if now is not None and text == now.source:
                return now
            if not text:
                plain = plain if not plain.source else self.simple()
                return plain
            return self.written(text, source="The stored routes" if stored else "COMPANION_ROUTES")

        return load

    # as written

    def written(self, text: str, *, source: str = "COMPANION_ROUTES") -> Table:
        """A table from routes that are written down; raises `SettingsError`."""
        schema = parse_routes(text, source=source)
        deployments = {name: self._deployment(name, each) for name, each in schema.deployments.items()}
        routes = {name: self._route(name, model, deployments) for name, model in schema.models.items()}
        described = f"{len(schema.models)} models over {len(schema.deployments)} deployments ({source})"
        return Table(routes=routes, aliases=self._aliases(schema), description=described, source=text)

    @staticmethod
    def _aliases(schema: RoutesSchema) -> dict[str, str]:
        if DEFAULT_MODEL in schema.models or DEFAULT_MODEL in schema.aliases:
            return schema.aliases
        return {**schema.aliases, DEFAULT_MODEL: next(iter(schema.models))}

    def _route(self, name: str, model: ModelSchema, deployments: dict[str, Deployment]) -> Route:
        steps = tuple(
            Step(
                choices=tuple(
                    (deployments[each], weight)
                    for each, weight in ({step: 1.0} if isinstance(step, str) else step).items()
                )
            )
            for step in model.chain
        )
        windows = [deployment.capabilities.window for step in steps for deployment, _ in step.choices]
        return Route(
            id=name,
            steps=steps,
            canary=_share(model.canary, deployments),
            shadow=_share(model.shadow, deployments),
            window=model.window or min(windows),
        )

    def _deployment(self, name: str, schema: DeploymentSchema) -> Deployment:
        key = (name, schema.digest())
        if key not in self._made:
            self._made[key] = (self._model(schema), Health())
        model, health = self._made[key]
        able = schema.capabilities.model_dump()
        able["window"] = able["window"] or self._settings.context_window
        return Deployment(
            name=name,
            upstream=schema.model,
            model=model,
            prices=Prices(**schema.prices.model_dump()) if schema.prices else Prices(),
            capabilities=Capabilities(**able),
            kind=schema.kind,
            provider=_provider(model),
            region=schema.region,
            retires=schema.retires,
            timeout=schema.timeout or self._settings.timeout,
            first_token=schema.first_token,
            silence=schema.silence,
            concurrency=schema.limits.concurrency,
            requests_per_minute=schema.limits.requests_per_minute,
            health=health,
        )

    def _model(self, schema: DeploymentSchema) -> Model:
        if schema.endpoint == OFFLINE:
            return OfflineModel(word_delay=self._settings.offline_delay, clock=self._clock)
        return _UPSTREAMS[schema.api](self._endpoint(schema), self._transport)

    def _endpoint(self, schema: DeploymentSchema) -> Endpoint:
        key = Secret((os.environ.get(schema.key) or "").strip() if schema.key else "")
        host = schema.endpoint.split("/")[2].split(":")[0]
        if host.endswith(_AZURE_HOSTS):
            return azure_endpoint(schema.endpoint, key, client_id=self._settings.client_id)
        return replace(openai_endpoint(schema.endpoint.rstrip("/"), key), setting=schema.key or "`key` of its route")

    # simple settings

    def simple(self) -> Table:
        """What the simple settings mean."""
        endpoint = simple_endpoint(self._settings)
        if endpoint is None:
            return self._offline()
        settings = self._settings
        upstream = _UPSTREAMS[settings.api](endpoint, self._transport)
        named = self._named(endpoint, upstream)
        server = f"{settings.model or 'the first model'} of {endpoint.host} ({settings.api})"
        if endpoint.kind == "azure":
            # Its list of models is what could be deployed, not what is.
            return Table(routes=named, description=server)
        discovery = _Discovery(Catalog(endpoint, self._transport), upstream, endpoint.host, settings)
        return Table(routes=named, discover=discovery.routes, holds=(upstream,), description=server)

    def _offline(self) -> Table:
        model = OfflineModel(word_delay=self._settings.offline_delay, clock=self._clock)
        window = self._settings.context_window
        routes = {
            name: Route(id=name, deployments=(_offline_deployment(name, model),), window=window)
            for name in OFFLINE_MODELS
        }
        return Table(routes=routes, description="offline: set OPENAI_API_KEY or OPENAI_BASE_URL for a real one")

    def _named(self, endpoint: Endpoint, upstream: Model) -> dict[str, Route]:
        settings = self._settings
        if not settings.model:
            return {}
        chain = (_simple_deployment(endpoint.host, settings.model, upstream),)
        window = settings.context_window
        return {
            DEFAULT_MODEL: Route(id=DEFAULT_MODEL, deployments=chain, window=window),
            settings.model: Route(id=settings.model, deployments=chain, window=window, owned_by=endpoint.host),
        }


def _share(schema: ShareSchema | None, deployments: dict[str, Deployment]) -> Share | None:
    return Share(deployment=deployments[schema.deployment], percent=schema.percent) if schema else None


def _offline_deployment(name: str, model: Model) -> Deployment:
    """One caller may tell it to fail; the next is answered all the same."""
    return Deployment(name="offline", upstream=name, model=model, provider=OFFLINE, is_left_alone=False)


def _simple_deployment(host: str, name: str, upstream: Model) -> Deployment:
    return Deployment(name=f"{host}/{name}", upstream=name, model=upstream, provider=_provider(upstream))


def _provider(model: Model) -> str:
    return model.provider if isinstance(model, OpenAIModel) else OFFLINE


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
        deployment = _simple_deployment(self._host, upstream or name, self._upstream)
        known: Any = {key: entry[key] for key in ("created", "owned_by") if key in entry}
        return Route(id=name, deployments=(deployment,), window=self._settings.context_window, **known)


def _chats(name: str) -> bool:
    return not any(word in name.lower() for word in _NO_CHAT)
