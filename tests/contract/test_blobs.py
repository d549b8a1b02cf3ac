"""What every `BlobStore` promises: a folder, and Azure Blob Storage (Azurite)."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from shared.errors import StorageUnavailable
from shared.settings import Secret, Settings
from shared.storage.base import BlobStore
from shared.storage.blob import AzureBlobStore
from shared.storage.folder import FolderBlobStore
from tests.processes import free_port

HOSTILE = [
    "../../escape",
    "..",
    ".",
    ".hidden",
    "/etc/passwd",
    "a\\b",
    "C:\\x",
    "a\nb\0c",
    "ü 🦕 %2F?#&",
    "~",
    "x@type",
]


@pytest.fixture
def owner() -> str:
    return f"owner-{uuid4().hex}"


async def names(blobs: BlobStore, owner: str) -> list[str]:
    return sorted([name async for name in blobs.list(owner)])


async def test_bytes_and_their_type_read_back(blobs: BlobStore, owner: str) -> None:
    data = bytes(range(256)) * 4

    await blobs.put(owner, "picture.png", data, content_type="image/png")

    assert await blobs.get(owner, "picture.png") == (data, "image/png")


async def test_what_is_not_there_reads_as_nothing(blobs: BlobStore, owner: str) -> None:
    assert await blobs.get(owner, "none") is None
    assert await names(blobs, owner) == []


async def test_put_overwrites_bytes_and_type(blobs: BlobStore, owner: str) -> None:
    await blobs.put(owner, "output", b"first and longer", content_type="text/plain")
    await blobs.put(owner, "output", b"second", content_type="application/json")

    assert await blobs.get(owner, "output") == (b"second", "application/json")
    assert await names(blobs, owner) == ["output"]


async def test_no_bytes_are_bytes_too(blobs: BlobStore, owner: str) -> None:
    await blobs.put(owner, "empty", b"", content_type="text/plain")

    assert await blobs.get(owner, "empty") == (b"", "text/plain")


async def test_five_megabytes(blobs: BlobStore, owner: str) -> None:
    data = uuid4().bytes * (5 * 2**20 // 16)

    await blobs.put(owner, "large", data, content_type="application/octet-stream")

    found = await blobs.get(owner, "large")
    assert found is not None
    assert found[0] == data


async def test_delete_is_safe_to_repeat(blobs: BlobStore, owner: str) -> None:
    await blobs.put(owner, "output", b"x", content_type="text/plain")

    await blobs.delete(owner, "output")
    await blobs.delete(owner, "output")

    assert await blobs.get(owner, "output") is None


async def test_owners_do_not_see_each_other(blobs: BlobStore, owner: str) -> None:
    """Not even where one's name begins like the other's."""
    other = f"{owner}2"
    await blobs.put(owner, "mine", b"x", content_type="text/plain")
    await blobs.put(other, "theirs", b"x", content_type="text/plain")

    assert await blobs.get(owner, "theirs") is None
    assert await names(blobs, owner) == ["mine"]


async def test_erase_takes_all_of_one_owner(blobs: BlobStore, owner: str) -> None:
    other = f"{owner}2"
    for name in ("one", "two"):
        await blobs.put(owner, name, b"x", content_type="text/plain")
    await blobs.put(other, "theirs", b"x", content_type="text/plain")

    assert [await blobs.erase(owner), await blobs.erase(owner)] == [2, 0]

    assert await names(blobs, owner) == []
    assert await names(blobs, other) == ["theirs"]


async def test_any_text_may_be_a_name_or_an_owner(blobs: BlobStore, owner: str) -> None:
    for text in HOSTILE:
        await blobs.put(f"{text}{owner}", text, text.encode(), content_type="text/plain")

    for text in HOSTILE:
        assert await blobs.get(f"{text}{owner}", text) == (text.encode(), "text/plain")
        assert await names(blobs, f"{text}{owner}") == [text]


async def test_a_name_too_long_or_empty_is_refused_by_all(blobs: BlobStore, owner: str) -> None:
    for name in ("", "x" * 201):
        with pytest.raises(ValueError, match="1 to 200 characters"):
            await blobs.put(owner, name, b"x", content_type="text/plain")


async def test_many_at_once(blobs: BlobStore, owner: str) -> None:
    await asyncio.gather(
        *(blobs.put(owner, f"{number:02}", str(number).encode(), content_type="text/plain") for number in range(30))
    )

    assert await names(blobs, owner) == [f"{number:02}" for number in range(30)]


async def test_ping_answers(blobs: BlobStore) -> None:
    await blobs.ping()


async def test_hostile_names_stay_inside_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "blobs"
    blobs = FolderBlobStore(str(root))

    for text in HOSTILE:
        await blobs.put(text, text, b"x", content_type="text/plain")

    outside = [path for path in await asyncio.to_thread(all_files, tmp_path) if root not in path.parents]
    assert outside == []


async def test_a_dead_blob_service_is_told_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit itself is what is tested; nobody waits thirty seconds for that.
    monkeypatch.setattr("shared.storage.blob.LIMIT", 1.0)
    endpoint = f"http://127.0.0.1:{free_port()}/companion"
    connection = f"DefaultEndpointsProtocol=http;AccountName=companion;AccountKey=eA==;BlobEndpoint={endpoint};"
    blobs = AzureBlobStore(replace(Settings.read({}).storage, connection_string=Secret(connection)))
    started = time.monotonic()

    with pytest.raises(StorageUnavailable):
        await blobs.get("owner", "name")

    await blobs.close()
    assert time.monotonic() - started < 20


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blobs = FolderBlobStore(str(tmp_path / "file"))

    with pytest.raises(StorageUnavailable):
        await blobs.put("owner", "name", b"x", content_type="text/plain")


def all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_blobs_may_come_while_the_last_one_goes(blobs: BlobStore) -> None:
    owner = f"owner-{uuid4().hex}"

    async def come_and_go(name: str) -> None:
        for _ in range(20):
            await blobs.put(owner, name, b"x", content_type="text/plain")
            await blobs.delete(owner, name)
        await blobs.put(owner, name, b"x", content_type="text/plain")

    await asyncio.gather(*(come_and_go(f"blob-{number}") for number in range(6)))

    assert len([name async for name in blobs.list(owner)]) == 6
