"""A Chromium that plays scenarios (tests/web/*.mjs) against a running server."""

import json
import shutil
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")

type Json = dict[str, Any]


class ScenarioFailed(AssertionError):
    """What was expected of the page was not so; the message says what, and what the page showed."""


class Browser(NamedTuple):
    process: subprocess.Popen[str]

    def play(
        self, scenario: str, base: str, *, answers: Mapping[str, Callable[[], None]] | None = None, **facts: Any
    ) -> Json:
        """Play a scenario to its end; `answers` does what it asks of the world outside the browser.

        Returns:
            What the scenario measured, if anything.
        """
        self._tell({"run": scenario, "base": base, **facts})
        while True:
            said = self.hear()
            if "ask" in said:
                (answers or {})[said["ask"]]()
                self._tell({"ok": True})
                continue
            if "error" in said:
                raise ScenarioFailed(said["error"])
            return said["facts"] or {}

    def _tell(self, message: Json) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Json:
        """The next thing the driver says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the browser's driver has ended"
        return json.loads(line)


@contextmanager
def running_browser() -> Generator[Browser]:
    """From when Chromium is there until the block ends."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    assert path is not None, "Chromium is missing: install the package `chromium`"
    with subprocess.Popen(
        ["node", str(FOLDER / "driver.mjs"), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        browser = Browser(process)
        try:
            assert "ready" in browser.hear()
            yield browser
        finally:
            if process.stdin is not None:
                with suppress(BrokenPipeError):  # it ended before us: the test that saw it has said so
                    process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
