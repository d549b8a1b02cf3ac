"""The cloud's store: Cosmos DB through the stock `azure-cosmos` client.

One container for each of `base.CONTAINERS`; the partition key is `/pk`, which this adapter adds and takes away again.
The SDK is imported and its client made at first use: a cold start that needs no store does not pay for it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shared import telemetry
from shared.errors import InvalidRequest, StorageUnavailable
from shared.settings import StorageSettings
from shared.storage import rules
from shared.storage.base import (
    CONTAINERS,
    DIRECTORY,
    AlreadyExists,
    BatchFailed,
    Changed,
    ContainerSpec,
    Create,
    Delete,
    Document,
    Due,
    Missing,
    Operation,
    Query,
    Replace,
    Stale,
    Stored,
)
from shared.storage.identity import azure_identity

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.cosmos.aio import ContainerProxy, CosmosClient

LIMIT = 10.0
"""Seconds one operation may take, its retries included."""
CONNECT_SECONDS = 3
READ_SECONDS = 8
THROTTLED_RETRIES = 5
THROTTLED_SECONDS = 5
"""A 429 says how long to wait; more than this in all is passed on."""
CONFLICT_RETRIES = 3
"""Of a write that met another one at the same moment (449): it did not happen, so it may be sent again."""

_SYSTEM_FIELDS = ("pk", "_rid", "_self", "_etag", "_attachments", "_ts", "_lsn")
_FAILURES: dict[int | None, type[BatchFailed]] = {404: Missing, 409: AlreadyExists, 412: Stale}
_TRANSIENT = frozenset({401, 403, 408, 410, 429, 449})
_RETRY_WITH = 449
_TOO_LARGE = 413
_CHARGE = "x-ms-request-charge"


def is_local(endpoint: str) -> bool:
    """True for an emulator: an endpoint on this machine."""
    return urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1")


def container_definition(spec: ContainerSpec) -> dict[str, Any]:
    """A container as Azure's resource templates spell it: keys, expiry and what is indexed.

    Queries filter by kind (and group) and order by sort. Composite indexes over just those make them cost the same
    however long the partition is.
    """
    composite: list[tuple[str, ...]] = [("/kind", "/sort"), ("/kind", "/group", "/sort")]
    definition: dict[str, Any] = {
        "id": spec.name,
        "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2},
        "indexingPolicy": {
            "indexingMode": "consistent",
            "automatic": True,
            "includedPaths": [{"path": f"{path}/?"} for path in spec.indexed],
            "excludedPaths": [{"path": "/*"}],
            "compositeIndexes": [
                [{"path": path, "order": "ascending"} for path in paths]
                for paths in composite
                if set(paths) <= set(spec.indexed)
            ],
        },
    }
    return definition if spec.default_ttl is None else definition | {"defaultTtl": spec.default_ttl}


def container_definitions() -> list[dict[str, Any]]:
    return [container_definition(spec) for spec in CONTAINERS]


class Service:
    """Where an emulator needs other treatment than the cloud; here, the cloud: nothing to do. See `cosmos_emulator`."""

    options: Mapping[str, Any] = {}
    """More arguments for the SDK's client."""
    key = ""
    """Used where the settings give none; empty: the managed identity."""
    names_partition = False
    """Whether the text of a query must name the partition that is given beside it."""

    async def setup(self, client: "CosmosClient", database: str) -> None:
        """Make the containers; in the cloud, the templates have done so."""

    def writing(
        self, proxy: "ContainerProxy", partition: str, operations: Sequence[Operation]
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Around every write."""
        return contextlib.nullcontext()


class CosmosStore:
    """A `Store` in a Cosmos DB account, or an emulator where the endpoint is on this machine."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._service = _service(settings.cosmos_endpoint)
        self._opening = asyncio.Lock()
        self._client: CosmosClient | None = None
        self._credential: AsyncTokenCredential | None = None
        self._containers: dict[str, ContainerProxy] = {}

    async def setup(self) -> None:
        async with _limit(), self._opening:
            await self._service.setup(await self._open(), self._settings.cosmos_database)

    async def read(self, container: str, partition: str, id_: str) -> Stored | None:
        from azure.cosmos.exceptions import CosmosResourceNotFoundError  # noqa: PLC0415

        proxy = await self._container(container)
        async with _limit():
            try:
                found = await proxy.read_item(id_, partition, response_hook=_meter("read"))
            except CosmosResourceNotFoundError as exc:
                _count("read", exc)
                return None
        return _stored(found)

    async def query(self, container: str, partition: str, query: Query) -> list[Stored]:
        found = await self._select("query", container, partition, _select_of(query), page=query.limit)
        return [_stored(item) for item in found]

    async def scan(self, container: str, partition: str) -> list[Stored]:
        found = await self._select("scan", container, partition, _Select("*"))
        return [_stored(item) for item in sorted(found, key=lambda item: item["id"])]

    async def batch(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        rules.check(operations)
        if not operations:
            return []
        proxy = await self._container(container)
        async with _limit(), self._service.writing(proxy, partition, operations):
            return await _write(proxy, partition, operations, "batch")

    async def due(
        self, container: str, kind: str, *, before: float, after: float | None = None, limit: int = 100
    ) -> list[Due]:
        select = _Select(
            "TOP @limit *",
            ("c.kind = @kind", "c.due < @before", *(() if after is None else ("c.due >= @after",))),
            order="c.due",
            parameters={"limit": limit, "kind": kind, "before": before} | ({} if after is None else {"after": after}),
        )
        found = await self._select("due", container, None, select, page=limit)
        return [Due(item["pk"], _stored(item)) for item in found]

    async def changes(self, container: str, partition: str, *, since: str | None, limit: int = 100) -> Changed:
        proxy = await self._container(container)
        documents: list[Stored] = []
        token = since
        while len(documents) < limit:
            page, token = await _changed_page(proxy, partition, token, limit - len(documents))
            # The token says which partition it is for, and a client keeps it: believe only what is seen.
            documents += [_stored(item) for item in page if item["pk"] == partition]
            if not page:
                return Changed(documents, token, has_more=False)
        return Changed(documents, token or "", has_more=True)

    async def erase(self, container: str, partition: str) -> int:
        count = 0
        some = _Select(f"TOP {rules.MAX_OPERATIONS} c.id")
        while found := await self._select("erase", container, partition, some):
            count += await self._delete(container, partition, [item["id"] for item in found])
        return count

    async def ping(self) -> None:
        await self.read(DIRECTORY, "ping", "ping")

    async def close(self) -> None:
        client, self._client, self._containers = self._client, None, {}
        if client is not None:
            await client.close()
        credential, self._credential = self._credential, None
        if credential is not None:
            await credential.close()

    async def _container(self, name: str) -> "ContainerProxy":
        """The container, once seen to be there."""
        proxy = self._containers.get(name)
        if proxy is not None:
            return proxy
        from azure.cosmos.exceptions import CosmosResourceNotFoundError  # noqa: PLC0415

        async with _limit(), self._opening:  # who waits in line for the connection waits no longer than others
            client = await self._open()
            proxy = client.get_database_client(self._settings.cosmos_database).get_container_client(name)
            try:
                await proxy.read()
            except CosmosResourceNotFoundError as exc:
                raise StorageUnavailable(f"The account has no container {name!r}; deploy the templates.") from exc
        return self._containers.setdefault(name, proxy)

    async def _open(self) -> "CosmosClient":
        """The process's one client; called with `_opening` held."""
        if self._client is not None:
            return self._client
        from azure.cosmos.aio import CosmosClient  # noqa: PLC0415 - 0.13 s to import

        key = self._settings.cosmos_key.reveal() or self._service.key
        if not key and self._credential is None:
            self._credential = azure_identity(self._settings.client_id)
        options: dict[str, Any] = {
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retry_total": 2,
            "retry_throttle_total": THROTTLED_RETRIES,
            "retry_throttle_backoff_max": THROTTLED_SECONDS,
            "no_response_on_write": True,
            "enable_compact_utf8_item_writes": True,
        }
        options.update(self._service.options)
        client = CosmosClient(self._settings.cosmos_endpoint, self._credential or key, **options)
        try:
            await client.__aenter__()
            await self._service.setup(client, self._settings.cosmos_database)
        except BaseException:
            await client.close()
            raise
        self._client = client
        return client

    async def _select(
        self, operation: str, container: str, partition: str | None, select: "_Select", *, page: int | None = None
    ) -> list[Document]:
        """All results of a query inside one partition; with None, across them."""
        proxy = await self._container(container)
        conditions, values = select.conditions, select.parameters
        options: dict[str, Any] = {"max_item_count": page, "response_hook": _meter(operation)}
        if partition is not None:
            options["partition_key"] = partition
            if self._service.names_partition:
                conditions, values = ("c.pk = @pk", *conditions), values | {"pk": partition}
        async with _limit():
            items = proxy.query_items(select.sql(conditions), parameters=_parameters(values), **options)
            found: list[Document] = [item async for item in items]
        return found

    async def _delete(self, container: str, partition: str, ids: list[str]) -> int:
        """Delete documents of which some may be gone already."""
        proxy = await self._container(container)
        deletes = [Delete(id_) for id_ in ids]
        with contextlib.suppress(Missing):
            async with _limit():
                await _write(proxy, partition, deletes, "erase")
            return len(ids)
        count = 0
        for delete in deletes:
            with contextlib.suppress(Missing):
                async with _limit():
                    await _write(proxy, partition, [delete], "erase")
                count += 1
        return count


def _service(endpoint: str) -> Service:
    if not is_local(endpoint):
        return Service()
    from shared.storage.cosmos_emulator import Emulator  # noqa: PLC0415 - the cloud never needs it

    return Emulator()


@contextlib.asynccontextmanager
async def _limit() -> AsyncGenerator[None]:
    """Bound an operation's time, and turn the SDK's errors that are nobody's fault into the port's."""
    from azure.core.exceptions import AzureError, HttpResponseError  # noqa: PLC0415

    try:
        async with asyncio.timeout(LIMIT):
            yield
    except HttpResponseError as exc:
        if exc.status_code in _TRANSIENT or (exc.status_code or 500) >= 500:
            raise _unavailable(f"answered {exc.status_code}") from exc
        raise
    except AzureError as exc:
        raise _unavailable(f"cannot be reached, {type(exc).__name__}") from exc
    except TimeoutError as exc:
        raise _unavailable(f"took longer than {LIMIT:g} s") from exc


def _unavailable(what: str) -> StorageUnavailable:
    return StorageUnavailable(f"The database {what}; try again.", retry_after=1)


async def _write(proxy: "ContainerProxy", partition: str, operations: Sequence[Operation], name: str) -> list[str]:
    """Send the operations; a single one as a point write, which is cheaper than a batch."""
    from azure.core.exceptions import HttpResponseError  # noqa: PLC0415

    for attempt in range(CONFLICT_RETRIES + 1):
        try:
            if len(operations) == 1:
                return [await _write_one(proxy, partition, operations[0], name)]
            return await _write_all(proxy, partition, operations, name)
        except HttpResponseError as exc:
            _count(name, exc)
            if exc.status_code == _RETRY_WITH and attempt < CONFLICT_RETRIES:
                await asyncio.sleep(0.02 * 2**attempt)
                continue
            if exc.status_code == _TOO_LARGE:
                raise rules.too_large() from exc
            failure = _FAILURES.get(exc.status_code)
            if failure is None:
                raise
            index: int = getattr(exc, "error_index", 0)
            raise failure(index, _id_of(operations[index])) from None
    raise AssertionError("the last attempt returns or raises")


async def _write_one(proxy: "ContainerProxy", partition: str, operation: Operation, name: str) -> str:
    from azure.core import MatchConditions  # noqa: PLC0415

    hook = _meter(name)
    match operation:
        case Create(body):
            done = await proxy.create_item(body | {"pk": partition}, response_hook=hook)
        case Replace(body, etag):
            done = await proxy.replace_item(
                body["id"],
                body | {"pk": partition},
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
                response_hook=hook,
            )
        case Delete(id_, None):
            await proxy.delete_item(id_, partition, response_hook=hook)
            return ""
        case Delete(id_, etag):
            await proxy.delete_item(
                id_, partition, etag=etag, match_condition=MatchConditions.IfNotModified, response_hook=hook
            )
            return ""
        case _:
            # The only write that may be sent twice after a broken connection: the second changes nothing.
            done = await proxy.upsert_item(operation.body | {"pk": partition}, response_hook=hook, retry_write=1)
    return done.get_response_headers()["etag"]


async def _write_all(proxy: "ContainerProxy", partition: str, operations: Sequence[Operation], name: str) -> list[str]:
    batch = [_batched(operation, partition) for operation in operations]
    results: list[dict[str, Any]] = await proxy.execute_item_batch(batch, partition, response_hook=_meter(name))
    return [
        "" if isinstance(operation, Delete) else result["eTag"]
        for operation, result in zip(operations, results, strict=True)
    ]


def _batched(operation: Operation, partition: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    match operation:
        case Create(body):
            return "create", (body | {"pk": partition},), {}
        case Replace(body, etag):
            return "replace", (body["id"], body | {"pk": partition}), {"if_match_etag": etag}
        case Delete(id_, etag):
            return "delete", (id_,), {"if_match_etag": etag} if etag else {}
        case _:
            return "upsert", (operation.body | {"pk": partition},), {}


async def _changed_page(
    proxy: "ContainerProxy", partition: str, token: str | None, limit: int
) -> tuple[list[Document], str]:
    """The next page of the partition's change feed and the token behind it; an empty page is its end."""
    from azure.core.exceptions import HttpResponseError  # noqa: PLC0415

    answers: list[Mapping[str, str]] = []
    start: dict[str, Any] = (
        {"continuation": token} if token else {"partition_key": partition, "start_time": "Beginning"}
    )
    charged = _meter("changes")

    def hook(headers: Mapping[str, str], body: Any) -> None:
        charged(headers, body)
        answers.append(headers)

    page: list[Document] = []
    async with _limit():
        try:
            async for items in proxy.query_items_change_feed(
                max_item_count=limit, response_hook=hook, **start
            ).by_page():
                page = [item async for item in items]
                break
        except (ValueError, HttpResponseError) as exc:
            if token is None or getattr(exc, "status_code", 400) != 400:
                raise
            raise InvalidRequest("This token is not one of ours; start again without one.", param="since") from exc
    # The SDK leaves the whole continuation in the headers it has shown the hook.
    return page, answers[-1]["etag"]


@dataclass(frozen=True, slots=True)
class _Select:
    """A query in parts: what, where (joined by AND), in which order, with which values."""

    what: str
    conditions: tuple[str, ...] = ()
    order: str = ""
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])

    def sql(self, conditions: tuple[str, ...]) -> str:
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        order = f" ORDER BY {self.order}" if self.order else ""
        return f"SELECT {self.what} FROM c{where}{order}"  # noqa: S608 - values are parameters, the rest is constant


def _select_of(query: Query) -> _Select:
    """Equality first and named again in ORDER BY: only so does the service use a composite index for both."""
    paths = ["c.kind", "c.sort"] if query.group is None else ["c.kind", 'c["group"]', "c.sort"]
    conditions = ["c.kind = @kind", "IS_DEFINED(c.sort)"]
    parameters: dict[str, Any] = {"limit": query.limit, "kind": query.kind}
    if query.group is not None:
        conditions.append('c["group"] = @group')
        parameters["group"] = query.group
    if query.after is not None:
        conditions.append(f"c.sort {'>' if query.order == 'asc' else '<'} @after")
        parameters["after"] = query.after
    order = ", ".join(f"{path} {query.order.upper()}" for path in paths)
    return _Select("TOP @limit *", tuple(conditions), order, parameters)


def _parameters(values: Mapping[str, Any]) -> list[dict[str, object]]:
    return [{"name": f"@{name}", "value": value} for name, value in values.items()]


def _stored(item: Mapping[str, Any]) -> Stored:
    return Stored({name: value for name, value in item.items() if name not in _SYSTEM_FIELDS}, item["_etag"])


def _id_of(operation: Operation) -> str:
    return operation.id if isinstance(operation, Delete) else operation.body["id"]


def _meter(operation: str) -> Callable[[Mapping[str, str], Any], None]:
    """A response hook that counts the round trip with the charge the service reports."""

    def hook(headers: Mapping[str, str], _body: Any) -> None:
        telemetry.count(operation, float(headers.get(_CHARGE) or 0))

    return hook


def _count(operation: str, exc: "HttpResponseError") -> None:
    """A round trip that ended in an error, which no hook hears of."""
    headers: Mapping[str, str] = getattr(exc, "headers", None) or {}
    telemetry.count(operation, float(headers.get(_CHARGE) or 0))
