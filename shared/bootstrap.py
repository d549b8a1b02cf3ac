"""The composition root: the only place that picks adapters."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.app import App
from shared.clock import Clock, SystemClock
from shared.flags.base import Flags, NoFlags
from shared.identity.oidc import Oidc
from shared.ids import Ids, RandomIds
from shared.jobs.base import Queue
from shared.models.build import build_embedder, build_router, simple_endpoint
from shared.models.operator import routes_reader
from shared.models.shadow import shadow_keeper
from shared.safety.base import Guardrail, Moderator
from shared.safety.lexicon import Lexicon
from shared.settings import FlagSettings, Settings, SettingsError, StorageSettings
from shared.storage.base import BlobStore, Store
from shared.storage.large import LargeFieldStore
from shared.telemetry.logs import write_json
from shared.telemetry.signals import Exporter, signals
from shared.tools.builtin.clock import current_time
from shared.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from shared.safety.guard import Guardrails


def build_app(settings: Settings, **overrides: Any) -> App:
    """The app that the settings describe; each port can be given by keyword instead (`store=`, `models=`, …).

    Nothing is connected yet: adapters import their libraries and open their connections on first use.
    """
    _tell(settings)
    clock = overrides.pop("clock", None) or SystemClock()
    ids = overrides.pop("ids", None) or RandomIds()
    parts: dict[str, Any] = {
        "models": lambda: build_router(
            settings.model,
            clock=clock,
            read_routes=routes_reader(store),
            keep_shadow=shadow_keeper(store, clock, ids),
        ),
        "embedder": lambda: build_embedder(settings.model),
        "tools": lambda: _tools(clock),
        "flags": lambda: _flags(settings.flags, clock),
        "moderator": lambda: _moderator(settings),
        "guardrails": lambda: _guardrails(settings),
        "oidc": lambda: Oidc(settings.caller, clock),
        "host": lambda: f"{socket.gethostname()}-{ids.token()[:8]}",
    }
    blobs: BlobStore = overrides.setdefault("blobs", None) or _blobs(settings.storage)
    store: Store = overrides.setdefault("store", None) or LargeFieldStore(_store(settings.storage, clock), blobs, clock)
    overrides |= {"blobs": blobs, "store": store}
    parts["queue"] = lambda: _queue(settings.storage, store, clock, ids)
    built = {name: overrides.pop(name) if name in overrides else make() for name, make in parts.items()}
    return App(settings=settings, clock=clock, ids=ids, **built, **overrides)


def _tell(settings: Settings) -> None:
    """Where traces, metrics and logs go."""
    kind = settings.operation.telemetry
    if kind == "off":
        return
    write_json()

    def make() -> Exporter:
        from shared.telemetry.export import make_exporter  # noqa: PLC0415 - a third of a second, beside the work

        return make_exporter(kind, settings.operation.connection_string.reveal(), settings.storage.client_id)

    signals.configure(make)


def _store(settings: StorageSettings, clock: Clock) -> Store:
    if settings.cosmos_endpoint:
        from shared.storage.cosmos import CosmosStore  # noqa: PLC0415 - only where it is used

        return CosmosStore(settings)
    from shared.storage.sqlite import SqliteStore  # noqa: PLC0415

    folder = Path(settings.data)
    folder.mkdir(parents=True, exist_ok=True)
    return SqliteStore(str(folder / "companion.db"), clock)


def _blobs(settings: StorageSettings) -> BlobStore:
    if settings.blob_endpoint or settings.connection_string:
        from shared.storage.blob import AzureBlobStore  # noqa: PLC0415

        return AzureBlobStore(settings)
    from shared.storage.folder import FolderBlobStore  # noqa: PLC0415

    return FolderBlobStore(str(Path(settings.data) / "blobs"))


def _queue(settings: StorageSettings, store: Store, clock: Clock, ids: Ids) -> Queue:
    if settings.queue_endpoint or settings.connection_string:
        from shared.jobs.azure_queue import AzureQueue  # noqa: PLC0415

        return AzureQueue(settings)
    from shared.jobs.store_queue import StoreQueue  # noqa: PLC0415

    return StoreQueue(store, clock, ids)


def _flags(settings: FlagSettings, clock: Clock) -> Flags:
    if settings.endpoint:
        from shared.flags.app_config import AppConfigFlags  # noqa: PLC0415

        return AppConfigFlags(settings.endpoint, clock, client_id=settings.client_id)
    if settings.path:
        from shared.flags.file import FileFlags  # noqa: PLC0415

        return FileFlags(settings.path, clock)
    return NoFlags()


def _moderator(settings: Settings) -> Moderator:
    """What `POST /v1/moderations` asks: Content Safety where it is set, else OpenAI where that is the server."""
    if settings.safety.content_safety:
        return _content_safety(settings)
    endpoint = simple_endpoint(settings.model)
    return _openai_moderator(settings) if endpoint is not None and endpoint.kind == "openai" else Lexicon()


def _guardrails(settings: Settings) -> "Guardrails | None":
    """Those that COMPANION_GUARDRAILS names, in its order."""
    safety = settings.safety
    if not safety.guardrails:
        return None
    from shared.safety.guard import Guardrails  # noqa: PLC0415

    chosen: list[Guardrail] = []
    for name in safety.guardrails:
        if name == "rules":
            from shared.safety.rules import Rules  # noqa: PLC0415

            chosen.append(Rules(action=safety.action, allowed_hosts=safety.allowed_hosts))
        else:
            from shared.safety.moderated import Moderated  # noqa: PLC0415

            chosen.append(Moderated(_openai_moderator(settings) if name == "openai" else _content_safety(settings)))
    return Guardrails(chosen)


def _content_safety(settings: Settings) -> Moderator:
    from shared.safety.content_safety import ContentSafety  # noqa: PLC0415

    if not settings.safety.content_safety:
        raise SettingsError("COMPANION_CONTENT_SAFETY must be set for COMPANION_GUARDRAILS=content_safety")
    return ContentSafety(settings.safety.content_safety, client_id=settings.safety.client_id)


def _openai_moderator(settings: Settings) -> Moderator:
    from shared.safety.openai import OpenAIModerator  # noqa: PLC0415

    endpoint = simple_endpoint(settings.model)
    if endpoint is None or endpoint.kind == "azure":
        raise SettingsError("OPENAI_API_KEY or OPENAI_BASE_URL must be set for COMPANION_GUARDRAILS=openai")
    return OpenAIModerator(endpoint)


def _tools(clock: Clock) -> ToolRegistry:
    tools = [current_time(clock)]
    return ToolRegistry({tool.name: tool for tool in tools})
