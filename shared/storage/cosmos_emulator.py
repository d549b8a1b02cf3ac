"""What emulators of Cosmos DB need that the cloud does not; used only for an endpoint on this machine.

The npm emulator `@vercel/cosmosdb-server` (1.0.1) answers the wire protocol with these differences, met here so that
the adapter itself stays written for the service. What cannot be met is listed in the contract suite.

- Containers are made by nobody: `setup` does.
- A batch wants the partition key beside each operation, where the service reads the header.
- A failed batch keeps what it did before it failed: so its conditions are looked up before it is sent, and one process
  sends one write at a time.
- Reading a document that is not there fails (500), unless the request carries a header meant for queries.
- A query ignores the partition key given beside it, so its text must name it.
- A composite index serves only the very order it is written in, so each is made twice.
- Its TLS certificate is self-signed, and the address it advertises is not the one it listens on.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from shared.storage.base import AlreadyExists, Create, Delete, Missing, Operation, Replace, Stale
from shared.storage.cosmos import Service, container_definitions

if TYPE_CHECKING:
    from azure.core.pipeline import PipelineRequest
    from azure.cosmos.aio import ContainerProxy, CosmosClient

_PARTITION_KEY = "x-ms-documentdb-partitionkey"


class Emulator(Service):
    """See the module."""

    key = "ZW11bGF0b3I="
    """Any key will do where none is set: this emulator checks none."""
    names_partition = True

    def __init__(self) -> None:
        self._writing = asyncio.Lock()
        self.options: Mapping[str, Any] = {
            "connection_verify": False,
            "enable_endpoint_discovery": False,
            "raw_request_hook": _adapt,
        }

    async def setup(self, client: "CosmosClient", database: str) -> None:
        from azure.cosmos import PartitionKey  # noqa: PLC0415
        from azure.cosmos.exceptions import CosmosResourceExistsError  # noqa: PLC0415

        with contextlib.suppress(CosmosResourceExistsError):
            await client.create_database(database)
        proxy = client.get_database_client(database)
        for definition in container_definitions():
            with contextlib.suppress(CosmosResourceExistsError):
                await proxy.create_container(
                    definition["id"],
                    PartitionKey(path=definition["partitionKey"]["paths"][0]),
                    indexing_policy=_both_orders(definition["indexingPolicy"]),
                    default_ttl=definition.get("defaultTtl"),
                )

    @contextlib.asynccontextmanager
    async def writing(
        self, proxy: "ContainerProxy", partition: str, operations: Sequence[Operation]
    ) -> AsyncGenerator[None]:
        async with self._writing:
            if len(operations) > 1:
                await _rehearse(proxy, partition, operations)
            yield


def _adapt(request: "PipelineRequest[Any]") -> None:
    """Change a request on its way out."""
    http = request.http_request
    if http.headers.get("x-ms-cosmos-is-batch-request"):
        operations = orjson.loads(http.body)
        for operation in operations:
            operation["partitionKey"] = http.headers[_PARTITION_KEY]
        http.set_bytes_body(orjson.dumps(operations))
    elif http.method == "GET" and "/docs/" in http.url:
        http.headers["x-ms-documentdb-query-enablecrosspartition"] = "True"


def _both_orders(policy: dict[str, Any]) -> dict[str, Any]:
    reverse = [[part | {"order": "descending"} for part in index] for index in policy["compositeIndexes"]]
    return policy | {"compositeIndexes": policy["compositeIndexes"] + reverse}


async def _rehearse(proxy: "ContainerProxy", partition: str, operations: Sequence[Operation]) -> None:
    """Raise what the batch would fail with, before anything of it is written."""
    ids = {operation.id if isinstance(operation, Delete) else operation.body["id"] for operation in operations}
    etags = {id_: await _etag(proxy, partition, id_) for id_ in ids}
    for index, operation in enumerate(operations):
        id_ = operation.id if isinstance(operation, Delete) else operation.body["id"]
        etag = etags[id_]
        if isinstance(operation, Create) and etag is not None:
            raise AlreadyExists(index, id_)
        if isinstance(operation, Replace | Delete):
            if etag is None:
                raise Missing(index, id_)
            if operation.etag not in (None, etag):
                raise Stale(index, id_)
        etags[id_] = None if isinstance(operation, Delete) else f"of operation {index}"


async def _etag(proxy: "ContainerProxy", partition: str, id_: str) -> str | None:
    from azure.cosmos.exceptions import CosmosResourceNotFoundError  # noqa: PLC0415

    try:
        return (await proxy.read_item(id_, partition))["_etag"]
    except CosmosResourceNotFoundError:
        return None
