"""An owner's conversations as a library: filtered lists, and search by words."""

from typing import Literal, NamedTuple

from shared.conversations.records import ConversationRecord, TurnRecord
from shared.conversations.repository import conversations, turns
from shared.storage.base import Store

MOST_HEADERS = 200
"""Conversations looked at by one search request; the next one goes on behind them."""
MOST_TURNS = 400
"""Turns looked at by one search request."""
TURNS_EACH = 200
"""Newest turns of one conversation that are searched."""
_PAGE = 50
_AROUND = 60
"""Characters before and after the first word in a snippet."""


class Filters(NamedTuple):
    """None: either. Temporary conversations are never listed."""

    archived: bool | None = False
    pinned: bool | None = None
    project: str | None = None

    def fit(self, header: ConversationRecord) -> bool:
        return (
            not header.is_temporary
            and self.archived in (None, header.archived)
            and self.pinned in (None, header.pinned)
            and self.project in (None, header.project)
        )


async def listed(
    store: Store, owner: str, *, after: str | None, limit: int, order: Literal["asc", "desc"], filters: Filters
) -> tuple[list[ConversationRecord], bool]:
    """One page by time of last change, and whether there are more."""
    found: list[ConversationRecord] = []
    while True:
        page = await conversations(store, owner, after=after, limit=limit + 1, order=order)
        found += [header for header in page if filters.fit(header)]
        if len(found) > limit or len(page) <= limit:
            return found[:limit], len(found) > limit
        after = page[-1].sort


class Hit(NamedTuple):
    header: ConversationRecord
    place: Literal["title", "text"]
    response: str | None
    snippet: str


class Found(NamedTuple):
    hits: list[Hit]
    """Those of the title first, then newest first."""
    goes_on: str | None
    """The last conversation that was looked at, when there are more; None at the end."""


async def search(store: Store, owner: str, query: str, *, after: str | None, limit: int, filters: Filters) -> Found:
    """Conversations whose title or text has every word of the query, among the owner's own.

    Looks at a bounded number of conversations and turns; `goes_on` says where the next request is to begin.
    """
    words = query.casefold().split()
    hits: list[Hit] = []
    seen, left, place = 0, MOST_TURNS, after
    while True:
        page = await conversations(store, owner, after=place, limit=_PAGE)
        for position, header in enumerate(page):
            seen, place = seen + 1, header.sort
            if filters.fit(header):
                hit, looked = await _look(store, owner, header, words, most=min(left, TURNS_EACH))
                left -= looked
                hits += [hit] if hit else []
            is_last = position == len(page) - 1 and len(page) < _PAGE
            if not is_last and (len(hits) >= limit or seen >= MOST_HEADERS or left <= 0):
                return Found(_titles_first(hits), header.id)
        if len(page) < _PAGE:
            return Found(_titles_first(hits), None)


def text_of(turn: TurnRecord) -> str:
    """What was said in a turn, by either side, less what was deleted of it."""
    return "\n".join(
        part["text"]
        for item in [*turn.input, *turn.output]
        if item.get("type") == "message" and item["id"] not in turn.removed
        for part in item["content"]
        if isinstance(part.get("text"), str)
    )


async def _look(
    store: Store, owner: str, header: ConversationRecord, words: list[str], *, most: int
) -> tuple[Hit | None, int]:
    """The best hit in one conversation, and how many turns were read for it."""
    title = header.title or ""
    if _has(title, words):
        return Hit(header, "title", None, title), 0
    looked, after = 0, None
    while looked < most:
        page = await turns(store, owner, header.id, after=after, limit=min(_PAGE, most - looked))
        looked += len(page)
        for turn in page:
            text = text_of(turn) if turn.conversation == header.id else ""  # a fork is no part of it
            if _has(text, words):
                return Hit(header, "text", turn.id, _snippet(text, words[0])), looked
        if len(page) < _PAGE:
            break
        after = page[-1].sort
    return None, looked


def _has(text: str, words: list[str]) -> bool:
    folded = text.casefold()
    return bool(words) and all(word in folded for word in words)


def _snippet(text: str, word: str) -> str:
    place = max(0, text.casefold().find(word))
    start, end = max(0, place - _AROUND), place + len(word) + _AROUND
    return f"{'…' if start else ''}{text[start:end].strip()}{'…' if end < len(text) else ''}"


def _titles_first(hits: list[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: hit.place != "title")
