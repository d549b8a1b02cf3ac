"""What holds for every test: settings of the developer's shell do not leak in, and CI accepts no skipped test."""

import os
from collections.abc import Iterable

import pytest

_KEPT = ("COSMOS_",)  # the contract suite runs against an account named in the environment
_SETTINGS = ("AZURE_", "COMPANION_", "OPENAI_", "STORAGE_")

for _name in list(os.environ):
    if _name.startswith(_SETTINGS) and not _name.startswith(_KEPT):
        del os.environ[_name]

# Stock clients that would report home do not.
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
os.environ["LANGSMITH_TRACING"] = "false"
os.environ["LANGCHAIN_TRACING_V2"] = "false"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failed run: what is not run there is run nowhere."""
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = _skipped(terminalreporter.config)
    if not skipped:
        return
    terminalreporter.section("skipped in CI: not allowed")
    for report in skipped:
        terminalreporter.line(f"{report.nodeid}: {_reason(report)}")


def _skipped(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or not isinstance(reporter, pytest.TerminalReporter):
        return []
    reports: Iterable[object] = reporter.stats.get("skipped", [])
    return [report for report in reports if isinstance(report, pytest.TestReport | pytest.CollectReport)]


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
