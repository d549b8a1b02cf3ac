"""`Idempotency-Key` on every request that makes something: made once, answered alike, refused for another body."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from shared.answers.service import answered_once
from shared.errors import StorageUnavailable
from shared.ids import CountedIds
from shared.storage.base import STATE
from tests.owners import Service, ask, conversation, service

type Json = dict[str, Any]

MAKES_NOTHING = {
    "/v1/chat/completions/{completion_id}": "changes one",
    "/v1/conversations/{conversation_id}": "changes one",
    "/v1/conversations/{conversation_id}/restore": "again is the same",
    "/v1/embeddings": "keeps nothing",
    "/v1/guests": "keeps nothing: the token is signed",
    "/v1/me": "changes it",
    "/v1/me/adopt": "again is the same",
    "/v1/moderations": "keeps nothing",
    "/v1/projects/{project_id}": "changes one",
    "/v1/responses/compact": "keeps nothing",
    "/v1/responses/input_tokens": "keeps nothing",
    "/v1/responses/{response_id}/cancel": "again is the same",
}
"""POST routes without a key, and why."""

EXPORT = orjson.dumps([{"uuid": "1", "name": "Old", "chat_messages": []}])

BODIES: dict[str, tuple[Any, Any]] = {
    "/v1/api_keys": ({"name": "one"}, {"name": "other"}),
    "/v1/chat/completions": (
        {"model": "companion", "messages": [{"role": "user", "content": "one"}], "store": True},
        {"model": "companion", "messages": [{"role": "user", "content": "other"}], "store": True},
    ),
    "/v1/conversations": ({"metadata": {"n": "one"}}, {"metadata": {"n": "other"}}),
    "/v1/conversations/{conversation_id}/items": (
        {"items": [{"role": "user", "content": "one"}]},
        {"items": [{"role": "user", "content": "other"}]},
    ),
    "/v1/feedback": ({"response": "RESPONSE", "rating": "up"}, {"response": "RESPONSE", "rating": "down"}),
    "/v1/me/erase": ({"confirm": "erase everything"}, {"confirm": "erase everything", "x": 1}),
    "/v1/me/export": (None, {"other": 1}),
    "/v1/me/import": (EXPORT, EXPORT.replace(b"Old", b"Other")),
    "/v1/projects": ({"name": "one"}, {"name": "other"}),
    "/v1/responses": ({"input": "one"}, {"input": "other"}),
    "/v1/shares": ({"conversation": "CONVERSATION"}, {"conversation": "conv_" + 32 * "0"}),
}
"""What makes something, and something else, there."""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[Service]:
    async with service(tmp_path) as running:
        yield running


async def test_every_route_that_makes_something_takes_a_key(here: Service) -> None:
    async with here.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    posts = {path: item["post"] for path, item in paths.items() if "post" in item}
    with_key = {path for path, post in posts.items() if "Idempotency-Key" in _parameters(post)}

    assert with_key == set(BODIES)
    assert set(posts) - with_key == set(MAKES_NOTHING)


def _parameters(operation: Json) -> set[str]:
    return {each["name"] for each in operation.get("parameters", ())}


async def _sender(client: httpx.AsyncClient, path: str) -> Callable[[int, str], Coroutine[Any, Any, httpx.Response]]:
    conv = await conversation(client)
    turn = await ask(client, "Something to share.", conversation=conv)

    async def send(which: int, key: str) -> httpx.Response:
        body = BODIES[path][which]
        if isinstance(body, dict):
            body = orjson.loads(
                orjson.dumps(body).replace(b"CONVERSATION", conv.encode()).replace(b"RESPONSE", turn["id"].encode())
            )
        given: Json = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        where = path.replace("{conversation_id}", conv)
        return await client.post(where, headers={"idempotency-key": key}, **given)

    return send


@pytest.mark.parametrize("path", BODIES)
async def test_twins_have_one_answer(here: Service, path: str) -> None:
    async with here.client() as client:
        send = await _sender(client, path)
        first, second = await asyncio.gather(send(0, "k"), send(0, "k"))
        later = await send(0, "k")

    assert [each.status_code for each in (first, second, later)] == [200, 200, 200], first.text + later.text
    assert first.json() == second.json() == later.json()


@pytest.mark.parametrize("path", BODIES)
async def test_the_key_is_for_one_body(here: Service, path: str) -> None:
    async with here.client() as client:
        send = await _sender(client, path)
        first = await send(0, "k")
        other = await send(1, "k")

    assert first.status_code == 200, first.text
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("path", ["/v1/projects", "/v1/shares", "/v1/api_keys", "/v1/me/export"])
async def test_another_key_makes_another(here: Service, path: str) -> None:
    async with here.client() as client:
        send = await _sender(client, path)
        first, second = (await send(0, "k")).json(), (await send(0, "l")).json()

    assert first["id"] != second["id"]


@pytest.mark.parametrize("count", ["1", "0", "9" * 5000, "-1", "x", "²"])
async def test_any_count_of_retries_is_taken(here: Service, count: str) -> None:
    async with here.client() as client:
        headers = {b"x-stainless-retry-count": count.encode("latin-1")}
        answer = await client.post("/v1/responses", json={"input": "Hello."}, headers=headers)

    assert answer.status_code == 200, answer.text


async def test_a_stored_completion_that_was_deleted_is_not_made_anew_by_a_late_retry(here: Service) -> None:
    body = {"model": "companion", "messages": [{"role": "user", "content": "one"}], "store": True}
    async with here.client() as client:
        headers = {"idempotency-key": "k"}
        made = (await client.post("/v1/chat/completions", json=body, headers=headers)).json()
        await client.delete(f"/v1/chat/completions/{made['id']}")
        again = await client.post("/v1/chat/completions", json=body, headers=headers)
        shown = await client.get(f"/v1/chat/completions/{made['id']}")

    assert (again.status_code, again.json()["error"]["code"]) == (409, "response_deleted")
    assert shown.status_code == 404


async def test_an_erasure_that_is_sent_again_after_its_end_takes_nothing_that_came_since(here: Service) -> None:
    async with here.client() as client:
        send = await _sender(client, "/v1/me/erase")
        first = (await send(0, "k")).json()
        await here.run_jobs()
        since = await conversation(client)
        again = (await send(0, "k")).json()
        await here.run_jobs()
        kept = await client.get(f"/v1/conversations/{since}")

    assert (again["id"], again["status"]) == (first["id"], "completed")
    assert kept.status_code == 200


UNSTORED: dict[str, Json] = {
    "/v1/chat/completions": {"model": "companion", "messages": [{"role": "user", "content": "one"}]},
    "/v1/responses": {"input": "one", "store": False},
}


@pytest.mark.parametrize("path", UNSTORED)
async def test_what_is_not_stored_runs_once_for_twins_and_is_never_free(here: Service, path: str) -> None:
    """The key is remembered, and nothing else."""
    body = UNSTORED[path]
    other = orjson.loads(orjson.dumps(body).replace(b"one", b"other"))
    async with here.client() as client:
        headers = {"idempotency-key": "k"}
        twins = await asyncio.gather(*(client.post(path, json=body, headers=headers) for _ in range(3)))
        turns_after_twins = (await client.get("/v1/me/usage")).json()["total"]["turns"]
        again = await client.post(path, json=body, headers=headers)
        refused = await client.post(path, json=other, headers=headers)
        used = (await client.get("/v1/me/usage")).json()

    assert [each.status_code for each in (*twins, again)] == [200] * 4
    assert len({each.json()["id"] for each in twins}) == turns_after_twins
    assert again.json()["id"] not in {each.json()["id"] for each in twins}
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert used["total"]["turns"] == turns_after_twins + 1
    assert used["reserved"] == 0


async def test_a_refused_request_leaves_its_key_free(here: Service) -> None:
    async with here.client() as client:
        refused = await client.post("/v1/projects", json={"name": ""}, headers={"idempotency-key": "k"})
        made = await client.post("/v1/projects", json={"name": "Garden"}, headers={"idempotency-key": "k"})

    assert (refused.status_code, made.status_code) == (400, 200)


async def test_an_answer_that_shows_a_secret_is_not_kept_in_words(here: Service) -> None:
    async with here.client() as client:
        answer = await client.post("/v1/api_keys", json={"name": "n"}, headers={"idempotency-key": "k"})
    key = answer.json()["key"]
    kept = [stored.body for stored in await here.app.store.scan(STATE, "ann")]

    assert any(body["kind"] == "answer" for body in kept)
    assert key.encode() not in orjson.dumps(kept)


@pytest.mark.parametrize("path", ["/v1/projects", "/v1/shares", "/v1/api_keys", "/v1/me/export", "/v1/me/erase"])
async def test_a_process_that_died_before_it_answered_has_made_it_once(
    here: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies between making and noting the answer; when its claim has lapsed, the same request is answered."""
    monkeypatch.setattr("shared.answers.service.CLAIM_SECONDS", 0.2)
    async with here.client() as client:
        send = await _sender(client, path)
        monkeypatch.setattr("shared.answers.service._sealed", _dies)
        died = await send(0, "k")
        monkeypatch.undo()
        monkeypatch.setattr("shared.answers.service.CLAIM_SECONDS", 0.2)
        answered = await send(0, "k")
        again = await send(0, "k")
        shown = await client.get(path) if not path.startswith("/v1/me") else None

    assert died.status_code == 500
    assert answered.status_code == 200, answered.text
    assert answered.json() == again.json()
    if shown is not None:
        assert [each["id"] for each in shown.json()["data"]] == [answered.json()["id"]]


def _dies(*_: object) -> str:
    raise RuntimeError


async def test_a_store_in_trouble_costs_the_note_and_not_the_answer(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = CountedIds("trouble")

    async def make(app: Any) -> bytes:
        async def fails(*_: object) -> list[str]:
            raise StorageUnavailable("The store does not answer.")

        monkeypatch.setattr(app.store, "batch", fails)
        return app.ids.token().encode()

    answer = await answered_once(here.app, "ann", ids.token(), "h", make)

    assert len(answer) == 32
