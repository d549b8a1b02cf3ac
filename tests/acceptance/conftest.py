"""The hosts that every story runs on. A story knows the base URL and a stock client, nothing else of us."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.processes import EMULATOR_KEY, companion, cosmos_emulator, upstream
from tests.upstream import KEY

HOSTS = ("sqlite", "cosmos", "upstream chat", "upstream responses")


def start(name: str, data: Path, stack: ExitStack) -> str:
    """The base URL of a running Companion: which store it keeps state in, or which upstream answers it."""
    settings: dict[str, str] = {}
    if name == "cosmos":
        settings = {"COSMOS_ENDPOINT": stack.enter_context(cosmos_emulator()), "COSMOS_KEY": EMULATOR_KEY}
    if name.startswith("upstream"):
        settings = {"OPENAI_BASE_URL": stack.enter_context(upstream()), "OPENAI_API_KEY": KEY}
        settings["OPENAI_API"] = name.removeprefix("upstream ")
    return stack.enter_context(companion(data, **settings))


@pytest.fixture(scope="session", params=HOSTS)
def base_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    name: str = request.param
    with ExitStack() as stack:
        yield start(name, tmp_path_factory.mktemp("data"), stack)
