"""The matrix: every route of the document, with every id that another owner has. Not yours is not there.

Each row is called by Bob twice, with Ann's ids and with ids of nothing: the answers are the same but for the ids, no
success, and Ann's data is as it was. A route of the document without a row fails.
"""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.privacy.pages import everything
from shared.storage.base import STATE
from tests.owners import ANN, BOB, Service, ask, conversation, service
from tests.security.test_data_rights import run

type Json = dict[str, Any]

MESSAGE = {"type": "message", "role": "user", "content": "Hello."}


@dataclass(frozen=True)
class Row:
    """A call that names records, by the names of `ids`; `{name}` in path, query and body stands for one."""

    route: str
    body: Any = None
    query: str = ""


OWN_ONLY = {
    # name no record of anybody: what they show is asserted in test_lists_show_ones_own below, or in their own tests
    *("GET /v1/me", "POST /v1/me", "POST /v1/me/adopt", "POST /v1/me/erase", "GET /v1/me/usage", "POST /v1/me/export"),
    *("POST /v1/me/import", "GET /v1/admin/usage", "GET /v1/admin/routes", "PUT /v1/admin/routes"),
    *("DELETE /v1/admin/routes", "GET /traces", "POST /v1/guests", "POST /v1/api_keys", "GET /v1/api_keys"),
    *("GET /v1/changes", "POST /v1/projects", "GET /v1/models", "GET /v1/models/{model}", "POST /v1/embeddings"),
    *("POST /v1/moderations", "GET /readyz", "HEAD /readyz", "GET /healthz", "HEAD /healthz", "GET /reference"),
    *("GET /openapi.json", "GET /", "HEAD /", "GET /favicon.svg", "HEAD /favicon.svg", "GET /assets/{name}"),
    *("HEAD /assets/{name}", "GET /c/{conversation_id}", "HEAD /c/{conversation_id}"),  # the chat page, empty
    *("GET /s/{share_id}", "HEAD /s/{share_id}"),  # the same page, empty
    "GET /v1/shared/{share_id}",  # for anybody with the link: tests/e2e/test_owner_resources.py
}

ROWS = (
    *(Row(f"GET /v1/{path}") for path in ("me/data_jobs/{job_id}", "me/data_jobs/{job_id}/content")),
    *(Row(f"{verb} /v1/api_keys/{{key_id}}") for verb in ("GET", "DELETE")),
    *(Row(f"{verb} /v1/shares/{{share_id}}") for verb in ("GET", "DELETE")),
    *(Row(f"{verb} /v1/feedback/{{feedback_id}}") for verb in ("GET", "DELETE")),
    *(Row(f"{verb} /v1/projects/{{project_id}}") for verb in ("GET", "DELETE")),
    *(Row(f"{verb} /v1/chat/completions/{{completion_id}}") for verb in ("GET", "DELETE")),
    *(Row(f"{verb} /v1/conversations/{{conversation_id}}") for verb in ("GET", "DELETE")),
    *(Row(f"{verb} /v1/conversations/{{conversation_id}}/items/{{item_id}}") for verb in ("GET", "DELETE")),
    *(Row(f"{verb} /v1/responses/{{response_id}}") for verb in ("GET", "DELETE")),
    Row("GET /v1/responses/{response_id}", query="stream=true"),
    Row("GET /v1/responses/{response_id}", query="stream=true&starting_after=2"),
    Row("GET /v1/responses/{running_id}", query="stream=true"),
    Row("GET /v1/responses/{response_id}/trace"),
    Row("GET /v1/responses/{response_id}/input_items"),
    Row("POST /v1/responses/{response_id}/cancel"),
    Row("POST /v1/responses/{running_id}/cancel"),
    Row("DELETE /v1/responses/{running_id}"),
    Row("POST /v1/projects/{project_id}", {"name": "Mine now"}),
    Row("POST /v1/chat/completions/{completion_id}", {"metadata": {"mine": "now"}}),
    Row("GET /v1/chat/completions/{completion_id}/messages"),
    Row("POST /v1/conversations/{conversation_id}", {"title": "Mine now"}),
    Row("POST /v1/conversations/{conversation_id}", {"head": "{response_id}"}),
    Row("POST /v1/conversations/{own_id}", {"head": "{response_id}"}),
    Row("POST /v1/conversations/{own_id}", {"project": "{project_id}"}),
    Row("POST /v1/conversations/{conversation_id}/items", {"items": [MESSAGE]}),
    Row("GET /v1/conversations/{conversation_id}/items"),
    Row("GET /v1/conversations/{own_id}/items", query="after={item_id}"),
    Row("GET /v1/conversations/{own_id}/items/{item_id}"),
    Row("GET /v1/conversations/{conversation_id}/turns"),
    Row("GET /v1/conversations/{own_id}/turns", query="after={response_id}"),
    Row("POST /v1/conversations/{conversation_id}/restore"),
    Row("POST /v1/conversations/{deleted_id}/restore"),
    Row("POST /v1/conversations", {"project": "{project_id}"}),
    Row("GET /v1/conversations", query="after={conversation_id}"),
    Row("GET /v1/chat/completions", query="after={completion_id}"),
    Row("GET /v1/projects", query="after={project_id}"),
    Row("GET /v1/feedback", query="after={feedback_id}"),
    Row("GET /v1/shares", query="after={share_id}"),
    Row("POST /v1/feedback", {"response": "{response_id}", "rating": "up"}),
    Row("POST /v1/shares", {"conversation": "{conversation_id}"}),
    *(
        Row(f"POST /v1/responses{path}", {"input": "Hello.", **body})
        for path in ("", "/compact", "/input_tokens")
        for body in (
            {"conversation": "{conversation_id}"},
            {"conversation": {"id": "{conversation_id}", "parent": "{response_id}"}},
            {"conversation": {"id": "{own_id}", "parent": "{response_id}"}},
            {"previous_response_id": "{response_id}"},
            {"previous_response_id": "{running_id}"},
            {"input": [{"type": "item_reference", "id": "{item_id}"}]},
        )
    ),
    Row("POST /v1/responses", {"input": "Hello.", "conversation": "{conversation_id}", "stream": True}),
    Row("POST /v1/responses", {"input": "Hello.", "conversation": "{conversation_id}", "background": True}),
)

