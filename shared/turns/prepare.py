"""Everything a turn needs before it is accepted, read in one parallel round."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.app import App
from shared.conversations.records import ConversationRecord, TurnRecord, sort_key
from shared.conversations.repository import (
    FoundConversation,
    find_conversation,
    find_turn,
    follow_path,
    turns,
    walk_back,
)
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import derived_token, turn_of
from shared.models.base import ModelRequest
from shared.principal import Principal
from shared.storage.base import STATE, Stored
from shared.turns.context import build_history, check_context, estimate_tokens, turn_items
from shared.turns.ledger import Ledger, busy
from shared.usage import meter
from shared.wire.items import stored_items
from shared.wire.responses import CreateResponse, effective_params, sent_params

type Json = dict[str, Any]

DEFAULT_MODEL = "companion"
DEFAULT_OUTPUT_TOKENS = 4096
"""What is reserved for the answer when the caller sets no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """What a surface asks of the engine: a Responses request, and what only the older surface knows."""

    create: CreateResponse
    surface: Literal["responses", "chat"] = "responses"
    stop: list[str] | None = None
    seed: int | None = None
    logit_bias: Json | None = None
    prediction: Json | None = None
    send_key: str | None = None
    """The `Idempotency-Key`: the turn's id derives from owner and key."""
    body_hash: str | None = None

    @property
    def is_stored(self) -> bool:
        return self.create.store is not False


@dataclass(slots=True)
class Plan:
    """A turn that is ready to be accepted, and the model call it makes."""

    turn: TurnRecord
    request: ModelRequest
    header: ConversationRecord | None
    ledger: Ledger
    reserve_tokens: int


