"""The rules that need no service: links and images that would carry data out, and secrets.

An answer is read by software that fetches the images in it and shows its links; so text that a tool, a file or a page
brought into the context can have the model send what it knows to a stranger, in an address. Hosts that are not
allowed lose their images, and their links where these carry data. Secrets (keys, tokens) are never shown.
"""

import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from shared.safety.base import Blocked, Content, TextFilter

type Action = Literal["mask", "block", "flag"]

LONGEST_HELD = 12_000
"""Characters held back at most while a pattern may be beginning."""
DATA_LENGTH = 40
"""An unbroken run of so many characters in an address may be data."""
QUERY_LENGTH = 160
PATH_LENGTH = 400

_WORD = re.compile(r"[A-Za-z]?[a-z0-9]{0,23}")

_ALONE = r"(?<![A-Za-z0-9_-])"
_SECRETS = {
    "a private key": (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:[^-]|-(?!----END))*(?:-----END [A-Z0-9 ]*PRIVATE KEY-----)?"
    ),
    "an API key": (
        _ALONE + r"(?:sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{20,}|ck_[A-Za-z0-9]{20,}|AIza[A-Za-z0-9_-]{35})"
    ),
    "an access token": (
        _ALONE + r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}"
        r"|xox[abprs]-[A-Za-z0-9-]{10,}|glpat-[A-Za-z0-9_-]{20,})"
    ),
    "a cloud key": _ALONE + r"(?:(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AccountKey=[A-Za-z0-9+/=]{40,})",
    "a signed token": _ALONE + r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
}
_URL_END = r"""[^\s<>"'`)\]]"""
_TARGET = r"\(\s*<?(?P<{name}>[^)\s>\n]{{1,2048}})>?[^)\n]{{0,300}}\)"
_ALT = r"(?:[^\n]|\n(?!\s*\n))"
_TAGS = r"(?i:img|a|iframe|video|audio|source|link|embed)"
_ADDRESSES = (
    rf"!\[(?P<alt>{_ALT}{{0,300}}?)\]" + _TARGET.format(name="image"),
    r"!\[(?P<ref>[^\[\]\n]{0,300})\]\[[^\[\]\n]{0,300}\]",
    r"\[(?P<words>[^\[\]\n]{0,300})\]" + _TARGET.format(name="link"),
    rf"<(?P<tag>{_TAGS})\s[^>]{{0,2048}}?(?i:src|href|poster)\s*=\s*[\"']?(?P<html>[^\"'\s>]{{1,2048}})[^>]{{0,2048}}>",
    rf"(?P<bare>(?i:https?|ftp)://{_URL_END}{{1,2048}})",
)

_PATTERN = re.compile(
    "|".join([*(f"(?P<secret{place}>{pattern})" for place, pattern in enumerate(_SECRETS.values())), *_ADDRESSES])
)
_SECRET = re.compile("|".join(f"(?:{pattern})" for pattern in _SECRETS.values()))
_REMOVED = "[secret removed]"
_SECRET_NAMES = {f"secret{place}": name for place, name in enumerate(_SECRETS)}

_STARTS = (
    *("sk-", "ck_", "AIza", "eyJ", "AKIA", "ASIA", "AccountKey="),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxa-", "xoxb-", "xoxp-", "xoxr-", "xoxs-"),
)
_SCHEMES = ("http://", "https://", "ftp://")


def _beginnings(words: Sequence[str]) -> str:
    """Each word's proper beginnings, as one pattern."""
    cut = {re.escape(word[:length]) for word in words for length in range(1, len(word) + 1)}
    return "|".join(sorted(cut, key=lambda text: (-len(text), text)))


# What may be the beginning of a pattern, at the end of the text so far.
_MAYBE = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:[^-]|-(?!----END))*(?:-----END[A-Z0-9 -]*)?\Z"
    r"|-{1,5}\Z|-----B[A-Z0-9 ]*-{0,5}\Z"
    rf"|(?<![A-Za-z0-9_-])(?:{'|'.join(map(re.escape, _STARTS))})[A-Za-z0-9+/=._-]*\Z"
    rf"|(?<![A-Za-z0-9_-])(?:{_beginnings(_STARTS)})\Z"
    rf"|!\[{_ALT}{{0,300}}?(?:\](?:\([^)\n]{{0,2400}})?)?\Z"
    r"|!\[[^\[\]\n]{0,300}\]\[[^\[\]\n]{0,300}\Z"
    r"|\[[^\[\]\n]{0,300}(?:\](?:\([^)\n]{0,2400})?)?\Z"
    r"|!\Z"
    rf"|<[A-Za-z]{{0,6}}\Z|<{_TAGS}\s[^>]{{0,4000}}\Z"
    rf"|(?i:https?|ftp)://{_URL_END}{{0,2048}}\Z"
    rf"|(?i:{_beginnings(_SCHEMES)})\Z"
)


