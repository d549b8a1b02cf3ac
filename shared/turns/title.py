"""A conversation's title: made once, after its first answer, off the answer's path."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shared.app import App
from shared.conversations.records import ConversationRecord, TurnRecord
from shared.errors import AssistantError
from shared.models.base import TITLE_INSTRUCTIONS, Finished, ModelRequest, TextDelta, Usage
from shared.storage.base import STATE, Document
from shared.storage.mutate import Change, mutate
from shared.usage import meter
from shared.usage.prices import cost_of
from shared.usage.records import Spent

type Json = dict[str, Any]

log = logging.getLogger("companion.turns")

TITLE_MODEL = "companion-fast"
MAX_LENGTH = 80
_EXCERPT = 2000
"""Characters of the first exchange that a title is made from."""


async def make_title(app: App, owner: str, turn: TurnRecord) -> None:
    """Ask a small model, and put what it says (or else the first words of the user) into the header.

    A title that exists is never replaced, so two hosts may both try. The next turn tries again when this one failed.
    """
    assert turn.conversation is not None
    excerpt = _excerpt(turn)
    if not excerpt:
        return
    usage, title, cost = Usage(), "", 0.0
    try:
        model = await _model(app, turn)
        request = ModelRequest(
            model=model, instructions=TITLE_INSTRUCTIONS, items=[_message(excerpt)], max_output_tokens=64
        )
        async for event in app.models.stream(request):
            if isinstance(event, TextDelta):
                title += event.text
            elif isinstance(event, Finished):
                usage, cost = event.usage or usage, event.cost
    except AssistantError as error:
        log.info("title.failed", extra={"conversation": turn.conversation, "code": error.code})
    title = _clean(title) or _clean(excerpt)
    cost = cost or cost_of(
        app.models,
        app.settings.usage,
        TITLE_MODEL,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
    )
    spent = Spent(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost=cost)
    now = app.clock.now()
    charge = meter.charge(now, TITLE_MODEL, spent)
    try:
        await mutate(app.store, STATE, owner, [], [Change(turn.conversation, _titled(title)), charge])
    except _Gone:  # the model was asked all the same
        with suppress(_Gone):
            await mutate(app.store, STATE, owner, [], [Change(charge.id, _unless_erased(charge))])


class _Gone(Exception):
    """The conversation was deleted, or has a title; or its owner was erased."""


def _unless_erased(charge: Change) -> Callable[[Document | None], Document]:
    """Of a month that was erased nothing is left, or bare sums until it ends: written anew, they would stay."""

    def apply(body: Document | None) -> Document:
        if body is None or "ttl" in body:
            raise _Gone
        return charge.apply(body)

    return apply


async def title_quietly(app: App, owner: str, turn: TurnRecord) -> None:
    """`make_title` for a task that nobody awaits."""
    try:
        await make_title(app, owner, turn)
    except AssistantError as error:
        log.info("title.failed", extra={"conversation": turn.conversation, "code": error.code})


async def _model(app: App, turn: TurnRecord) -> str:
    try:
        return await app.models.resolve(TITLE_MODEL)
    except AssistantError:
        return await app.models.resolve(turn.params["model"])


def _excerpt(turn: TurnRecord) -> str:
    """The first words of the user and of the answer."""
    texts = [
        part["text"]
        for item in [*turn.input, *turn.output]
        if item["type"] == "message" and item["role"] in ("user", "assistant")
        for part in item["content"]
        if part.get("text")
    ]
    return "\n\n".join(text[:_EXCERPT] for text in texts[:2])


def _message(text: str) -> Json:
    content = [{"type": "input_text", "text": text}]
    return {"id": "msg_title", "type": "message", "status": "completed", "role": "user", "content": content}


def _clean(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "").strip("\"'“”«»*#. ")
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 1].rstrip()}…"


def _titled(title: str) -> Any:
    def apply(body: Document | None) -> Document:
        if body is None or body.get("kind") != "conversation" or body.get("title"):
            raise _Gone
        return ConversationRecord.model_validate(body).model_copy(update={"title": title}).document()

    return apply
