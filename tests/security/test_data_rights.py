"""Export, import and erase: nothing is missing, nothing is left."""

import asyncio
import io
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.clock import ManualClock
from shared.errors import StorageUnavailable
from shared.models.offline import OfflineModel
from shared.privacy import service as privacy
from shared.storage.base import KNOWLEDGE, STATE, Upsert
from tests.owners import ANN, BOB, Service, ask, conversation, service

type Json = dict[str, Any]

CANARY = "zanzibar"


async def fill(here: Service, token: str, canary: str) -> None:
    """A canary in every field of every kind that a caller can write."""
    async with here.client(token) as client:
        project = (
            await client.post(
                "/v1/projects",
                json={"name": f"{canary}-project", "instructions": f"{canary}-rule", "metadata": {"k": f"{canary}-m"}},
            )
        ).json()
        conv = await conversation(
            client,
            project=project["id"],
            metadata={f"{canary}-key": f"{canary}-value"},
            items=[{"type": "message", "role": "user", "content": f"{canary}-item"}],
        )
        turn = await ask(
            client,
            f"{canary}-input {'x' * 80_000}",
            conversation=conv,
            instructions=f"{canary}-instructions",
            metadata={"k": f"{canary}-turn"},
            user=f"{canary}-user",
        )
        await ask(client, f"{canary}-branch", conversation={"id": conv, "parent": turn["id"]})
        await client.post("/v1/responses", json={"input": f"{canary}-told", "stream": True})
        await ask(client, f"{canary}-stream", previous_response_id=(await ask(client, f"{canary}-chain"))["id"])
        await client.post(
            "/v1/chat/completions",
            json={
                "model": "companion",
                "store": True,
                "messages": [{"role": "user", "content": f"{canary}-chat"}],
                "metadata": {"k": f"{canary}-chatmeta"},
            },
        )
        await client.post(f"/v1/conversations/{conv}", json={"title": f"{canary}-title"})
        await client.post(
            "/v1/feedback",
            json={"response": turn["id"], "rating": "down", "reasons": [f"{canary}-r"], "comment": f"{canary}-c"},
        )
        await client.post("/v1/shares", json={"conversation": conv})
        await client.post("/v1/api_keys", json={"name": f"{canary}-name"})
        await client.post("/v1/me", json={"name": f"{canary}-me", "retention_days": 365})
        gone = await conversation(client, metadata={"k": f"{canary}-deleted"})
        await client.delete(f"/v1/conversations/{gone}")
        temporary = await conversation(client, temporary=True)
        await ask(client, f"{canary}-temporary", conversation=temporary)
    owner = {ANN: "ann", BOB: "bob"}[token]
    passage = {"id": f"p_{canary}", "kind": "passage", "group": "g", "sort": "1", "text": f"{canary}-passage"}
    await here.app.store.batch(KNOWLEDGE, owner, [Upsert(passage)])
    await here.app.blobs.put(owner, f"file-{canary}", f"{canary}-blob".encode(), content_type="text/plain")


async def run(here: Service, token: str, path: str, **fields: Any) -> Json:
    """A data job to its end."""
    async with here.client(token) as client:
        started = await client.post(f"/v1/me/{path}", **fields)
        assert started.status_code == 200, started.text
        await here.run_jobs()
        job = (await client.get(f"/v1/me/data_jobs/{started.json()['id']}")).json()
        assert job["status"] == "completed", job
        return job


async def exported(here: Service, token: str) -> bytes:
    job = await run(here, token, "export")
    async with here.client(token) as client:
        return (await client.get(f"/v1/me/data_jobs/{job['id']}/content")).content


def bytes_with(folder: Path, canary: str) -> list[str]:
    return [
        f"{path.name}: {path.read_bytes().count(canary.encode())}"
        for path in folder.rglob("*")
        if path.is_file() and canary.encode() in path.read_bytes()
    ] + [f"name {path.name}" for path in folder.rglob("*") if canary in path.name]


