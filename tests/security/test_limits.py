"""Money and rates under load: what is spent stays under the ceiling, and nobody is refused below it."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from shared.clock import ManualClock
from shared.models.offline import OfflineModel
from shared.storage.base import STATE
from shared.usage import meter
from shared.usage.records import Spent, UsageRecord
from tests.owners import ANN, BOB, Service, ask, conversation, service

PRICES = '{"*": {"input": 10, "output": 100}}'


async def spent(here: Service, owner: str = "ann") -> UsageRecord:
    stored = await here.app.store.read(STATE, owner, meter.month_id(here.app.clock.now()))
    assert stored is not None
    return UsageRecord.model_validate(stored.body)


def cost(record: UsageRecord) -> float:
    return sum(each.cost for models in record.days.values() for each in models.values())


async def test_64_parallel_turns_on_the_last_cent_overspend_by_one_settlement_at_most(tmp_path: Path) -> None:
    plans = '{"static": {"usd_per_day": 1.0, "requests_per_minute": null, "tokens_per_minute": null}}'
    async with service(tmp_path, COMPANION_PRICES=PRICES, COMPANION_PLANS=plans) as here, here.client() as ann:
        now = here.app.clock.now()
        used = UsageRecord.model_validate(
            meter.settle(meter.fresh(meter.month_id(now)), "", model="m", spent=Spent(cost=0.99), now=now).document()
        )
        from shared.storage.base import Create

        await here.app.store.batch(STATE, "ann", [Create(used.document())])
        fields = {"model": "companion", "input": "Say something short.", "max_output_tokens": 20}

        async def one() -> tuple[int, str]:
            while True:
                answer = await ann.post("/v1/responses", json=fields)
                if answer.status_code == 200:
                    return 200, ""
                code = answer.json()["error"]["code"]
                assert answer.status_code == 429, answer.text
                assert "retry-after" in answer.headers
                if code == "insufficient_quota":
                    record = await spent(here)
                    assert cost(record) >= 1.0, "refused for money while there was some"
                    return 429, code
                await asyncio.sleep(0.05)  # others hold what is left: as a client does, try again

        outcomes = await asyncio.gather(*(one() for _ in range(64)))
        record = await spent(here)
        accepted = sum(1 for status, _ in outcomes if status == 200)
        each = (cost(record) - 0.99) / accepted

    assert 0 < accepted < 64
    assert 1.0 <= cost(record) <= 1.0 + each * 1.5
    assert not record.reserved


async def test_tokens_and_requests_per_minute_are_said_on_every_answer_and_refused_with_a_time(tmp_path: Path) -> None:
    clock = ManualClock()
    plans = '{"static": {"requests_per_minute": 2, "tokens_per_minute": 100000}}'
    async with service(tmp_path, clock=clock, COMPANION_PLANS=plans) as here, here.client() as ann:
        first = await ann.post("/v1/responses", json={"input": "One."})
        await ask(ann, "Two.")
        third = await ann.post("/v1/responses", json={"input": "Three."})
        chat = await ann.post(
            "/v1/chat/completions", json={"model": "companion", "messages": [{"role": "user", "content": "Four."}]}
        )
        clock.advance(float(third.headers["retry-after"]))
        fourth = await ann.post("/v1/responses", json={"input": "Three."})

    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert third.status_code == chat.status_code == 429
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    assert third.json()["error"]["type"] == "requests"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert fourth.status_code == 200


async def test_streams_say_what_is_left_too(tmp_path: Path) -> None:
    async with service(tmp_path) as here, here.client() as ann:
        answer = await ann.post("/v1/responses", json={"input": "One.", "stream": True})

    assert "x-ratelimit-remaining-requests" in answer.headers


async def test_no_more_turns_at_once_than_the_plan_allows(tmp_path: Path) -> None:
    plans = '{"static": {"concurrent_turns": 2, "requests_per_minute": 100, "tokens_per_minute": null}}'
    model = OfflineModel(word_delay=0.02)
    async with service(tmp_path, model=model, COMPANION_PLANS=plans) as here, here.client() as ann:
        body = {"input": "Say something.", "stream": True}
        answers = await asyncio.gather(*(ann.post("/v1/responses", json=body) for _ in range(6)))
        after = await ann.post("/v1/responses", json=body)

    refused = [answer for answer in answers if answer.status_code == 429]
    assert sum(answer.status_code == 200 for answer in answers) == 2
    assert len(refused) == 4
    for answer in refused:
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["retry-after-ms"] == "1000"
        assert answer.headers["x-ratelimit-limit-requests"] == "100"
    assert after.status_code == 200


async def test_a_title_is_charged_too(tmp_path: Path) -> None:
    async with service(tmp_path, COMPANION_PRICES=PRICES, COMPANION_TITLES="on") as here, here.client() as ann:
        conv = await conversation(ann)
        turn = await ask(ann, "Tell me of figs.", conversation=conv)
        while (await ann.get(f"/v1/conversations/{conv}")).json()["title"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (day,) = (await ann.get("/v1/me/usage")).json()["days"]

    models = {each["model"]: each for each in day["models"]}
    assert models["companion"]["output_tokens"] == turn["usage"]["output_tokens"]
    assert models["companion-fast"]["cost"] > 0


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/embeddings"])
async def test_every_surface_says_what_is_left_as_openai_does_and_refuses_in_its_words(
    tmp_path: Path, path: str
) -> None:
    plans = '{"static": {"requests_per_minute": 1, "tokens_per_minute": 200000}}'
    bodies: dict[str, Any] = {"/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello."}]}}
    body = {"model": "companion", **bodies.get(path, {"input": "Hello."})}
    async with service(tmp_path, COMPANION_PLANS=plans) as here, here.client() as ann:
        answers = [await ann.post(path, json=body) for _ in range(2)]

    for answer, status, left in zip(answers, (200, 429), ("0", "0"), strict=True):
        said = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")}
        assert answer.status_code == status
        assert sorted(said) == sorted(
            f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
        )
        assert said["x-ratelimit-limit-requests"] == "1"
        assert said["x-ratelimit-limit-tokens"] == "200000"
        assert said["x-ratelimit-remaining-requests"] == left
        assert re.fullmatch(r"(\d+h)?(\d+m)?\d+(\.\d+)?s|\d+ms", said["x-ratelimit-reset-requests"])
    assert answers[1].json()["error"]["type"] == "requests"
    assert 50 <= int(answers[1].headers["retry-after"]) <= 60
    assert "retry-after" not in answers[0].headers


async def test_one_owners_spending_is_no_business_of_anothers(tmp_path: Path) -> None:
    plans = '{"static": {"requests_per_minute": 1}}'
    async with service(tmp_path, COMPANION_PLANS=plans) as here, here.client(ANN) as ann, here.client(BOB) as bob:
        await ask(ann, "One.")
        refused = await ann.post("/v1/responses", json={"input": "Two."})
        other = await bob.post("/v1/responses", json={"input": "One."})

    assert (refused.status_code, other.status_code) == (429, 200)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses/compact"])
async def test_embeddings_and_compaction_are_charged_and_limited(tmp_path: Path, path: str) -> None:
    plans = '{"static": {"usd_per_day": 0.0000001}}'
    async with (
        service(tmp_path, COMPANION_PRICES=PRICES, COMPANION_PLANS=plans) as here,
        here.client() as ann,
    ):
        first = await ann.post(path, json={"model": "companion", "input": "Some words to count."})
        record = await spent(here)
        second = await ann.post(path, json={"model": "companion", "input": "Some words to count."})

    assert first.status_code == 200
    assert cost(record) > 0
    assert not record.reserved
    assert (second.status_code, second.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_what_a_dead_process_reserved_is_free_again_after_minutes(tmp_path: Path) -> None:
    clock = ManualClock()
    plans = '{"static": {"usd_per_day": 1.0, "concurrent_turns": 1}}'
    async with (
        service(tmp_path, clock=clock, COMPANION_PRICES=PRICES, COMPANION_PLANS=plans) as here,
        here.client() as ann,
    ):
        await ask(ann, "One.", store=False)
        from shared.storage.mutate import Change, mutate

        def leave(body: object) -> dict[str, object]:
            record = UsageRecord.model_validate(body)
            limits = here.app.settings.usage.limits_of("static")
            now = clock.now()
            return meter.reserve(
                record, "resp_dead", limits=limits, tokens=10, cost=5.0, now=now, seconds=300
            ).document()

        await mutate(here.app.store, STATE, "ann", [], [Change(meter.month_id(clock.now()), leave)])
        held = await ann.post("/v1/responses", json={"input": "Two."})
        clock.advance(301)
        free = await ann.post("/v1/responses", json={"input": "Two."})

    assert (held.status_code, held.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert free.status_code == 200
