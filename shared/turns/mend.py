"""An answer that broke off after its first words, or with its host: two answers are never spliced.

Where the deployment can go on from a prefix, the open text goes on; else it is closed as `incomplete`, kept from every
later call, and the answer begins again in a new item.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shared.errors import AssistantError
from shared.models.base import Finished, ItemStarted, ModelEvent, ModelRequest, Usage
from shared.models.router import Router
from shared.turns.context import estimate_tokens
from shared.turns.output import Output

if TYPE_CHECKING:
    from shared.turns.run import Run

type Json = dict[str, Any]

_CALLS = ("function_call", "custom_tool_call", "mcp_call")
_APART = 1_000
"""What the keys of a later call's items are moved by, so that none is the open item's."""


def going_on_from(models: Router, request: ModelRequest, output: Output) -> ModelRequest | None:
    """The request that goes on with the open text; None where that is not possible.

    Not with a format that is enforced (its grammar would begin anew), nor with log probabilities (the first are lost).
    """
    text = output.open_text
    wanted: Json = request.text or {}
    format_: Json = wanted.get("format") or {}
    if not text or request.logprobs or format_.get("type", "text") != "text":
        return None
    item = output.open_items()[0]
    if item is not output.items[-1] or len(item["content"]) != 1:
        return None
    request = replace(request, prefix=text, items=[each for each in request.items if each.get("id") != item["id"]])
    return request if models.can_continue(request) else None


async def going_on(events: AsyncIterator[ModelEvent], key: int) -> AsyncGenerator[ModelEvent]:
    """The events of a call that goes on with a text: its message is the item that is open under `key`."""
    theirs: int | None = None
    async for event in events:
        if isinstance(event, Finished):
            yield event
        elif theirs is None and isinstance(event, ItemStarted) and event.type == "message":
            theirs = event.key
        else:
            yield replace(event, key=key if event.key == theirs else event.key + abs(key) + _APART)


async def mended(run: "Run", request: ModelRequest, error: AssistantError, start: int) -> ModelRequest:
    """What to ask now that a call broke off; `start` is how many items there were before it.

    Raises:
        AssistantError: the error itself, when nothing was shown (the router has done what it can), when a call of a
            tool was shown whole (it may be running at the client), or when it broke too often.
    """
    output, models = run.output, run.app.models
    tries = models.tries_of(await models.route(request.model))
    new = output.items[start:]
    is_shown = bool(new or output.open_items())
    is_called = any(item["type"] in _CALLS and item not in output.open_items() for item in new)
    if not is_shown or is_called or run.mends >= tries - 1 or not models.budget.take():
        raise error
    run.mends += 1
    request = replace(request, is_last_try=run.mends >= tries - 1)
    said = estimate_tokens(output.snapshot()[start:])
    tokens = Usage(input_tokens=estimate_tokens(request.items), output_tokens=said)
    run.result.usage += tokens
    run.result.cost += models.price(request.model, tokens.input_tokens, tokens.output_tokens)
    further = going_on_from(models, request, output)
    if further is not None:
        run.note("The answer broke off and was gone on with from what was shown.")
        return further
    torn = [item["id"] for item in (*output.open_items(), *new)]
    await run.tear(torn, "The answer broke off; what was shown of it was closed, and it restarts.")
    return replace(request, prefix=None)
