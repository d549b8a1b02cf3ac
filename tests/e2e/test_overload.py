"""A host that is full, over HTTP: what begins a turn is refused before anything is done for it; reads are not."""

import asyncio

import pytest

from tests.e2e.test_trace import companion

CROWD = 12


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_what_does_not_fit_is_refused_unread_and_what_costs_little_is_served(path: str) -> None:
    settings = {"COMPANION_API_KEYS": "a=ada", "COMPANION_LOCAL_OWNER": "", "COMPANION_CONCURRENCY": "1"}
    async with companion(**settings, COMPANION_CORS_ORIGINS="https://app.example") as (client, app):
        client.headers["authorization"] = "Bearer a"
        place = await app.models.gate.enter("somebody")
        waiting = [asyncio.create_task(app.models.gate.enter(f"o{number}")) for number in range(CROWD)]
        await asyncio.sleep(0)
        refused = await client.post(path, content=b"{ no JSON", headers={"origin": "https://app.example"})
        read = await client.get("/v1/responses/resp_0")
        place.leave()
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        served = await client.post("/v1/responses", json={"input": "hello"})

    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "server_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-request-id"].startswith("req_")
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    assert read.status_code == 404
    assert served.status_code == 200
