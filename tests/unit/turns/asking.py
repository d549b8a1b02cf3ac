"""Small helpers to talk to the engine as a surface does."""

from typing import Any

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.conversations.service import create_conversation
from shared.principal import Principal
from shared.turns.begin import begin_turn
from shared.turns.follow import finished, follow
from shared.turns.live import LiveTurn
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse

CALLER = Principal(owner="ada")


async def begin(app: App, text: str | None = None, **fields: Any) -> LiveTurn:
    sent = {name: fields.pop(name) for name in ("send_key", "body_hash", "is_retry") if name in fields}
    create = CreateResponse.model_validate({"input": text, **fields})
    return await begin_turn(app, CALLER, TurnRequest(create=create, **sent))


async def ask(app: App, text: str | None = None, **fields: Any) -> TurnRecord:
    """One turn to its end."""
    live = await begin(app, text, **fields)
    return await finished(app, CALLER.owner, live)


async def conversation(app: App) -> str:
    return (await create_conversation(app, CALLER.owner, metadata={}, items=None)).id


async def events(app: App, turn: str, *, after: int = -1) -> list[dict[str, Any]]:
    """What a resumed stream gives."""
    return [event async for batch in follow(app, CALLER.owner, turn, after=after) for event in batch.events]


def text_of(turn: TurnRecord) -> str:
    return "".join(part["text"] for item in turn.output if item["type"] == "message" for part in item["content"])
