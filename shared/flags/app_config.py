"""Flags in Azure App Configuration, by managed identity; read again every half minute, beside the turns."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from shared.clock import Clock
from shared.flags.base import Assignment
from shared.flags.evaluate import Evaluator
from shared.principal import Principal

log = logging.getLogger("companion.flags")

RELOAD_SECONDS = 30.0
TOO_OLD_SECONDS = 55.0
"""Older flags are not used without an attempt to read them: a host may have slept."""
PATIENCE_SECONDS = 2.0
"""How long a turn waits for that attempt."""
READ_SECONDS = 15.0

type Open = Callable[[], Awaitable[Any]]
"""Gives an `AzureAppConfigurationProvider` that has read its store."""


class AppConfigFlags:
    """See `Flags`. A store that cannot be reached leaves the flags as they were; none were read yet: no flags."""

    def __init__(self, endpoint: str, clock: Clock, *, client_id: str = "", open_: Open | None = None) -> None:
        self._endpoint = endpoint
        self._client_id = client_id
        self._clock = clock
        self._open = open_ or self._connect
        self._credential: Any = None
        self._provider: Any = None
        self._content: Any = None
        self._read: float | None = None
        self._tried: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._flags: Evaluator | None = None

    async def fresh(self) -> None:
        now = self._clock.now()
        if self._task is None and (self._tried is None or now - self._tried >= RELOAD_SECONDS):
            self._tried = now
            self._task = asyncio.create_task(self._reload())
        is_too_old = self._read is None or now - self._read >= TOO_OLD_SECONDS
        if self._task is not None and is_too_old:
            await asyncio.wait([self._task], timeout=PATIENCE_SECONDS)

    def assign(self, flag: str, caller: Principal) -> Assignment | None:
        return self._flags.assign(flag, caller) if self._flags is not None else None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for closable in (self._provider, self._credential):
            if closable is not None:
                await closable.close()
        self._provider = self._credential = None

    async def _reload(self) -> None:
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - only where App Configuration is used

        try:
            async with asyncio.timeout(READ_SECONDS):
                if self._provider is None:
                    self._provider = await self._open()
                else:
                    await self._provider.refresh()
            self._take(self._provider.get("feature_management"))
        except (AzureError, TimeoutError, ValueError, OSError) as error:
            log.warning("flags.unreadable", extra={"endpoint": self._endpoint, "reason": type(error).__name__})
        finally:
            self._task = None

    def _take(self, content: Any) -> None:
        if content is not self._content or self._flags is None:
            self._flags = Evaluator({"feature_management": content or {"feature_flags": []}})
            self._content = content
            log.info("flags.read", extra={"flags": sorted(self._flags.names)})
        self._read = self._clock.now()

    async def _connect(self) -> Any:
        from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415

        self._credential = DefaultAzureCredential(managed_identity_client_id=self._client_id or None)
        return await load_flags(endpoint=self._endpoint, credential=self._credential)


async def load_flags(**connection: Any) -> Any:
    """A provider that reads flags alone; `connection` as `azure.appconfiguration.provider.aio.load` takes it."""
    from azure.appconfiguration.provider import SettingSelector  # noqa: PLC0415
    from azure.appconfiguration.provider.aio import load  # noqa: PLC0415  # pyright: ignore[reportUnknownVariableType]

    return await load(
        **connection,
        selects=[SettingSelector(key_filter="companion:none")],
        feature_flag_enabled=True,
        feature_flag_refresh_enabled=True,
        refresh_interval=1,  # how often is decided here
        startup_timeout=int(READ_SECONDS),
        replica_discovery_enabled=False,
        connection_timeout=5,
        read_timeout=5,
    )
