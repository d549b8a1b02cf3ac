"""Files that somebody made to do harm: what is refused says why, what is taken cannot break a route."""

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.errors import InvalidRequest, PayloadTooLarge
from shared.privacy import archive as archives
from shared.privacy.archive import open_archive, read_entry, read_records
from tests.owners import ANN, BOB, Service, ask, conversation, service
from tests.security.test_data_rights import exported

type Json = dict[str, Any]

MANIFEST = b'{"format":"companion-export","version":1}'
ODD: list[Any] = [
    None,
    5,
    -1,
    1e300,
    True,
    "x",
    "",
    [],
    {},
    [5],
    ["x"],
    [[]],
    {"a": 5},
    {"id": 5},
    [{"id": "x"}],
    2**60,
]


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", MANIFEST)
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


async def imported(here: Service, data: bytes, token: str = BOB) -> Json:
    async with here.client(token) as client:
        started = (await client.post("/v1/me/import", content=data)).json()
        for _ in range(7):
            await here.run_jobs()
        return (await client.get(f"/v1/me/data_jobs/{started['id']}")).json()


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


DEEP_LINE = b'{"id":"proj_%s","kind":"project","sort":"x","name":"n","metadata":%s}' % (b"a" * 32, deep(300))
DEEP_TURN = (
    b'{"id":"resp_%s","kind":"turn","group":"conv_x","sort":"x","depth":0,"status":"completed","created_at":1,'
    b'"input":[{"id":"a","type":"odd","x":%s}]}'
) % (b"a" * 32, deep(300))


@pytest.mark.parametrize(
    "data",
    [
        zipped(records__project__jsonl=b""),
        zipped(**{"records/turn.jsonl": DEEP_TURN}),
        zipped(**{"records/project.jsonl": DEEP_LINE}),
        zipped(**{"records/turn.jsonl": b"[" * 100_000}),
        zipped(**{"records/turn.jsonl": b"\xff\xfe\x00"}),
        zipped(**{"blobs/index.json": b'[{"name":"../../x","content_type":5}]'}),
        zipped(**{"blobs/index.json": b'[{"name":"x","content_type":"text/plain"}]'}),
        zipped(**{"blobs/index.json": b"5"}),
        zipped(**{"blobs/index.json": b'[5,{"name":"x"}]'}),
        zipped(**{"blobs/index.json": b"{"}),
        zipped(**{"blobs/index.json": orjson.dumps([{"name": "\x00" * 140, "content_type": "x"}]), "blobs/0": b"x"}),
        zipped(**{"blobs/index.json": orjson.dumps([{"name": "ü" * 140, "content_type": "x"}]), "blobs/0": b"x"}),
        zipped(**{"blobs/index.json": orjson.dumps([{"name": "x", "content_type": "a\r\nb: c"}]), "blobs/0": b"x"}),
        b"[" * 100_000,
        orjson.dumps([{"mapping": {"a": {"message": {"author": {"role": "user"}, "content": {"parts": ["x"]}}}}}] * 3),
        orjson.dumps([{"mapping": {"a": {"parent": "b", "message": 5}, "b": {"parent": "a", "message": []}}}]),
        orjson.dumps([{"chat_messages": [{"sender": "human", "text": "x", "created_at": "9999-99-99"}], "uuid": []}]),
        orjson.dumps([{"chat_messages": [5, None, {"content": [5]}], "name": 5, "created_at": 1e300}]),
    ],
)
async def test_a_crafted_file_ends_its_job_and_breaks_nothing(tmp_path: Path, data: bytes) -> None:
    async with service(tmp_path) as here, here.client(BOB) as bob:
        job = await imported(here, data)
        after = [(await bob.get(path)).status_code for path in ("/v1/conversations", "/v1/changes", "/v1/projects")]
        kept = await exported(here, BOB)

    assert job["status"] in ("completed", "failed")
    assert job["status"] == "completed" or (job["error"] and "server had an error" not in job["error"])
    assert after == [200, 200, 200]
    assert kept


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    zeros = zipped(**{"records/turn.jsonl": bytes(300 * 1024 * 1024)})

    assert len(zeros) < 400_000
    with pytest.raises(PayloadTooLarge):
        open_archive(zeros)


def test_an_entry_that_is_larger_than_it_says_is_refused() -> None:
    data = bytearray(zipped(**{"records/turn.jsonl": b"x" * 100_000}))
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")

    with pytest.raises((PayloadTooLarge, InvalidRequest)):
        read_entry(open_archive(bytes(data)), "records/turn.jsonl")


def test_names_that_lead_out_of_the_archive_are_only_names() -> None:
    archive = open_archive(zipped(**{"../../etc/passwd": b"x", "/records/turn.jsonl": b"{}"}))

    assert read_records(archive, "bob") == []


