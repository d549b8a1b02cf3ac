"""Story: a LangChain application swaps its base URL."""

from tests.acceptance.client import run_client


def test_each_way_of_conversing_remembers(base_url: str) -> None:
    answers = run_client("langchain_openai_client.py", base_url)

    assert "Ada" in answers["chat"][1]
    assert "Ada" in answers["responses"][1]
    assert "Ada" in answers["state on the server"][1]
    assert answers["plain"] != [""]
