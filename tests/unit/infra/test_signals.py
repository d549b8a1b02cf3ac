"""Alerts and the workbook ask for what the app says, and the run-book explains every alert."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.bicep_gate import syntax

ROOT = Path(__file__).parents[3]
QUERIES = sorted((ROOT / "infra" / "queries").glob("*.kql"))
WORKBOOK = ROOT / "infra" / "workbook.json"

EVENT = re.compile(r'[Mm]essage == "([a-z_.]+)"')
FIELD = re.compile(r"(?:Properties|customDimensions)\.(\w+)")


def workbook_queries() -> Iterator[str]:
    for item in json.loads(WORKBOOK.read_text())["items"]:
        if "query" in item["content"]:
            yield item["content"]["query"]


def asked() -> str:
    return "\n".join([*(path.read_text() for path in QUERIES), *workbook_queries()])


def source() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "shared").rglob("*.py"))


def test_every_event_asked_for_is_one_the_code_logs() -> None:
    events = set(EVENT.findall(asked()))

    assert events >= {"turn.ended", "turn.taken_over"}
    assert [event for event in sorted(events) if f'"{event}"' not in source()] == []


def test_every_field_asked_for_is_one_the_code_logs() -> None:
    fields = set(FIELD.findall(asked()))

    assert fields >= {"first_token_ms", "charge"}
    assert [field for field in sorted(fields) if f'"{field}"' not in source()] == []


def alert_names() -> list[str]:
    source = (ROOT / "infra" / "modules" / "alerts.bicep").read_text()
    return sorted(set(re.findall(r"^  *name: '([a-z0-9-]+?)(?:-\$\{i\})?-\$\{token\}'", source, re.M)) - {"ag"}) + [
        path.stem for path in QUERIES
    ]


@pytest.mark.parametrize("name", alert_names())
def test_the_run_book_says_what_an_alert_means(name: str) -> None:
    headings = re.findall(r"^### `([a-z0-9-]+)`", (ROOT / "docs" / "operate.md").read_text(), re.M)

    assert headings.count(name) == 1


def test_the_run_book_explains_no_alert_that_is_gone() -> None:
    headings = re.findall(r"^### `([a-z0-9-]+)`", (ROOT / "docs" / "operate.md").read_text(), re.M)

    assert sorted(headings) == sorted([*alert_names(), "budget"])


def test_every_query_file_is_an_alert() -> None:
    template = syntax.read(ROOT / "infra" / "modules" / "alerts.bicep")
    loaded = re.findall(r"loadTextContent\('\.\./queries/([a-z-]+)\.kql'\)", syntax.text(template.root))

    assert sorted(loaded) == [path.stem for path in QUERIES]