class RulesFilter:
    """See `TextFilter`. However the text is cut, what comes out joined is the same."""

    def __init__(self, rules: "Rules") -> None:
        self._rules = rules
        self._held = ""
        self._before = ""
        """The last character let go: patterns look one back."""
        self.findings: list[str] = []

    def feed(self, text: str) -> str:
        self._held += text
        return self._release(self._safe_length())

    def finish(self) -> str:
        return self._release(len(self._held))

    def _safe_length(self) -> int:
        """How much of what is held cannot be part of a pattern that is still growing."""
        held = self._before + self._held
        skip = len(self._before)
        maybe = _MAYBE.search(held, max(skip, len(held) - LONGEST_HELD))
        if maybe is None:
            return len(self._held)
        for match in _PATTERN.finditer(held, skip):
            if maybe is None or match.start() >= maybe.start():
                break
            if match.end() > maybe.start():  # inside something that is whole already
                maybe = _MAYBE.search(held, match.end())
        return len(self._held) if maybe is None else maybe.start() - skip

    def _release(self, length: int) -> str:
        if length == 0:
            return ""
        text, self._held = self._before + self._held[:length], self._held[length:]
        skip = len(self._before)
        self._before = text[-1]
        pieces: list[str] = []
        place = skip
        for match in _PATTERN.finditer(text, skip):
            instead = self._rules.instead(match, self.findings)
            if instead is not None:
                pieces += [text[place : match.start()], instead]
                place = match.end()
        return text[skip:] if not pieces else "".join([*pieces, text[place:]])


class Rules:
    """The guardrail `rules`. `mask` puts something harmless in the place of what it finds, `block` ends the answer
    there, `flag` only says in the log that it was found."""

    judges_output = False

    def __init__(self, *, action: Action = "mask", allowed_hosts: Sequence[str] = ()) -> None:
        self._action = action
        self._hosts = frozenset(host for host in allowed_hosts if not host.startswith("*."))
        self._domains = tuple(host[1:] for host in allowed_hosts if host.startswith("*."))

    async def check_input(self, content: Content) -> None:
        """What a user sends is the user's to send."""
        del content

    def text_filter(self) -> TextFilter:
        return RulesFilter(self)

    async def check_output(self, text: str) -> None:
        """All of it is the filter's work."""
        del text

    async def check_tool_output(self, text: str) -> str:
        """Without secrets: the model need not know them. Links stay; they matter in answers."""
        if self._action == "flag":
            return text
        if self._action == "block" and _SECRET.search(text):
            raise Blocked("The tool's output holds a secret.")
        return _SECRET.sub(_REMOVED, text)

    async def close(self) -> None:
        return None

    def instead(self, match: re.Match[str], findings: list[str]) -> str | None:
        """What is shown instead of a match; None: it is harmless, or only flagged.

        Raises:
            Blocked: it is not, and such answers end.
        """
        kind, replacement = self._judge(match)
        if kind is None:
            return None
        findings.append(kind)
        if self._action == "block":
            raise Blocked(f"The answer would have shown {kind}.")
        return _SECRET.sub(_REMOVED, replacement) if self._action == "mask" else None

    def _judge(self, match: re.Match[str]) -> tuple[str | None, str]:
        """What is wrong with a match, if anything, and what could stand there instead."""
        groups = match.groupdict()
        secret = next((name for name in _SECRET_NAMES if groups[name]), None)
        if secret is not None:
            return _SECRET_NAMES[secret], _REMOVED
        if groups["ref"] is not None:
            return "an image whose address stands elsewhere", f"{groups['ref']} [image removed]".lstrip()
        if groups["image"]:
            found = self._address(groups["image"], groups["alt"], is_fetched=True)
        elif groups["link"]:
            found = self._address(groups["link"], groups["words"], is_fetched=False)
        elif groups["html"]:
            found = self._address(groups["html"], "", is_fetched=groups["tag"].lower() != "a")
        else:
            found = self._address(groups["bare"], "", is_fetched=False)
        if found[0] is None and _SECRET.search(match.group()):
            return "a secret in an address", match.group()
        return found

    def _address(self, url: str, words: str, *, is_fetched: bool) -> tuple[str | None, str]:
        what = "an image of a host that is not allowed" if is_fetched else "a link that carries data to a stranger"
        is_harmful = not self._is_allowed(url) and (is_fetched or carries_data(url))
        label = "image" if is_fetched else "link"
        return (what if is_harmful else None), f"{words} [{label} removed: {defanged(url)}]".lstrip()

    def _is_allowed(self, url: str) -> bool:
        try:
            parts = urlsplit(url if not url.startswith("//") else f"https:{url}")
            host = (parts.hostname or "").lower().rstrip(".")
        except ValueError:
            return False
        if not host:
            return parts.scheme not in ("http", "https", "ftp")  # relative, data:, mailto:
        return host in self._hosts or host.endswith(self._domains)


def carries_data(url: str) -> bool:
    """Whether an address holds more than an address needs: a long query or path, or a long run of characters that are
    no words with hyphens between them."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    if len(parts.query) + len(parts.fragment) > QUERY_LENGTH or len(parts.path) > PATH_LENGTH or "@" in parts.netloc:
        return True
    pieces = re.split(r"[/&=?#;,.+]|%20", "/".join([parts.path, parts.query, parts.fragment]))
    labels = (parts.hostname or "").split(".")
    return any(len(piece) >= DATA_LENGTH and not _is_slug(piece) for piece in pieces) or any(
        len(label) >= DATA_LENGTH for label in labels
    )


def _is_slug(piece: str) -> bool:
    """Words of a title, or the groups of an id: short, and no capital in the middle."""
    words = re.split("[-_]", piece)
    return len(words) > 1 and all(_WORD.fullmatch(word) for word in words)


def defanged(url: str) -> str:
    """The host alone, in a form that no software takes for an address."""
    try:
        host = urlsplit(url).hostname or "unknown"
    except ValueError:
        host = "unknown"
    return host.replace(".", "[.]")
