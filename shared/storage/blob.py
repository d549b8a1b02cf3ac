"""Blobs in Azure Blob Storage: one container, a virtual folder for each owner."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from shared.errors import StorageUnavailable
from shared.settings import StorageSettings
from shared.storage.identity import azure_identity
from shared.storage.rules import blob_path

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.storage.blob.aio import ContainerClient

CONTAINER = "blobs"
"""Made by the templates in the cloud, by this adapter where a connection string says Azurite."""
LIMIT = 30.0
"""Seconds one operation may take, its retries included; blobs are up to tens of megabytes."""
CONNECT_SECONDS = 3
READ_SECONDS = 8
BLOCK = 2**20
"""Bytes sent at once; aiohttp writes each such piece without yielding to the event loop."""
PARALLEL = 4
"""Blocks of one blob under way at a time."""


class AzureBlobStore:
    """A `BlobStore` in a storage account: keyless by the settings' endpoint, or by connection string for Azurite."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._client: ContainerClient | None = None
        self._credential: AsyncTokenCredential | None = None

    async def put(self, owner: str, name: str, data: bytes, *, content_type: str) -> None:
        from azure.storage.blob import ContentSettings  # noqa: PLC0415

        path = blob_path(owner, name)
        async with _limit():
            client = await self._open()
            await client.upload_blob(
                path,
                data,
                overwrite=True,
                content_settings=ContentSettings(content_type=content_type),
                max_concurrency=PARALLEL,
            )

    async def get(self, owner: str, name: str) -> tuple[bytes, str] | None:
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415

        path = blob_path(owner, name)
        async with _limit():
            client = await self._open()
            try:
                download = await client.download_blob(path)
                return await download.readall(), download.properties.content_settings.content_type or ""
            except ResourceNotFoundError:
                return None

    async def delete(self, owner: str, name: str) -> None:
        await self._delete(blob_path(owner, name))

    async def list(self, owner: str) -> AsyncIterator[str]:
        for path in await self._paths(owner):
            yield unquote(path.partition("/")[2])

    async def erase(self, owner: str) -> int:
        paths = await self._paths(owner)
        return sum([await self._delete(path) for path in paths])

    async def ping(self) -> None:
        async with _limit():
            client = await self._open()
            await client.get_container_properties()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        credential, self._credential = self._credential, None
        if credential is not None:
            await credential.close()

    async def _paths(self, owner: str) -> Sequence[str]:
        async with _limit():
            client = await self._open()
            return [path async for path in client.list_blob_names(name_starts_with=f"{blob_path(owner)}/")]

    async def _delete(self, path: str) -> bool:
        """False when it was not there."""
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415

        async with _limit():
            client = await self._open()
            try:
                await client.delete_blob(path)
            except ResourceNotFoundError:
                return False
            return True

    async def _open(self) -> "ContainerClient":
        """The process's one client, made at first use."""
        async with self._opening:
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> "ContainerClient":
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415
        from azure.storage.blob.aio import ContainerClient  # noqa: PLC0415

        options: dict[str, Any] = {
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retry_total": 2,
            "retry_connect": 1,
            "initial_backoff": 1,
            "max_single_put_size": BLOCK,
            "max_block_size": BLOCK,
        }
        connection_string = self._settings.connection_string.reveal()
        if not connection_string:
            self._credential = self._credential or azure_identity(self._settings.client_id)
            return ContainerClient(self._settings.blob_endpoint, CONTAINER, self._credential, **options)
        client = ContainerClient.from_connection_string(connection_string, CONTAINER, **options)
        try:
            with contextlib.suppress(ResourceExistsError):
                await client.create_container()
        except BaseException:
            await client.close()
            raise
        return client


@contextlib.asynccontextmanager
async def _limit() -> AsyncGenerator[None]:
    """Bound an operation's time, and turn the SDK's errors into the port's."""
    from azure.core.exceptions import AzureError  # noqa: PLC0415

    try:
        async with asyncio.timeout(LIMIT):
            yield
    except AzureError as exc:
        raise StorageUnavailable(f"The blob service cannot be used now ({type(exc).__name__}); try again.") from exc
    except TimeoutError as exc:
        raise StorageUnavailable(f"The blob service took longer than {LIMIT:g} s; try again.") from exc
