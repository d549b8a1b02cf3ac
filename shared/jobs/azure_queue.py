"""The cloud's queue: Azure Storage. The Functions host receives; this adapter only sends."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from shared.errors import StorageUnavailable
from shared.jobs.base import Json, QueueName
from shared.settings import StorageSettings
from shared.storage.identity import azure_identity

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.storage.queue.aio import QueueClient

LIMIT = 10.0
"""Seconds one send may take, its retries included."""


class AzureQueue:
    """A `Queue` in a storage account: keyless by the settings' endpoint, or by connection string for Azurite."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._clients: dict[str, QueueClient] = {}
        self._credential: AsyncTokenCredential | None = None

    async def send(self, queue: QueueName, body: Json, *, delay: float = 0.0) -> None:
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - loaded on first use

        content = orjson.dumps(body).decode()  # as it is: host.json sets messageEncoding to none
        try:
            async with asyncio.timeout(LIMIT):
                client = await self._client(queue)
                await client.send_message(content, visibility_timeout=int(delay))
        except (AzureError, TimeoutError, OSError) as error:
            raise StorageUnavailable("The queue does not answer; try again.", retry_after=1) from error

    async def ping(self) -> None:
        from azure.core.exceptions import AzureError  # noqa: PLC0415

        try:
            async with asyncio.timeout(LIMIT):
                await (await self._client("turns")).get_queue_properties()
        except (AzureError, TimeoutError, OSError) as error:
            raise StorageUnavailable("The queue does not answer.") from error

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        if self._credential is not None:
            await self._credential.close()
            self._credential = None

    async def _client(self, queue: str) -> "QueueClient":
        if queue in self._clients:
            return self._clients[queue]
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415
        from azure.storage.queue.aio import QueueClient  # noqa: PLC0415

        connection = self._settings.connection_string.reveal()
        if connection:
            client = QueueClient.from_connection_string(connection, queue)
            try:  # the templates make the queues of the cloud; an emulator has none
                with suppress(ResourceExistsError):
                    await client.create_queue()
            except BaseException:
                await client.close()
                raise
        else:
            if self._credential is None:
                self._credential = azure_identity(self._settings.client_id)
            client = QueueClient(self._settings.queue_endpoint, queue, credential=self._credential)
        self._clients[queue] = client
        return client
