"""Blobs as files in a folder: for one machine, whose processes may share it."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

from shared.errors import StorageUnavailable
from shared.storage.rules import blob_path

# Quoted names have no "@": files with one are ours.
_TYPE = "@type"
_TRIES = 50


class FolderBlobStore:
    """A `BlobStore` under one folder: a folder for each owner, a file for each blob, its content type beside it.

    A blob appears whole or not at all: it is written under another name, then renamed.
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    async def put(self, owner: str, name: str, data: bytes, *, content_type: str) -> None:
        file = self._root / blob_path(owner, name)
        await _in_thread(lambda: _put(file, data, content_type))

    async def get(self, owner: str, name: str) -> tuple[bytes, str] | None:
        file = self._root / blob_path(owner, name)
        return await _in_thread(lambda: _get(file))

    async def delete(self, owner: str, name: str) -> None:
        file = self._root / blob_path(owner, name)
        await _in_thread(lambda: _delete(file))

    async def list(self, owner: str) -> AsyncIterator[str]:
        folder = self._root / blob_path(owner)
        for name in await _in_thread(lambda: _names(folder)):
            yield name

    async def erase(self, owner: str) -> int:
        folder = self._root / blob_path(owner)
        return await _in_thread(lambda: _erase(folder))

    async def ping(self) -> None:
        await _in_thread(lambda: self._root.mkdir(parents=True, exist_ok=True))

    async def close(self) -> None:
        """Nothing is held open."""


async def _in_thread[T](work: Callable[[], T]) -> T:
    """Files are read and written off the event loop."""
    try:
        return await asyncio.to_thread(work)
    except OSError as exc:
        raise StorageUnavailable(f"The blob folder cannot be used now ({exc.strerror}); try again.") from exc


def _put(file: Path, data: bytes, content_type: str) -> None:
    for _ in range(_TRIES):
        with suppress(FileNotFoundError, FileExistsError):  # a delete takes the empty folder away at this moment
            _write(file, data, content_type)
            return
    _write(file, data, content_type)


def _write(file: Path, data: bytes, content_type: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    for target, content in ((_beside(file), content_type.encode()), (file, data)):
        draft = target.with_name(f"{target.name}@{uuid4().hex}")
        draft.write_bytes(content)
        draft.replace(target)


def _get(file: Path) -> tuple[bytes, str] | None:
    try:
        return file.read_bytes(), _beside(file).read_text()
    except FileNotFoundError:
        return None


def _delete(file: Path) -> None:
    file.unlink(missing_ok=True)
    _beside(file).unlink(missing_ok=True)
    with suppress(OSError):  # the folder is named after its owner: it goes with the last file
        file.parent.rmdir()


def _names(folder: Path) -> list[str]:
    try:
        return sorted(unquote(file.name) for file in folder.iterdir() if "@" not in file.name)
    except FileNotFoundError:
        return []


def _erase(folder: Path) -> int:
    count = len(_names(folder))
    if folder.exists():
        shutil.rmtree(folder)
    return count


def _beside(file: Path) -> Path:
    return file.with_name(file.name + _TYPE)
