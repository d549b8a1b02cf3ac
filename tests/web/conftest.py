"""What the page is tested with: one Chromium and one server per worker, an owner of its own for each scenario."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.web.browser import Browser, running_browser
from tests.web.servers import KillableServer, serving

OWNERS = 80


class Shared:
    """A server whose owners have keys; each scenario takes the next."""

    def __init__(self, server: KillableServer, data: Path) -> None:
        self.base = server.base
        self.data = data
        self._owners = iter(range(OWNERS))

    def next_owner(self) -> str:
        return f"owner{next(self._owners)}"


@pytest.fixture(scope="session", autouse=True)
def built_page() -> None:
    assert (ROOT / "web" / "dist" / "index.html").exists(), "the page is not built: run `make setup`"


@pytest.fixture(scope="session")
def browser(built_page: None) -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    data = tmp_path_factory.mktemp("page")
    keys = ",".join(f"key-owner{number}=owner{number}" for number in range(OWNERS))
    with serving(data, COMPANION_API_KEYS=keys) as server:
        yield Shared(server, data)