def test_many_small_records_take_time_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(count: int) -> float:
        lines = [
            b'{"id":"proj_%032x","kind":"project","sort":"x","name":"n","created_at":1,"updated_at":1}' % n
            for n in range(count)
        ]
        archive = open_archive(zipped(**{"records/project.jsonl": b"\n".join(lines)}))
        began = time.perf_counter()
        assert len(read_records(archive, "bob")) == count
        return time.perf_counter() - began

    seconds(100)
    few, many = seconds(1000), seconds(10_000)
    monkeypatch.setattr(archives, "MAX_RECORDS", 99)
    with pytest.raises(PayloadTooLarge):
        seconds(101)

    assert many < few * 40


async def test_no_record_that_is_taken_breaks_a_route(tmp_path: Path) -> None:
    """Every field of every kind, with every odd value: what the reader lets through is imported, and then looked at."""
    async with service(tmp_path) as here:
        async with here.client(ANN) as ann:
            conv = await conversation(ann, project=(await ann.post("/v1/projects", json={"name": "p"})).json()["id"])
            turn = await ask(ann, "Hello.", conversation=conv, metadata={"a": "b"})
            await ask(ann, "Alone.")
            await ann.post("/v1/feedback", json={"response": turn["id"], "rating": "up"})
            message = {"role": "user", "content": "Hi."}
            await ann.post("/v1/chat/completions", json={"model": "companion", "store": True, "messages": [message]})
        source = zipfile.ZipFile(io.BytesIO(await exported(here, ANN)))
        files: dict[str, list[bytes]] = {}
        refused, number = 0, 0
        for name in source.namelist():
            if not name.startswith("records/") or name.startswith("records/profile"):
                continue
            for line in source.read(name).splitlines():
                for body in odd_ones(orjson.loads(line)):
                    number += 1
                    made = renumbered(body, number)
                    try:
                        taken = read_records(open_archive(zipped(**{name: made})), "bob")
                    except InvalidRequest:
                        refused += 1
                        continue
                    if taken:
                        files.setdefault(name, []).append(made)
        job = await imported(here, zipped(**{name: b"\n".join(lines) for name, lines in files.items()}))
        broken = await look_at_everything(here)

    assert refused > 100
    assert sum(map(len, files.values())) > 100
    assert job["status"] == "completed", job
    assert broken == []


def odd_ones(body: Json) -> list[Json]:
    found = [body]
    for key in body:
        if key not in ("id", "kind"):
            found += [{**body, key: value} for value in ODD]
            found.append({name: value for name, value in body.items() if name != key})
    for key in ("params", "usage"):
        given: Json = body.get(key) or {}
        for inner in given:
            found += [{**body, key: {**body[key], inner: value}} for value in ODD[::3]]
    for side in ("input", "output"):
        items: list[Json] = body.get(side) or []
        for item in items:
            for key in item:
                found += [{**body, side: [{**item, key: value}]} for value in ODD[::2]]
    return found


def renumbered(body: Json, number: int) -> bytes:
    """With an id of its own, so that all of them can be in one file."""
    prefix = body["id"].partition("_")[0]
    return orjson.dumps({**body, "id": f"{prefix}_{number:032x}"})


async def look_at_everything(here: Service) -> list[str]:
    broken: list[str] = []
    async with here.client(BOB) as bob:

        async def get(path: str, **params: Any) -> Json:
            answer = await bob.get(path, params=params)
            if answer.status_code >= 500:
                broken.append(f"{path} {params}: {answer.status_code} {answer.text[:200]}")
                return {}
            return answer.json() if answer.status_code == 200 else {}

        async def walk(path: str, **params: Any) -> list[Json]:
            found: list[Json] = []
            after: str | None = None
            while True:
                shown = await get(path, limit=100, **params, **({"after": after} if after else {}))
                found += shown.get("data", [])
                if not shown.get("has_more"):
                    return found
                after = shown.get("last_id") or shown["data"][-1]["id"]

        token: str | None = ""
        changed: list[Json] = []
        while token is not None:
            shown = await get("/v1/changes", since=token, limit=100)
            changed += shown.get("data", [])
            token = shown.get("token") if shown.get("has_more") else None
        for path in ("/v1/conversations", "/v1/projects", "/v1/feedback", "/v1/chat/completions"):
            await walk(path)
            await walk(path, order="asc")
        await get("/v1/chat/completions", **{"metadata[a]": "b"})
        await get("/v1/conversations", query="hello")
        for each in changed:
            if each["object"] == "conversation":
                for part in ("", "/items", "/turns"):
                    await get(f"/v1/conversations/{each['id']}{part}")
            if each["object"] == "conversation.turn":
                token_ = each["id"].removeprefix("resp_")
                going_on = {"input": "Go on.", "previous_response_id": each["id"]}
                answer = await bob.post("/v1/responses", json=going_on)
                if answer.status_code >= 500:
                    broken.append(f"going on from {each}: {answer.text}")
                for part in ("", "/input_items", "/trace"):
                    await get(f"/v1/responses/{each['id']}{part}")
                for part in ("", "/messages"):
                    await get(f"/v1/chat/completions/chatcmpl-{token_}{part}")
        await exported(here, BOB)
    return broken
