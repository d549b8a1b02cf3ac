"""The export's format: a zip that a person can read and this service can import. docs/reference/export.md describes it.

    manifest.json              format, version, created_at, counts
    records/<kind>.jsonl       one record a line, keys sorted, oldest first
    blobs/index.json           name and content type of each blob
    blobs/<number>             its bytes

The same data gives the same bytes, but for `created_at` of the manifest. Ids of an import are new: 32 hexadecimal
digits each, derived from the importing owner and the old id, so that the same import twice is one.
"""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import orjson
from pydantic import ValidationError

from shared.conversations.records import (
    CHATS,
    FINAL,
    ConversationRecord,
    Record,
    TurnRecord,
    header_sort,
    sort_key,
)
from shared.errors import InvalidRequest, PayloadTooLarge
from shared.ids import derived_token
from shared.privacy.records import ProfileRecord
from shared.privacy.registry import KINDS, Kind
from shared.projects.records import FeedbackRecord, ProjectRecord
from shared.storage.rules import blob_path

type Json = dict[str, Any]
type Blob = tuple[str, str, bytes]
"""Name, content type, bytes."""

FORMAT = "companion-export"
VERSION = 1
MAX_UNPACKED = 256 * 1024 * 1024
MAX_FILES = 20_000
MAX_RECORD = 8 * 1024 * 1024
MAX_RECORDS = 250_000
MAX_DEPTH = 120
"""Of a record: what requests may have, and what they are put into."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}(; ?[\w.+-]{1,30}=[\w.+-]{1,30})?", re.ASCII)
_TOKEN = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_OPTIONS = orjson.OPT_SORT_KEYS


# writing


def write_archive(records: Sequence[Json], blobs: Iterable[Blob], *, now: float) -> bytes:
    """The zip of these documents, which may be of any kind and in any order."""
    kinds: dict[str, list[Json]] = {}
    for record in _less_deleted(records):
        kind = KINDS.get(str(record.get("kind")))
        if kind is not None and kind.is_exported and _is_exported(record):
            shown = {key: value for key, value in record.items() if key not in kind.left_out}
            kinds.setdefault(kind.name, []).append(shown)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        counts = {name: len(found) for name, found in sorted(kinds.items())}
        manifest = {"format": FORMAT, "version": VERSION, "created_at": int(now), "counts": counts}
        _add(archive, "manifest.json", orjson.dumps(manifest, option=_OPTIONS))
        for name, found in sorted(kinds.items()):
            lines = sorted(((_order(record), orjson.dumps(record, option=_OPTIONS)) for record in found), key=_by_text)
            _add(archive, f"records/{name}.jsonl", b"".join(line + b"\n" for _, line in lines))
        index: list[Json] = []
        for number, (name, content_type, data) in enumerate(sorted(blobs)):
            index.append({"name": name, "content_type": content_type})
            _add(archive, f"blobs/{number}", data)
        _add(archive, "blobs/index.json", orjson.dumps(index, option=_OPTIONS))
    return buffer.getvalue()


def _less_deleted(records: Sequence[Json]) -> Iterator[Json]:
    """Without what belongs to deleted conversations, as if they were purged: forks keep what they go on from."""
    hidden = {record["id"] for record in records if record.get("kind") == "conversation.deleted"}
    if not hidden:
        yield from records
        return
    by_id: dict[str | None, Json] = {record["id"]: record for record in records}
    theirs = {id_ for id_, record in by_id.items() if record.get("conversation") in hidden}
    needed = set[str | None]()
    for record in records:
        is_kept = record["id"] not in theirs and record.get("is_stored", True)
        parent: str | None = record.get("parent") if is_kept else None
        while parent in by_id and parent not in needed:
            needed.add(parent)
            parent = by_id[parent].get("parent")
    for record in records:
        if record["id"] not in theirs:
            if not (record.get("kind") == "feedback" and record.get("group") in hidden):
                yield record
        elif record["id"] in needed:
            kept = {key: value for key, value in record.items() if key != "conversation"}
            yield {**kept, "is_stored": False}


def _is_exported(record: Json) -> bool:
    """Nothing that is still being made, and nothing temporary."""
    return "ttl" not in record and (record["kind"] != "turn" or record["status"] in FINAL)


def _order(record: Json) -> tuple[float, int]:
    return float(record.get("created_at", 0)), int(record.get("depth", 0))


def _by_text(line: tuple[tuple[float, int], bytes]) -> tuple[tuple[float, int], str]:
    """Where times are the same, by what it says: ids are others after an import, and must not change the order."""
    return line[0], _TOKEN.sub("", line[1].decode())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


# reading


def open_archive(data: bytes) -> zipfile.ZipFile:
    """Raises `InvalidRequest` for what is no zip, `PayloadTooLarge` for one that unpacks to too much."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError):
        raise InvalidRequest("The file is not a zip archive.", code="invalid_archive") from None
    entries = archive.infolist()
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise PayloadTooLarge("The archive unpacks to too much.")
    return archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes, never more than it said.

    Raises:
        InvalidRequest: there is none, or it is damaged.
    """
    try:
        with archive.open(name) as file:
            size = archive.getinfo(name).file_size
            data = file.read(size + 1)
    except (KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError):
        raise InvalidRequest(f"The archive's {name!r} cannot be read.", code="invalid_archive") from None
    if len(data) > size:
        raise PayloadTooLarge("The archive unpacks to too much.")
    return data


def read_records(archive: zipfile.ZipFile, owner: str) -> list[Record]:
    """The records of an export, as they are to be stored for `owner`: checked, with ids of their own.

    Raises:
        InvalidRequest: it is not an export of ours, or a record in it is not one.
    """
    manifest = _object(read_entry(archive, "manifest.json"))
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise InvalidRequest("The archive is not an export that can be imported here.", code="invalid_archive")
    texts = {
        kind.name: read_entry(archive, f"records/{kind.name}.jsonl").decode("utf-8", "replace")
        for kind in KINDS.values()
        if kind.is_imported and f"records/{kind.name}.jsonl" in archive.namelist()
    }
    if sum(text.count("\n") for text in texts.values()) > MAX_RECORDS:
        raise PayloadTooLarge(f"The archive has more than {MAX_RECORDS} records.")
    tokens = {token for name, text in texts.items() for token in _own_tokens(KINDS[name], text)}
    fresh = {token: derived_token(owner, "import", token) for token in tokens}
    own = frozenset(fresh.values())
    return [record for name, text in texts.items() for record in _records(KINDS[name], text, fresh, own)]


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        if line.strip():
            if len(line) > MAX_RECORD:
                raise PayloadTooLarge("A record of the archive is too large.")
            yield line


def _own_tokens(kind: Kind, text: str) -> Iterator[str]:
    for line in _lines(text):
        id_ = _object(line.encode()).get("id")
        if kind.id_prefix and isinstance(id_, str):
            yield id_.removeprefix(kind.id_prefix)


def _records(kind: Kind, text: str, fresh: dict[str, str], own: frozenset[str]) -> Iterator[Record]:
    for line in _lines(text):
        renamed = _TOKEN.sub(lambda found: fresh.get(found.group(), found.group()), line)
        body = _object(renamed.encode())
        id_ = body.get("id")
        token = id_.removeprefix(kind.id_prefix) if isinstance(id_, str) else ""
        if kind.id_prefix and not (token in own and id_ == f"{kind.id_prefix}{token}"):
            raise _damaged(kind.name)
        try:
            record = kind.record.model_validate({key: value for key, value in body.items() if key not in kind.left_out})
        except ValidationError:
            raise _damaged(kind.name) from None
        for name in ("created_at", "updated_at", "completed_at"):
            _check_time(getattr(record, name, None) or 0.0)
        yield _made_safe(record, token)


def _made_safe(record: Record, token: str) -> Record:
    """What the engine relies on is made here, not taken from a file."""
    match record:
        case ConversationRecord():
            sort = header_sort(record.updated_at, token)
            return record.model_copy(update={"kind": "conversation", "sort": sort, "ttl": None})
        case TurnRecord():
            if not (0 <= record.depth < 10**7) or not all(map(is_item, [*record.input, *record.output])):
                raise _damaged("turn")
            is_chat = record.group == CHATS
            sort = header_sort(record.created_at, token) if is_chat else sort_key(record.depth, token)
            status = record.status if record.status in FINAL else "incomplete"
            changes = {"sort": sort, "status": status, "ttl": None, "is_journalled": False}
            return record.model_copy(update=changes)
        case ProjectRecord():
            return record.model_copy(update={"sort": header_sort(record.created_at, token)})
        case FeedbackRecord():
            return record.model_copy(update={"sort": header_sort(record.created_at, token), "ttl": None})
        case ProfileRecord():
            return record.model_copy(update={"id": "profile"})
        case _:
            raise _damaged(type(record).__name__)


def is_item(item: Json) -> bool:
    """Whether an item has what the engine takes for granted of stored ones."""
    if not isinstance(item.get("id"), str) or not isinstance(item.get("type"), str):
        return False
    match item["type"]:
        case "message":
            content = item.get("content")
            return item.get("role") in ("user", "assistant", "system", "developer") and (
                isinstance(content, list)
                and all(isinstance(part, dict) and _is_part(cast(Json, part)) for part in cast(list[Any], content))
            )
        case "function_call":
            return all(isinstance(item.get(key), str) for key in ("call_id", "name", "arguments"))
        case "custom_tool_call":
            return all(isinstance(item.get(key), str) for key in ("call_id", "name", "input"))
        case "mcp_call":
            return all(isinstance(item.get(key), str) for key in ("name", "arguments"))
        case "function_call_output" | "custom_tool_call_output":
            return isinstance(item.get("call_id"), str) and isinstance(item.get("output"), (str, list))
        case "compaction":
            return isinstance(item.get("encrypted_content"), str)
        case _:
            return True


def _is_part(part: Json) -> bool:
    type_ = part.get("type")
    if type_ in ("input_text", "output_text"):
        return isinstance(part.get("text"), str)
    return isinstance(type_, str)


def read_blobs(archive: zipfile.ZipFile, owner: str) -> Iterator[Blob]:
    """The blobs of an export, named anew like the records."""
    if "blobs/index.json" not in archive.namelist():
        return
    for number, entry in enumerate(_index(read_entry(archive, "blobs/index.json"))):
        name, content_type = entry.get("name"), entry.get("content_type")
        if not isinstance(name, str) or not isinstance(content_type, str) or not _MEDIA_TYPE.fullmatch(content_type):
            raise _damaged("blob")
        renamed = _TOKEN.sub(lambda found: derived_token(owner, "import", found.group()), name)
        try:
            blob_path(owner, renamed)
        except ValueError:
            raise _damaged("blob") from None
        yield renamed, content_type, read_entry(archive, f"blobs/{number}")


def _index(data: bytes) -> list[Json]:
    try:
        found: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    entries = cast(list[Any], found) if isinstance(found, list) else [None]
    if not all(isinstance(entry, dict) for entry in entries):
        raise _damaged("blob")
    return cast(list[Json], entries)


def _object(data: bytes) -> Json:
    try:
        found: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("The archive has something that is not a JSON object.", code="invalid_archive")
    body = cast(Json, found)
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _is_deeper(body, MAX_DEPTH):
        raise InvalidRequest("The archive has something that is nested too deeply.", code="invalid_archive")
    return body


def _is_deeper(data: object, limit: int) -> bool:
    level: list[Any] = [data]
    for _ in range(limit):
        inner = [cast(Json, each).values() if isinstance(each, dict) else each for each in level]
        level = [child for children in inner for child in children if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _check_time(seconds: float) -> None:
    if not 0 <= seconds < 10**11:
        raise InvalidRequest("The archive has an impossible time.", code="invalid_archive")


def _damaged(kind: str) -> InvalidRequest:
    return InvalidRequest(f"The archive has a {kind} record that cannot be used.", code="invalid_archive")
