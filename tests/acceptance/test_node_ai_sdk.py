"""Story: a web team uses the AI SDK (`ai` and `@ai-sdk/openai`) with Companion behind it."""

from tests.acceptance.client import run_client


def test_each_way_of_conversing_remembers(base_url: str) -> None:
    answers = run_client("ai-sdk.mjs", base_url)

    assert "Ada" in answers["responses"][1]
    assert "Ada" in answers["chat"][1]
    assert "Ada" in answers["conversation"][1]
