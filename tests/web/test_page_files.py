"""How the page's files are served, and what its sources must keep to."""

import json
import re
from pathlib import Path

import httpx
import pytest

from functions import page
from tests.processes import ROOT
from tests.web.conftest import Shared

WORDS = ROOT / "web" / "src" / "words"


def get(shared: Shared, path: str, **headers: str) -> httpx.Response:
    return httpx.get(shared.base + path, headers=headers, timeout=10)


def test_the_policy_allows_nothing_inline_and_nobody_else(shared: Shared) -> None:
    policy = get(shared, "/").headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)


@pytest.mark.parametrize("path", ["/", "/c/conv_1"])
def test_the_page_is_checked_with_the_server_each_time(shared: Shared, path: str) -> None:
    first = get(shared, path)
    again = get(shared, path, **{"if-none-match": first.headers["etag"]})

    assert first.headers["cache-control"] == "no-cache"
    assert "<script>" not in first.text
    assert "style=" not in first.text
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("encoding", ["br", "gzip", ""])
def test_assets_come_compressed_as_asked_and_stay_cached(shared: Shared, encoding: str) -> None:
    script = re.search(r'src="(/assets/[^"]+\.js)"', get(shared, "/").text)
    assert script

    found = get(shared, script[1], **{"accept-encoding": encoding or "identity"})

    assert found.headers.get("content-encoding", "") == encoding
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("name", ["..%2Findex.html", "%2e%2e", ".env", "nothing.js", "a%00b"])
def test_only_assets_are_served(shared: Shared, name: str) -> None:
    found = get(shared, f"/assets/{name}")

    assert found.status_code in (400, 404)
    assert "error" in found.json()


def test_without_a_built_page_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page, "DIST", tmp_path)  # the folder is where the build puts it: a constant on purpose

    assert page.MISSING.count("\n") == 1
    assert "make setup" in page.MISSING
    assert page.index({}).body == page.MISSING.encode()


def languages() -> dict[str, dict[str, str]]:
    return {path.stem: json.loads(path.read_text()) for path in WORDS.glob("*.json")}


def test_every_language_has_every_word_and_every_blank() -> None:
    blanks = {
        language: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in words.items()}
        for language, words in languages().items()
    }

    assert len(blanks) >= 2
    assert [language for language, keys in blanks.items() if keys != blanks["en"]] == []


def test_every_word_is_used() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "web" / "src").rglob("*.ts*"))
    unused = [key for key in languages()["en"] if f'"{key}"' not in sources and not key.startswith("suggestion")]

    assert unused == []


def test_the_page_reaches_nobody_but_its_server() -> None:
    """No content network, no font service, no telemetry: not in what was built either."""
    built = [path for path in (ROOT / "web" / "dist").rglob("*") if path.suffix in (".html", ".css")]

    assert built
    assert [path.name for path in built if re.search(r"https?://|url\(//", path.read_text())] == []