async def prepare(app: App, caller: Principal, request: TurnRequest) -> Plan:
    create, owner, now = request.create, caller.owner, app.clock.now()
    token = derived_token(owner, request.send_key) if request.send_key else app.ids.token()
    model = await app.models.resolve(create.model or DEFAULT_MODEL)
    usage_id = meter.month_id(now)
    usage, place, items = await _gather(
        app.store.read(STATE, owner, usage_id),
        _find_place(app, owner, create),
        _resolve_references(app, owner, stored_items(create.input, token)),
    )
    if not items and place.is_root and create.prompt is None:
        raise InvalidRequest("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    history = build_history(place.path, budget=app.settings.turn.context_tokens)
    check_context(history, items)
    turn = TurnRecord(
        id=f"resp_{token}",
        group=place.group or f"resp_{token}",
        sort=sort_key(place.depth, token),
        depth=place.depth,
        parent=place.parent,
        conversation=place.header.record.id if place.header else None,
        branch=place.branch or token,
        lineage=place.lineage,
        surface=request.surface,
        is_stored=request.is_stored,
        status="in_progress",
        created_at=now,
        params=effective_params(create, model=create.model or DEFAULT_MODEL),
        include=list(create.include or []),
        input=items,
        due=now + app.settings.turn.lease,
        host=app.host,
        send_key=request.send_key,
        body_hash=request.body_hash,
        usage_id=usage_id,
    )
    context = [*history, *items]
    return Plan(
        turn=turn,
        request=_model_request(request, model, context, app, turn),
        header=place.header.record if place.header else None,
        ledger=Ledger(
            app.store,
            owner,
            header=place.header.stored if place.header else None,
            usage=usage,
            is_usage_known=True,
        ),
        reserve_tokens=estimate_tokens(context) + (create.max_output_tokens or DEFAULT_OUTPUT_TOKENS),
    )


async def _gather(usage: Any, place: Any, items: Any) -> tuple[Stored | None, "_Place", list[Json]]:
    """One parallel round; the first failure ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (usage, place, items)]
    return tasks[0].result(), tasks[1].result(), tasks[2].result()


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where in which thread a new turn goes, and the turns before it, newest first."""

    group: str | None = None
    depth: int = 0
    parent: str | None = None
    header: FoundConversation | None = None
    branch: str = ""
    lineage: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    path: list[TurnRecord] = field(default_factory=list[TurnRecord])

    @property
    def is_root(self) -> bool:
        return self.parent is None


async def _find_place(app: App, owner: str, create: CreateResponse) -> _Place:
    if create.conversation is not None:
        return await _place_in_conversation(app, owner, create)
    if create.previous_response_id is not None:
        return await _place_behind(app, owner, create.previous_response_id)
    return _Place()


async def _place_behind(app: App, owner: str, previous: str) -> _Place:
    found = await find_turn(app.store, owner, previous)
    if found is None or not found.record.is_stored or found.record.surface != "responses":
        raise InvalidRequest(
            f"Previous response with id {previous!r} not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    parent = found.record
    if not parent.is_final:
        raise Conflict(
            f"Response {previous!r} is still {parent.status}; wait for it or cancel it first.",
            param="previous_response_id",
            code="response_in_progress",
            retry_after=1,
        )
    return _Place(
        group=parent.group,
        depth=parent.depth + 1,
        parent=parent.id,
        path=await _path(app, owner, parent),
    )


async def _place_in_conversation(app: App, owner: str, create: CreateResponse) -> _Place:
    wanted = create.conversation
    id_ = wanted if isinstance(wanted, str) else wanted.id if wanted else ""
    if not id_.startswith("conv_"):
        raise InvalidRequest(
            f"Invalid 'conversation': {id_!r}. Expected an ID that begins with 'conv_'.",
            param="conversation",
            code="invalid_value",
        )
    limit = app.settings.turn.context_turns
    header, newest = await asyncio.gather(
        find_conversation(app.store, owner, id_), turns(app.store, owner, id_, limit=limit)
    )
    if header is None:
        raise NotFound(f"Conversation with id {id_!r} not found.", param="conversation")
    if header.record.running is not None:
        raise busy(header.record)
    is_branching = wanted is not None and not isinstance(wanted, str) and "parent" in wanted.model_fields_set
    head = header.record.head
    parent_id = wanted.parent if is_branching and not isinstance(wanted, str) and wanted else head
    if parent_id is None:
        return _Place(group=id_, header=header)
    path, missing = follow_path(newest, parent_id)
    if not path:
        found = await find_turn(app.store, owner, parent_id)
        if found is None or found.record.conversation != id_:
            raise InvalidRequest(
                f"Response with id {parent_id!r} not found in this conversation.",
                param="conversation.parent",
                code="previous_response_not_found",
            )
        path = await _path(app, owner, found.record)
    elif missing is not None and len(path) < limit and len(newest) == limit:
        path = await _path(app, owner, path[0])
    parent = path[0]
    is_new_branch = parent.id != head
    return _Place(
        group=id_,
        depth=parent.depth + 1,
        parent=parent.id,
        header=header,
        branch="" if is_new_branch else parent.branch,
        lineage=[*parent.lineage, (parent.branch, parent.depth)] if is_new_branch else parent.lineage,
        path=path,
    )


async def _path(app: App, owner: str, head: TurnRecord) -> list[TurnRecord]:
    """From a turn back towards the root, newest first, as many turns as the context reads."""
    path: list[TurnRecord] = []
    async with aclosing(walk_back(app.store, owner, head.group, head)) as walk:  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        async for turn in walk:  # pyright: ignore[reportUnknownVariableType]
            path.append(turn)  # pyright: ignore[reportUnknownArgumentType]
            if len(path) >= app.settings.turn.context_turns:
                break
    return path


async def _resolve_references(app: App, owner: str, items: list[Json]) -> list[Json]:
    """Put the owner's own items in the place of references to them.

    Raises:
        NotFound: a reference to nothing of this owner's.
    """
    wanted = {turn_of(item["id"]) for item in items if item["type"] == "item_reference"}
    if not wanted:
        return items
    found = await asyncio.gather(*(find_turn(app.store, owner, f"resp_{token}") for token in wanted if token))
    known = {item["id"]: item for turn in found if turn for item in turn_items(turn.record)}
    resolved: list[Json] = []
    for item in items:
        if item["type"] == "item_reference":
            if item["id"] not in known:
                raise NotFound(f"Item with id {item['id']!r} not found.", param="input")
            item = known[item["id"]]  # noqa: PLW2901 - the reference is replaced
        resolved.append(item)
    return resolved


def _model_request(request: TurnRequest, model: str, context: list[Json], app: App, turn: TurnRecord) -> ModelRequest:
    """Only what the caller really sent goes on; defaults are the upstream's own."""
    create, sent, params = request.create, sent_params(request.create), turn.params
    tools = [tool for tool in params["tools"] if tool["type"] != "mcp"]
    tools += [
        {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in app.tools.offered(params["tools"]).values()
    ]
    passed = {name: getattr(create, name) for name in _PASSED if name in sent and getattr(create, name) is not None}
    return ModelRequest(
        model=model,
        items=context,
        instructions=create.instructions,
        tools=tools,
        tool_choice=create.tool_choice if tools else None,
        text=params["text"] if create.text is not None else None,
        reasoning={key: value for key, value in params["reasoning"].items() if value} or None,
        logprobs="message.output_text.logprobs" in (create.include or []),
        stop=request.stop,
        seed=request.seed,
        logit_bias=request.logit_bias,
        prediction=request.prediction,
        **passed,
    )


_PASSED = (
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "max_output_tokens",
    "top_logprobs",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
    "user",
)