NOT_OF_AN_OWNER = {"POST /v1/chat/completions"}
"""Names nothing that is stored."""


async def made_by_ann(here: Service) -> dict[str, str]:
    """One of everything, and a response that is still being made."""
    async with here.client(ANN) as ann:
        project = (await ann.post("/v1/projects", json={"name": "Garden"})).json()["id"]
        conv = await conversation(ann, project=project)
        turn = await ask(ann, "Secret of Ann.", conversation=conv)
        deleted = await conversation(ann)
        await ann.delete(f"/v1/conversations/{deleted}")
        body = {"model": "companion", "store": True, "messages": [{"role": "user", "content": "Secret of Ann."}]}
        chat = (await ann.post("/v1/chat/completions", json=body)).json()["id"]
        feedback = (await ann.post("/v1/feedback", json={"response": turn["id"], "rating": "up"})).json()["id"]
        share = (await ann.post("/v1/shares", json={"conversation": conv})).json()["id"]
        key = (await ann.post("/v1/api_keys", json={"name": "script"})).json()["id"]
        job = (await run(here, ANN, "export"))["id"]
        waiting = await ask(ann, "Later.", background=True)  # no worker runs here: it stays queued
    return {
        "project_id": project,
        "conversation_id": conv,
        "deleted_id": deleted,
        "response_id": turn["id"],
        "running_id": waiting["id"],
        "item_id": turn["output"][0]["id"],
        "completion_id": chat,
        "feedback_id": feedback,
        "share_id": share,
        "key_id": key,
        "job_id": job,
    }


def of_nothing(ids: dict[str, str]) -> dict[str, str]:
    """Ids of the same form that nobody has."""
    swap = str.maketrans("0123456789abcdef", "fedcba9876543210")
    return {name: re.sub(r"[0-9a-f]{16,}", lambda found: found[0].translate(swap), id_) for name, id_ in ids.items()}


def filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], value)
    if isinstance(value, dict):
        return {key: filled(each, ids) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [filled(each, ids) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value


async def call(client: httpx.AsyncClient, row: Row, ids: dict[str, str]) -> tuple[int, str]:
    verb, path = filled(row.route, ids).split(" ")
    url = f"{path}?{filled(row.query, ids)}" if row.query else path
    body: Json = {"json": filled(row.body, ids)} if row.body is not None else {}
    answer = await client.request(verb, url, **body)
    text = answer.text
    for name, id_ in ids.items():
        text = text.replace(id_, f"<{name}>")
    return answer.status_code, text


def template(route: str) -> str:
    """As the document writes it: `own_id` and the like are ids of conversations and responses."""
    route = route.replace("{own_id}", "{conversation_id}").replace("{deleted_id}", "{conversation_id}")
    return route.replace("{running_id}", "{response_id}")


async def contents(here: Service, owner: str) -> dict[str, Json]:
    return {
        stored.body["id"]: stored.body
        async for page in everything(here.app.store, STATE, owner)
        for stored in page
        if stored.body["kind"] != "usage"
    }


async def test_every_route_of_the_document_has_a_row(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client(None) as anybody:
        document = (await anybody.get("/openapi.json")).json()
    routes = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    covered = {template(row.route) for row in ROWS} | OWN_ONLY | NOT_OF_AN_OWNER

    assert routes - covered == set(), "add a row for each to ROWS (or say in OWN_ONLY why it names no record)"
    assert covered - routes == set(), "these are gone"


async def test_what_is_anothers_is_not_there(tmp_path: Path) -> None:
    wrong: list[str] = []
    async with service(tmp_path) as here, here.client(BOB) as bob:
        ids = await made_by_ann(here)
        before = await contents(here, "ann")
        own = await conversation(bob)
        await ask(bob, "Hello.", conversation=own)
        nothing = of_nothing(ids) | {"own_id": own}
        for row in ROWS:
            theirs = await call(bob, row, ids | {"own_id": own})
            none = await call(bob, row, nothing)
            if theirs != none or not 400 <= theirs[0] < 500 or "Secret of Ann" in theirs[1]:
                wrong.append(f"{row}: {theirs} / {none}")
        after = await contents(here, "ann")

    assert wrong == []
    assert after == before


async def test_no_route_takes_an_id_of_any_kind_that_is_anothers(tmp_path: Path) -> None:
    """Every operation of the document that names something in its path, with every id that Ann has, fitting or not."""
    bodies = {template(row.route): row.body for row in ROWS if row.body is not None}
    wrong: list[str] = []
    async with service(tmp_path) as here, here.client(BOB) as bob:
        ids = await made_by_ann(here)
        before = await contents(here, "ann")
        own = await conversation(bob)
        nothing = of_nothing(ids)
        document = (await bob.get("/openapi.json")).json()
        routes = [f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs]
        routes = [route for route in routes if "{" in route and route not in OWN_ONLY]

        async def compare(route: str, name: str) -> None:
            row = Row(re.sub(r"\{\w+\}", "{any_id}", route), bodies.get(route))
            rest = {key: id_ for key, id_ in ids.items() if key in str(row.body)} | {"own_id": own}
            theirs = await call(bob, row, rest | {"any_id": ids[name]})
            none = await call(bob, row, of_nothing(rest) | {"own_id": own, "any_id": nothing[name]})
            if theirs != none or not 400 <= theirs[0] < 500 or "Secret of Ann" in theirs[1]:
                wrong.append(f"{route} with {name}: {theirs} / {none}")

        pairs = [(route, name) for route in routes for name in ids]
        for start in range(0, len(pairs), 32):
            await asyncio.gather(*(compare(*pair) for pair in pairs[start : start + 32]))
        after = await contents(here, "ann")

    assert len(pairs) > 300
    assert wrong == []
    assert after == before


async def test_a_key_of_idempotency_that_another_owner_used_is_ones_own(tmp_path: Path) -> None:
    key = {"idempotency-key": "the-same"}
    async with service(tmp_path) as here, here.client(ANN, **key) as ann, here.client(BOB, **key) as bob:
        made = [await ask(each, "Secret of Ann." if each is ann else "Hello.") for each in (ann, bob)]
        convs = [await conversation(each, metadata={"of": "me"}) for each in (ann, bob)]

    assert made[0]["id"] != made[1]["id"]
    assert convs[0] != convs[1]
    assert "Secret of Ann" not in str(made[1])


async def test_lists_show_ones_own(tmp_path: Path) -> None:
    lists = [f"/v1/{name}" for name in ("conversations", "projects", "shares", "feedback", "api_keys", "changes")]
    lists += ["/v1/chat/completions", "/v1/conversations?query=secret", "/v1/conversations?archived=true"]
    async with service(tmp_path) as here, here.client(ANN) as ann, here.client(BOB) as bob:
        await made_by_ann(here)
        shown = {path: (await bob.get(path)).json()["data"] for path in lists}
        mine = [path for path in lists if not (await ann.get(path)).json()["data"]]

    assert all(data == [] for data in shown.values()), shown
    assert mine == ["/v1/conversations?archived=true"]


@pytest.mark.parametrize("owner", ["ann", "*", "", "../ann", "ann/state"])
async def test_an_owner_named_by_the_caller_counts_for_nothing(tmp_path: Path, owner: str) -> None:
    async with service(tmp_path) as here, here.client(BOB) as bob:
        await made_by_ann(here)
        fields = {"owner": owner, "user": owner, "user_id": owner, "pk": owner, "partition": owner}
        made = (await bob.post("/v1/conversations", json={**fields, "metadata": {}})).json()
        listed = (await bob.get("/v1/conversations", params=fields)).json()["data"]
        header = {"x-owner": owner, "openai-organization": owner, "openai-project": owner}
        again = (await bob.get("/v1/conversations", headers=header)).json()["data"]

    assert [each["id"] for each in listed] == [each["id"] for each in again] == [made["id"]]
