"""Story: a web team points the `openai` package for Node at Companion."""

from tests.acceptance.client import run_client


def test_each_way_of_conversing_remembers(base_url: str) -> None:
    answers = run_client("openai.mjs", base_url)

    assert "Ada" in answers["conversation"][1]
    assert "Ada" in answers["chain"][1]
    assert "Ada" in answers["chat"][1]
    assert answers["roles"] == ["user", "assistant", "user", "assistant"]