async def test_after_an_erasure_no_byte_is_left_in_any_file_or_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with service(tmp_path, model=OfflineModel(word_delay=0.005)) as here:
        await fill(here, ANN, CANARY)
        await fill(here, BOB, "keepsake")
        await here.app.queue.send("turns", {"owner": "ann", "turn": "resp_x"}, delay=3600)
        before = bytes_with(tmp_path, CANARY)
        receipt = await run(here, ANN, "erase", json={"confirm": "erase everything"})
        after = bytes_with(tmp_path, CANARY)
        async with here.client(ANN) as ann, here.client(BOB) as bob:
            left = [(await ann.get(path)).json()["data"] for path in ("/v1/conversations", "/v1/projects")]
            others = (await bob.get("/v1/conversations")).json()["data"]

    assert before
    assert after == []
    assert left == [[], []]
    assert len(others) == 1
    assert bytes_with(tmp_path, "keepsake")
    assert CANARY not in caplog.text
    for kind in ("conversation", "conversation.deleted", "turn", "project", "feedback", "profile", "usage"):
        assert receipt["counts"][f"state/{kind}"] > 0, kind
    for name in ("events", "knowledge", "blobs", "queue", "directory/api_key", "directory/share"):
        assert receipt["counts"][name] > 0, name


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["plain", "with a key"])
async def test_a_deleted_response_takes_along_what_was_too_large_for_its_record(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with service(tmp_path) as here, here.client(ANN, **headers) as ann:
        turn = await ask(ann, f"{CANARY} {'x' * 80_000}")
        before = [name async for name in here.app.blobs.list("ann")]
        deleted = await ann.delete(f"/v1/responses/{turn['id']}")
        after = [name async for name in here.app.blobs.list("ann")]

    assert deleted.status_code == 200
    assert before != []
    assert after == []


async def test_an_erasure_leaves_no_trace_of_whose_it_was(tmp_path: Path) -> None:
    owner = "user-quagmire-17"
    async with service(tmp_path, COMPANION_API_KEYS=f"{ANN}={owner}") as here:
        async with here.client(ANN) as ann:
            await ask(ann, "Hello.")
        await run(here, ANN, "erase", json={"confirm": "erase everything"})
        found = bytes_with(tmp_path, owner)

    assert found == []


def normal(data: bytes) -> dict[str, str]:
    """An export with its ids numbered in the order in which they come, and without its own time."""
    seen: dict[str, str] = {}
    texts: dict[str, str] = {}
    archive = zipfile.ZipFile(io.BytesIO(data))
    for name in sorted(archive.namelist()):
        if name.startswith(("records/usage", "records/share", "records/api_key")):
            continue  # for reading; not imported (docs/reference/export.md)
        text = archive.read(name).decode()
        if name == "manifest.json":
            manifest = orjson.loads(text)
            counts = {kind: count for kind, count in manifest["counts"].items() if f"records/{kind}" in name}
            text = str({"format": manifest["format"], "version": manifest["version"], "counts": counts})
        texts[name] = re.sub(r"[0-9a-f]{32}", lambda found: seen.setdefault(found[0], f"#{len(seen)}"), text)
    return texts


async def test_an_export_imported_and_exported_again_is_the_same(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        await fill(here, ANN, CANARY)
        async with here.client() as ann:
            await ann.delete(f"/v1/shares/{(await ann.get('/v1/shares')).json()['data'][0]['id']}")
        first = await exported(here, ANN)
        again = await exported(here, ANN)
        await run(here, BOB, "import", content=first)
        second = await exported(here, BOB)
        await run(here, BOB, "import", content=first)
        third = await exported(here, BOB)
        async with here.client(BOB) as bob:
            (conv,) = (await bob.get("/v1/conversations")).json()["data"]
            items = (await bob.get(f"/v1/conversations/{conv['id']}/items")).json()["data"]
            went_on = await ask(bob, "Go on.", conversation=conv["id"])

    assert CANARY in first.decode("latin-1") or zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert normal(first) == normal(again) == normal(second) == normal(third)
    assert len(items) > 2
    assert went_on["status"] == "completed"


async def test_an_import_cannot_reach_records_that_are_not_its_own(tmp_path: Path) -> None:
    """Ids of the file are replaced: a crafted one names neither a stranger's journal nor a record of bookkeeping."""
    async with service(tmp_path) as here:
        async with here.client(ANN) as ann:
            turn = await ask(ann, "Ann's secret pear.")
        data = await exported(here, ANN)
        await run(here, BOB, "import", content=data)
        async with here.client(BOB) as bob:
            stream = await bob.get(f"/v1/responses/{turn['id']}", params={"stream": "true"})
        for line in (b'{"id":"usage_2026-11","kind":"turn"}', b'{"id":"resp_../x","kind":"turn"}'):
            crafted = io.BytesIO()
            with zipfile.ZipFile(crafted, "w") as archive:
                archive.writestr("manifest.json", '{"format":"companion-export","version":1}')
                archive.writestr("records/turn.jsonl", line)
            async with here.client(BOB) as bob:
                started = (await bob.post("/v1/me/import", content=crafted.getvalue())).json()
                await here.run_jobs()
                job = (await bob.get(f"/v1/me/data_jobs/{started['id']}")).json()
            assert job["status"] == "failed"

    assert stream.status_code == 404


CHATGPT = [
    {
        "title": "Figs",
        "create_time": 1700000000.5,
        "update_time": 1700000100.5,
        "conversation_id": "abc",
        "current_node": "a2",
        "mapping": {
            "root": {"id": "root", "message": None, "parent": None, "children": ["s"]},
            "s": {"message": {"author": {"role": "system"}, "content": {"parts": [""]}}, "parent": "root"},
            "u1": {
                "message": {
                    "author": {"role": "user"},
                    "create_time": 1700000001,
                    "content": {"content_type": "text", "parts": ["Are figs fruit?"]},
                },
                "parent": "s",
            },
            "a1": {
                "message": {
                    "author": {"role": "assistant"},
                    "create_time": 1700000002,
                    "content": {"content_type": "text", "parts": ["No."]},
                },
                "parent": "u1",
            },
            "a2": {
                "message": {
                    "author": {"role": "assistant"},
                    "create_time": 1700000003,
                    "content": {"content_type": "text", "parts": ["Botanically, inflorescences."]},
                },
                "parent": "u1",
            },
        },
    }
]
CLAUDE = [
    {
        "uuid": "c-1",
        "name": "Pears",
        "created_at": "2024-05-01T10:00:00.000000Z",
        "updated_at": "2024-05-01T10:05:00.000000Z",
        "chat_messages": [
            {"uuid": "1", "sender": "human", "text": "Are pears fruit?", "created_at": "2024-05-01T10:00:00Z"},
            {"uuid": "2", "sender": "assistant", "content": [{"type": "text", "text": "Yes."}], "text": ""},
            {"uuid": "3", "sender": "human", "text": "Thanks.", "created_at": "2024-05-01T10:04:00Z"},
        ],
    }
]


@pytest.mark.parametrize(
    ("file", "title", "said"),
    [
        (CHATGPT, "Figs", ["Are figs fruit?", "Botanically, inflorescences."]),
        (CLAUDE, "Pears", ["Are pears fruit?", "Yes.", "Thanks."]),
    ],
    ids=["chatgpt", "claude"],
)
@pytest.mark.parametrize("is_zipped", [True, False])
async def test_conversations_of_other_assistants_are_imported_once(
    tmp_path: Path, file: Json, title: str, said: list[str], is_zipped: bool
) -> None:
    data = orjson.dumps(file)
    if is_zipped:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("conversations.json", data)
        data = buffer.getvalue()
    async with service(tmp_path) as here, here.client() as ann:
        await run(here, ANN, "import", content=data)
        await run(here, ANN, "import", content=data)
        (conv,) = (await ann.get("/v1/conversations")).json()["data"]
        items = (await ann.get(f"/v1/conversations/{conv['id']}/items", params={"order": "asc"})).json()["data"]
        turns = (await ann.get(f"/v1/conversations/{conv['id']}/turns")).json()["data"]
        await ask(ann, "Go on.", conversation=conv["id"])

    assert conv["title"] == title
    assert [item["content"][0]["text"] for item in items] == said
    assert len(turns) == (3 if file is CHATGPT else 2)


async def test_an_export_leaves_out_what_was_said_in_deleted_conversations(tmp_path: Path) -> None:
    """Also while they could be restored; what a fork goes on from is its history, and stays so after an import."""
    async with service(tmp_path) as here, here.client() as ann:
        conv = await conversation(ann)
        first = await ask(ann, "About plums.", conversation=conv)
        second = await ask(ann, "A secret about zebras.", conversation=conv)
        await ann.post("/v1/feedback", json={"response": second["id"], "rating": "up", "comment": "zebras!"})
        await ask(ann, "About figs.", previous_response_id=first["id"])
        await ann.delete(f"/v1/conversations/{conv}")
        data = await exported(here, ANN)
        await run(here, BOB, "import", content=data)
        again = await exported(here, BOB)

    assert "zebras" not in text_of(data)
    for archive in (data, again):
        turns = [
            orjson.loads(line) for line in zipfile.ZipFile(io.BytesIO(archive)).read("records/turn.jsonl").splitlines()
        ]
        assert [turn["is_stored"] for turn in turns] == [False, True]
        assert turns[1]["parent"] == turns[0]["id"]
        assert "conversation" not in turns[0]


def text_of(archive: bytes) -> str:
    opened = zipfile.ZipFile(io.BytesIO(archive))
    return "".join(opened.read(name).decode() for name in opened.namelist())


async def test_what_was_imported_with_an_impossible_date_can_be_exported_and_imported(tmp_path: Path) -> None:
    file = [{**CLAUDE[0], "created_at": "1969-12-31T00:00:00Z", "updated_at": "9999-12-31T00:00:00Z"}]
    async with service(tmp_path) as here, here.client(BOB) as bob:
        await run(here, ANN, "import", content=orjson.dumps(file))
        await run(here, BOB, "import", content=await exported(here, ANN))
        (conv,) = (await bob.get("/v1/conversations")).json()["data"]

    assert conv["title"] == "Pears"


@pytest.mark.parametrize("data", [b"PK\x03\x04nonsense", b"{}", b"[]", b"[1]", b"\xff\xfe", b'[{"mapping": 3}]'])
async def test_a_file_that_is_no_export_fails_with_words(tmp_path: Path, data: bytes) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        started = (await ann.post("/v1/me/import", content=data)).json()
        await here.run_jobs()
        job = (await ann.get(f"/v1/me/data_jobs/{started['id']}")).json()

    assert job["status"] == "failed"
    assert job["error"]


async def test_what_has_not_changed_for_as_long_as_the_owner_says_is_deleted(tmp_path: Path) -> None:
    from shared.clock import ManualClock

    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        await ann.post("/v1/me", json={"retention_days": 30})
        old = await conversation(ann)
        await ask(ann, "Old.", conversation=old)
        alone = await ask(ann, "Alone.")
        clock.advance(31 * 86_400)
        new = await conversation(ann)
        await privacy.run_due(here.app)
        listed = [each["id"] for each in (await ann.get("/v1/conversations")).json()["data"]]
        gone = await ann.get(f"/v1/responses/{alone['id']}")

    assert listed == [new]
    assert gone.status_code == 404


async def test_retention_judges_a_fork_by_its_own_age(tmp_path: Path) -> None:
    """It is no part of the conversation it was forked off; what it goes on from stays as long as it does."""
    from shared.clock import ManualClock

    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        await ann.post("/v1/me", json={"retention_days": 30})
        old = await ask(ann, "My name is Ada.", conversation=await conversation(ann))
        forgotten = await ask(ann, "Old.", previous_response_id=old["id"])
        clock.advance(20 * 86_400)
        fork = await ask(ann, "New.", previous_response_id=old["id"])
        clock.advance(20 * 86_400)
        await privacy.run_due(here.app)
        found = [(await ann.get(f"/v1/responses/{each['id']}")).status_code for each in (old, forgotten, fork)]
        went_on = await ask(ann, "What is my name?", previous_response_id=fork["id"])
        clock.advance(31 * 86_400)
        await privacy.run_due(here.app)
        left = {each.body["kind"] for each in await here.app.store.scan("state", "ann")}

    assert found == [404, 404, 200]
    assert "Ada" in str(went_on["output"])
    assert "turn" not in left


async def test_an_erasure_lifts_no_ceiling_of_money(tmp_path: Path) -> None:
    """Of what was used, bare sums stay until the month ends."""
    clock = ManualClock(datetime(2026, 3, 20, tzinfo=UTC).timestamp())
    prices, plans = '{"*": {"input": 1000, "output": 1000}}', '{"static": {"usd_per_day": 0.001, "usd_per_month": 100}}'
    async with service(tmp_path, clock=clock, COMPANION_PRICES=prices, COMPANION_PLANS=plans) as here:
        async with here.client() as ann:
            await ask(ann, "Hello, a day before.")
            clock.advance(86_400)
            await ask(ann, f"Hello, {CANARY}.")
            spent = (await ann.get("/v1/me/usage")).json()["total"]["cost"]
            for _ in range(2):
                await run(here, ANN, "erase", json={"confirm": "erase everything"})
            used = (await ann.get("/v1/me/usage")).json()
            refused = await ann.post("/v1/responses", json={"input": "More."})
        left = [each.body for each in await here.app.store.scan(STATE, "ann")]
        clock.advance(12 * 86_400)
        after = [each.body for each in await here.app.store.scan(STATE, "ann")]

    assert used["total"] == {**used["total"], "cost": pytest.approx(spent), "turns": 0, "input_tokens": 0}
    assert [day["date"] for day in used["days"]] == ["2026-03-01", "2026-03-21"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert [body["kind"] for body in left] == ["usage"]
    assert after == []


@pytest.mark.parametrize("store", [True, False])
async def test_an_erasure_while_a_turn_runs_makes_it_no_gift(tmp_path: Path, store: bool) -> None:
    prices, plans = '{"*": {"input": 1000, "output": 1000}}', '{"static": {"usd_per_day": 0.001, "usd_per_month": 100}}'
    slow = OfflineModel(word_delay=0.02)
    async with (
        service(tmp_path, model=slow, COMPANION_PRICES=prices, COMPANION_PLANS=plans) as here,
        here.client() as ann,
    ):
        body = {"input": "Tell me something that takes a while.", "store": store}
        running = asyncio.create_task(ann.post("/v1/responses", json=body))
        await asyncio.sleep(0.3)
        await run(here, ANN, "erase", json={"confirm": "erase everything"})
        await running
        used = (await ann.get("/v1/me/usage")).json()
        refused = await ann.post("/v1/responses", json={"input": "More."})

    assert used["total"]["cost"] > 0.001
    assert used["reserved"] == 0
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_the_key_of_an_erasure_is_known_for_a_day(tmp_path: Path) -> None:
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client(ANN, **{"Idempotency-Key": "k"}) as ann:

        async def erase() -> str:
            started = (await ann.post("/v1/me/erase", json={"confirm": "erase everything"})).json()
            await here.run_jobs()
            return started["id"]

        first = await erase()
        clock.advance(2 * 86_400)
        kept = await here.app.store.batch(STATE, "ann", [Upsert({"id": "memo", "kind": "project"})])
        second = await erase()
        left = await here.app.store.read(STATE, "ann", "memo")

    assert kept
    assert second != first
    assert left is None


async def test_a_job_that_the_queue_lost_is_found_by_the_timer(tmp_path: Path) -> None:
    from shared.clock import ManualClock

    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        job = await privacy.start_export(here.app, "ann")
        clock.advance(300)
        await privacy.run_due(here.app)
        state = (await ann.get(f"/v1/me/data_jobs/{job.id}")).json()

    assert state["status"] == "completed"


async def test_a_store_that_does_not_answer_leaves_the_job_for_another_try(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        job = await privacy.start_export(here.app, "ann")
        blobs = here.app.blobs

        async def fail(*_: object, **__: object) -> None:
            raise StorageUnavailable("down")

        put = blobs.put
        blobs.put = fail  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(StorageUnavailable):
            await here.run_jobs()
        blobs.put = put  # pyright: ignore[reportAttributeAccessIssue]
        await privacy.run_message(here.app, {"owner": "ann", "job": job.id})
        state = (await ann.get(f"/v1/me/data_jobs/{job.id}")).json()
        await asyncio.sleep(0)

    assert state["status"] == "completed"


async def test_what_disappears_by_itself_takes_its_blobs_along(tmp_path: Path) -> None:
    """A temporary conversation's long texts, and the files of exports and imports."""
    from shared.clock import ManualClock

    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        temporary = await conversation(ann, temporary=True)
        await ask(ann, f"{CANARY} {'x' * 90_000}", conversation=temporary)
        clock.advance(80_000)
        await ask(ann, "Still here.", conversation=temporary)
        data = await exported(here, ANN)
        await ann.post("/v1/me/import", content=b"[1]")
        await here.run_jobs()
        clock.advance(8_000)
        await privacy.run_due(here.app)
        early = [name async for name in here.app.blobs.list("ann")]
        clock.advance(8 * 86_400)
        await privacy.run_due(here.app)
        late = [name async for name in here.app.blobs.list("ann")]

    assert data
    assert [name for name in early if name.endswith(".in")] == []
    assert early != []
    assert late == []


async def test_no_more_jobs_wait_than_a_few(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann, here.client(BOB) as bob:
        asked = [await ann.post("/v1/me/export") for _ in range(5)]
        other = await bob.post("/v1/me/export")
        await here.run_jobs()
        after = await ann.post("/v1/me/export")

    assert [each.status_code for each in asked] == [200, 200, 200, 429, 429]
    assert asked[-1].headers["retry-after"] == "30"
    assert (other.status_code, after.status_code) == (200, 200)


async def test_an_export_that_takes_long_keeps_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each blob takes a while; the timer that looks for dead workers finds nothing to do meanwhile."""
    from shared.clock import ManualClock

    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        for number in range(8):
            await here.app.blobs.put("ann", f"file-{number}", b"x", content_type="text/plain")
        job = await privacy.start_export(here.app, "ann")
        get = here.app.blobs.get

        async def slowly(owner: str, name: str) -> tuple[bytes, str] | None:
            clock.advance(45)
            await privacy.run_due(here.app)
            return await get(owner, name)

        with monkeypatch.context() as patch:  # time that passes inside of a step has no seam of its own
            patch.setattr(here.app.blobs, "get", slowly)
            await privacy.run_message(here.app, {"owner": "ann", "job": job.id})
        state = (await ann.get(f"/v1/me/data_jobs/{job.id}")).json()
        record = await privacy.get_job(here.app, "ann", job.id)

    assert state["status"] == "completed"
    assert (state["counts"]["blobs"], record.tries) == (8, 1)
