"""What the contract suites run on: every adapter, with the emulators started once a session on free ports.

With `COSMOS_ENDPOINT` (and `COSMOS_KEY`, `COSMOS_DATABASE`) in the environment, the Cosmos DB adapter is tested on that
account instead, and nothing is exempt (unless what answers there is the same emulator).
"""

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

import pytest

from shared.clock import Clock, ManualClock, SystemClock
from shared.settings import Secret, Settings, StorageSettings
from shared.storage.base import CONTAINERS, BlobStore, Store
from shared.storage.blob import AzureBlobStore
from shared.storage.cosmos import CosmosStore, is_local
from shared.storage.folder import FolderBlobStore
from shared.storage.sqlite import SqliteStore
from tests.contract.sdk import KEYS, Server
from tests.processes import EMULATOR_KEY, ROOT, companion, cosmos_emulator, free_port, running

ENDPOINT = os.environ.get("COSMOS_ENDPOINT", "")
BACKENDS = ("sqlite file", "sqlite memory", "cosmos")

EMULATOR_CANNOT = {
    "test_expired_documents_are_invisible_at_once": "expiry is not enforced",
    "test_a_container_has_a_default_expiry": "expiry is not enforced",
    "test_an_expired_id_is_free_again": "expiry is not enforced",
    "test_changes_continue_from_a_token": "the change feed answers 304 to every continuation",
    "test_changes_come_in_pages": "the change feed, as above",
    "test_changes_show_each_document_once_in_its_latest_version": "the change feed, as above",
    "test_changes_of_another_partition_do_not_show": "the change feed, as above",
    "test_a_larger_document_costs_more": "every charge is 1",
    "test_more_than_two_megabytes_at_once_are_refused": "it takes documents of any size",
}
"""What @vercel/cosmosdb-server 1.0.1 cannot do. These tests are run on it and must fail there: a line that no longer
holds is noticed. What the adapter meets for it is told in `shared/storage/cosmos_emulator.py`."""


def is_npm_emulator(endpoint: str) -> bool:
    """The service asks who calls; that emulator tells anybody that its resource id is its host name."""
    with suppress(OSError, ValueError):
        context = ssl._create_unverified_context() if endpoint.startswith("https:") else None  # pyright: ignore[reportPrivateUsage]
        with urlopen(endpoint, timeout=5, context=context) as response:
            return json.load(response).get("_rid") == urlsplit(endpoint).hostname
    return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    is_emulator = not ENDPOINT or is_npm_emulator(ENDPOINT)
    for item in items:
        name = getattr(item, "originalname", "")
        if is_emulator and name in EMULATOR_CANNOT and "[cosmos]" in item.name:
            item.add_marker(pytest.mark.xfail(reason=f"emulator: {EMULATOR_CANNOT[name]}", strict=True))


@pytest.fixture(scope="session")
def cosmos_settings() -> Iterator[StorageSettings]:
    """Of an account where the containers exist or may be made."""
    if ENDPOINT:
        yield Settings.read().storage
        return
    with cosmos_emulator() as endpoint:
        yield replace(Settings.read({}).storage, cosmos_endpoint=endpoint, cosmos_key=Secret(EMULATOR_KEY))


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """A connection string to an empty blob service, with an account of its own."""
    port, key = free_port(), base64.b64encode(uuid4().bytes).decode()
    script = ROOT / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    command = ["node", str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    url = f"http://127.0.0.1:{port}"
    with running(command, ready=url, env={"AZURITE_ACCOUNTS": f"companion:{key}"}):
        yield (f"DefaultEndpointsProtocol=http;AccountName=companion;AccountKey={key};BlobEndpoint={url}/companion;")


@dataclass(kw_only=True)
class Backend:
    """A place to open stores on."""

    name: str
    open: Callable[[], Store]
    """One more store on the same data, as another process would have; closed after the test."""
    clock: Clock
    partition: str = field(default_factory=lambda: f"owner-{uuid4().hex}")
    """One that only this test uses."""

    async def wait(self, seconds: float) -> None:
        """Let so much of the store's time pass."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)


@pytest.fixture(params=BACKENDS)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    name: str = request.param
    if name == "cosmos":
        settings: StorageSettings = request.getfixturevalue("cosmos_settings")
        if is_local(settings.cosmos_endpoint):
            settings = replace(settings, cosmos_database=f"test-{uuid4().hex}")
        make, clock = lambda: CosmosStore(settings), SystemClock()
    else:
        manual = ManualClock()
        path = str(tmp_path / "companion.db") if name == "sqlite file" else ":memory:"
        make, clock = lambda: SqliteStore(path, manual), manual
    opened: list[Store] = []

    def opening() -> Store:
        if name != "sqlite memory" or not opened:  # what is in memory is seen by its own store only
            opened.append(make())
        return opened[-1]

    backend = Backend(name=name, open=opening, clock=clock)
    yield backend
    if ENDPOINT and name == "cosmos":
        for spec in CONTAINERS:
            await opening().erase(spec.name, backend.partition)
    for store in opened:
        await store.close()
    if ENDPOINT.startswith("https:") and name == "cosmos":
        await asyncio.sleep(0.1)  # as aiohttp advises: TLS connections end a little after they are closed


@pytest.fixture
async def store(backend: Backend) -> Store:
    store = backend.open()
    await store.setup()
    return store


@pytest.fixture
def partition(backend: Backend) -> str:
    return backend.partition


@pytest.fixture(params=("folder", "azure"))
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    blobs: BlobStore
    if request.param == "folder":
        blobs = FolderBlobStore(str(tmp_path / "blobs"))
    else:
        connection = Secret(request.getfixturevalue("azurite"))
        blobs = AzureBlobStore(replace(Settings.read({}).storage, connection_string=connection))
    yield blobs
    await blobs.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Companion as a process: offline, at once, for two callers."""
    settings = {"COMPANION_API_KEYS": KEYS, "COMPANION_OFFLINE_DELAY": "0", "COMPANION_DELTA_INTERVAL": "0.01"}
    with companion(tmp_path_factory.mktemp("companion"), **settings) as url:
        yield Server(url)
