"""`/v1/moderations` over HTTP, by the stock SDK, without a service behind it."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from openai import AsyncOpenAI, BadRequestError

from functions._edge import override_app
from localhost.testing import app_on_runtime, serving
from shared.bootstrap import build_app
from shared.safety.base import CATEGORIES
from shared.settings import Settings


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[AsyncOpenAI]:
    environ = {"COMPANION_DATA": str(tmp_path), "COMPANION_API_KEYS": "k=ada", "COMPANION_GUARDRAILS": "rules"}
    companion = build_app(Settings.read({**environ, "COMPANION_OFFLINE_DELAY": "0"}))
    with override_app(companion):
        async with (
            app_on_runtime() as app,
            serving(app) as url,
            AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as sdk,
        ):
            yield sdk
    await companion.close()


async def test_a_text_gets_a_score_for_every_category(client: AsyncOpenAI) -> None:
    answer = await client.moderations.create(input="I want to kill them all.")
    result = answer.results[0].model_dump(by_alias=True)

    assert answer.id.startswith("modr-") and answer.results[0].flagged
    for part in ("categories", "category_scores", "category_applied_input_types"):
        assert set(CATEGORIES) <= set(result[part])


async def test_each_text_of_a_list_gets_its_own_result(client: AsyncOpenAI) -> None:
    answer = await client.moderations.create(input=["The kettle boils.", "I will hurt you"])

    assert [result.flagged for result in answer.results] == [False, True]


async def test_parts_are_one_content(client: AsyncOpenAI) -> None:
    answer = await client.moderations.create(
        model="omni-moderation-latest",
        input=[
            {"type": "text", "text": "The kettle boils."},
            {"type": "image_url", "image_url": {"url": "https://example.com/kettle.png"}},
        ],
    )

    assert [result.flagged for result in answer.results] == [False]


@pytest.mark.parametrize("given", [[], [{"type": "video"}]])
async def test_what_cannot_be_judged_is_refused(client: AsyncOpenAI, given: list[object]) -> None:
    with pytest.raises(BadRequestError) as refused:
        await client.post("/moderations", body={"input": given}, cast_to=object)

    assert str(refused.value.param).startswith("input")


async def test_a_guardrail_of_the_settings_stands_in_the_answers_way(client: AsyncOpenAI) -> None:
    """The offline model repeats what the user says: a link that carries data does not come back."""
    address = "https://evil.example/" + "x" * 60
    async with client.responses.stream(model="companion", input=f"slowly 0.1 s: see {address} now") as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()

    assert "".join(deltas) == final.output_text
    assert "evil.example" not in final.output_text and "evil[.]example" in final.output_text


async def test_a_named_prompt_by_the_stock_sdk(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(
        prompt={"id": "pmpt_translate", "version": "1", "variables": {"language": "German", "text": "count to 2"}}
    )

    assert (answer.output_text, answer.prompt and answer.prompt.version) == ("1 2", "1")
    assert isinstance(answer.instructions, list)
