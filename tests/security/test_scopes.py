"""What a key may do: read, chat, or everything; asked of every route of the document."""

import re
from pathlib import Path

from functions._edge import PUBLIC
from functions.not_found import known_routes
from tests.owners import ANN, service

ADMIN = {
    *("POST /v1/me", "POST /v1/me/adopt", "POST /v1/me/export", "POST /v1/me/import", "POST /v1/me/erase"),
    *("GET /v1/me/data_jobs/{job_id}", "GET /v1/me/data_jobs/{job_id}/content", "GET /v1/admin/usage"),
    *("POST /v1/api_keys", "GET /v1/api_keys", "GET /v1/api_keys/{key_id}", "DELETE /v1/api_keys/{key_id}"),
    *("GET /v1/admin/routes", "PUT /v1/admin/routes", "DELETE /v1/admin/routes"),
}
"""What a stolen key of the two smaller scopes must not do: take everything away, or get more."""


async def test_every_route_asks_for_its_scope(tmp_path: Path) -> None:
    """Ann is an operator, so that nothing but the scope can refuse her."""
    refused: dict[str, set[str]] = {"read": set(), "chat": set(), "admin": set()}
    async with service(tmp_path, COMPANION_OPERATORS="ann") as here, here.client(ANN) as ann:
        document = (await ann.get("/openapi.json")).json()
        routes = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
        for scope, found in refused.items():
            key = (await ann.post("/v1/api_keys", json={"name": scope, "scopes": [scope]})).json()["key"]
            async with here.client(key) as client:
                for route in routes:
                    verb, path = re.sub(r"\{\w+\}", "x", route).split(" ")
                    answer = await client.request(verb, path, json={} if verb in ("POST", "PUT") else None)
                    if answer.status_code == 403 and b"insufficient_scope" in answer.content:
                        found.add(route)
        public = {
            f"{verb} /{r.template.text.strip('/')}" for r in known_routes() if r.name in PUBLIC for verb in r.methods
        }

    writing = {route for route in routes - public if not route.startswith(("GET ", "HEAD "))}
    assert refused["admin"] == set()
    assert refused["chat"] == ADMIN
    assert refused["read"] == ADMIN | writing


async def test_a_key_cannot_make_one_that_may_do_more(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client(ANN) as ann:
        made = [
            (await ann.post("/v1/api_keys", json={"name": "k", "scopes": scopes})).json()["key"]
            for scopes in (["chat", "read"], ["admin"])
        ]
        async with here.client(made[0]) as chat, here.client(made[1]) as admin:
            tried = await chat.post("/v1/api_keys", json={"name": "more", "scopes": ["admin"]})
            other = await admin.post("/v1/api_keys", json={"name": "same", "scopes": ["admin"]})

    assert (tried.status_code, other.status_code) == (403, 200)
