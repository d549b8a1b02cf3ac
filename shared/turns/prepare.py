"""Everything a turn needs before it is accepted, read in one parallel round."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.app import App
from shared.conversations.records import CHATS, ConversationRecord, TurnRecord, header_sort, sort_key
from shared.conversations.repository import (
    FoundConversation,
    find_conversation,
    find_turn,
    follow_path,
    turns,
    walk_back,
)
from shared.eager import started
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import derived_token, turn_of
from shared.models.base import ModelRequest
from shared.models.deployment import Route, most_input
from shared.principal import Principal
from shared.stages import stage
from shared.storage.base import STATE, Stored
from shared.turns.context import (
    CHARS_PER_TOKEN,
    Context,
    build_context,
    check_context,
    estimate_tokens,
    is_enough,
    model_items,
    newest_that_fit,
    reach_of,
    turn_items,
)
from shared.turns.instructions import Told, instruct, told
from shared.turns.ledger import Ledger, busy, known_usage
from shared.turns.trace import Trace
from shared.usage import meter
from shared.usage.records import UsageRecord
from shared.wire.items import stored_items
from shared.wire.responses import CreateResponse, effective_params, sent_params

type Json = dict[str, Any]

DEFAULT_MODEL = "companion"
QUEUED_SECONDS = 30.0
"""How long a background turn waits in the queue before the recovery timer looks after it."""
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
    is_legacy: bool = False
    """The caller speaks of `functions`, which came before `tools`."""
    send_key: str | None = None
    """The `Idempotency-Key`: the turn's id derives from owner and key."""
    body_hash: str | None = None
    is_retry: bool = False
    """The client says that it sends this again (`x-stainless-retry-count`)."""

    @property
    def is_stored(self) -> bool:
        return self.create.store is not False


class Joined(Exception):
    """This send is one that began a turn already."""

    def __init__(self, turn: str) -> None:
        super().__init__(turn)
        self.turn = turn


@dataclass(slots=True)
class Plan:
    """A turn that is ready to be accepted, and the model call it makes."""

    turn: TurnRecord
    request: ModelRequest
    context: Context
    header: ConversationRecord | None
    ledger: Ledger
    reserve_tokens: int
    trace: Trace


async def prepare(app: App, caller: Principal, request: TurnRequest) -> Plan:
    """Read what the turn needs, and make its record and its model call from it.

    Raises:
        InvalidRequest, NotFound, Conflict: the request cannot be accepted as it is.
        Joined: it was accepted before.
    """
    create, owner, now, trace = request.create, caller.owner, app.clock.now(), Trace()
    token = derived_token(owner, request.send_key) if request.send_key else app.ids.token()
    asked = await instruct(app, caller, create, token=token, default_model=DEFAULT_MODEL)
    create = asked.create
    route = await _route(app, asked.model or create.model or DEFAULT_MODEL, request.surface)
    usage_id = meter.month_id(now)
    await stage()
    usage, place, items = await _gather(
        app.store.read(STATE, owner, usage_id),
        _find_place(app, owner, create),
        _checked(app, owner, stored_items(create.input, token), asked),
    )
    known = known_usage(app.store, owner, usage_id)
    known.learn(usage)
    _join_equal(known.record(usage_id), request, now)
    if place.header is not None and place.header.record.running is not None:
        raise busy(place.header.record)
    if not items and place.is_root and create.prompt is None:
        raise InvalidRequest("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    window = route.window
    call = _call(request, create) | asked.call
    params = effective_params(create, model=create.model or DEFAULT_MODEL) | asked.params
    if params["instructions"] is None and place.header is not None and place.header.record.project is not None:
        params["instructions"] = await _project_instructions(app, owner, place.header.record.project)
    await stage()
    context = turn_context(app, place.path, items, window=window, params=params, call=call)
    check_context(context.history, items)
    check_window(context, window, params)
    turn = TurnRecord(
        id=f"resp_{token}",
        group=place.group or (CHATS if request.surface == "chat" else f"resp_{token}"),
        sort=header_sort(now, token) if request.surface == "chat" else sort_key(place.depth, token),
        depth=place.depth,
        parent=place.parent,
        conversation=place.header.record.id if place.header else None,
        branch=place.branch or token,
        lineage=place.lineage,
        surface=request.surface,
        is_stored=request.is_stored,
        status="queued" if create.background else "in_progress",
        created_at=now,
        params=params,
        call=call,
        prompt_version=asked.prompt_version,
        flags=asked.flags or None,
        include=list(create.include or []),
        input=items,
        due=now + (QUEUED_SECONDS if create.background else app.settings.turn.lease),
        host=app.host,
        send_key=request.send_key,
        body_hash=request.body_hash,
        nonce=app.ids.token()[:8],
        usage_id=usage_id,
        ttl=place.ttl,
    )
    await stage()
    asking = model_request(app, turn, route.id, context.items)
    app.models.check(route, asking)
    output_tokens = create.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    reserve_tokens = asking.tokens + context.summarising(window) + output_tokens
    trace.context = context_parts(context, asking, window=window)
    trace.prepare_ms = trace.elapsed()
    return Plan(
        turn=turn,
        request=trace.on_behalf(asking, owner, turn, deadline=app.settings.model.timeout),
        context=context,
        header=place.header.record if place.header else None,
        ledger=Ledger(
            app.store,
            owner,
            header=place.header.stored if place.header else None,
            usage=known,
        ),
        reserve_tokens=reserve_tokens,
        trace=trace,
    )


def context_parts(context: Context, call: ModelRequest, *, window: int) -> Json:
    """What goes into the context and how much of it, in estimated tokens; for the trace."""
    history = [item for past in context.kept for item in model_items(past)]
    return {
        "window": window,
        "budget": context.budget,
        "instructions": len(call.instructions or "") // CHARS_PER_TOKEN,
        "tools": estimate_tokens(call.tools),
        "summary": len(context.summary or "") // CHARS_PER_TOKEN,
        "history": estimate_tokens(history),
        "history_turns": len(context.kept),
        "turns_to_summarise": len(context.older),
        "input": context.input_tokens,
    }


def turn_context(
    app: App, path: list[TurnRecord], items: list[Json], *, window: int, params: Json, call: Json
) -> Context:
    """What the model sees: `path`, newest first, as far as it fits, and the new items.

    The budget is such that the answer still fits the window; the caller may want an earlier compaction.
    """
    fixed = _fixed_tokens(params)
    room = window - min(params["max_output_tokens"] or DEFAULT_OUTPUT_TOKENS, window // 2) - fixed
    budget = min(app.settings.turn.context_tokens, room, call.get("compact_threshold") or room)
    if params["truncation"] == "auto":
        items = newest_that_fit(items, most_input(window, params["max_output_tokens"]) - fixed)
    return build_context(path, items, budget=budget, most_turns=app.settings.turn.context_turns)


def _fixed_tokens(params: Json) -> int:
    """Of what goes along with every call, and can neither be summarised nor left out."""
    fixed = [{"instructions": params["instructions"]}] if params["instructions"] else []
    return estimate_tokens([*fixed, *params["tools"]])


def check_window(context: Context, window: int, params: Json) -> None:
    """New input, instructions and tools must fit: only the past can be summarised.

    Raises:
        InvalidRequest: `context_length_exceeded`.
    """
    tokens = context.input_tokens + _fixed_tokens(params)
    if tokens > most_input(window, params["max_output_tokens"]):
        raise InvalidRequest(
            f"Your input of about {tokens} tokens, instructions and tools included, exceeds the context window of this "
            f"model ({window} tokens).",
            param="input",
            code="context_length_exceeded",
        )


def _join_equal(record: UsageRecord, request: TurnRequest, now: float) -> None:
    """Without a key: an equal body is the same send when the client says so, or while the first runs in a conversation.

    Raises:
        Joined: it is.
    """
    if request.body_hash is None or request.send_key is not None:
        return
    turn = meter.sent_before(record, request.body_hash, now)
    if turn is None:
        return
    if request.is_retry or (request.create.conversation is not None and turn in record.reserved):
        raise Joined(turn)


async def _route(app: App, model: str, surface: str) -> Route:
    """Where a model's name leads; unknown ones are 404 on the older surface, 400 here."""
    try:
        return await app.models.route(model)
    except NotFound as error:
        if surface == "chat":
            raise
        raise InvalidRequest(error.message, param="model", code="model_not_found") from None


async def count_input(app: App, caller: Principal, request: TurnRequest) -> int:
    """Tokens that this request would send, by the estimate that budgets use."""
    plan = await prepare(app, caller, request)
    fixed = [{"instructions": plan.request.instructions}, *plan.request.tools]
    return estimate_tokens(plan.request.items) + (
        estimate_tokens(fixed) if plan.request.instructions or plan.request.tools else 0
    )


async def _project_instructions(app: App, owner: str, project: str) -> str | None:
    """What a conversation's project says where its caller says nothing; a project that is gone says nothing."""
    stored = await app.store.read(STATE, owner, project)
    return stored.body.get("instructions") if stored is not None and stored.body.get("kind") == "project" else None


async def _checked(app: App, owner: str, items: list[Json], asked: Told) -> list[Json]:
    """The new items, once every guardrail has let them through, and what the prompt makes of its variables."""
    resolved = await resolve_references(app, owner, items)
    if app.guardrails is not None:
        given: Any = asked.params.get("instructions")
        spoken: list[Json] = [message for message in given or () if message["role"] == "user"]
        await app.guardrails.check_input([*spoken, *resolved])
    return resolved


async def _gather(usage: Any, place: Any, items: Any) -> tuple[Stored | None, "_Place", list[Json]]:
    """One parallel round; the first failure ends it."""
    tasks = [started(work) for work in (usage, place, items)]
    running = [task for task in tasks if not task.done()]
    try:
        if running:
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        failed = next((task for task in tasks if task.done() and task.exception() is not None), None)
        return (failed or tasks[0]).result(), tasks[1].result(), tasks[2].result()
    finally:
        await _ended(tasks)


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    """None of them runs on, and no failure of theirs goes unseen."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()


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

    @property
    def ttl(self) -> int | None:
        """Of a temporary conversation, or of the temporary response that this one goes on from outside of any."""
        return self.header.record.ttl if self.header else next((turn.ttl for turn in self.path[:1]), None)


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
        path=await path_to(app, owner, parent),
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
    limit = app.reach.of(id_, most=app.settings.turn.context_turns)
    header, newest = await asyncio.gather(
        find_conversation(app.store, owner, id_), turns(app.store, owner, id_, limit=limit)
    )
    if header is None:
        raise NotFound(f"Conversation with id {id_!r} not found.", param="conversation")
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
        path = await path_to(app, owner, found.record)
    elif len(newest) == limit and not is_enough(path, missing):
        app.reach.forget(id_)
        path = await path_to(app, owner, path[0])
    app.reach.remember(id_, reach_of(path))
    parent = path[0]
    is_new_branch = parent.id != head or header.record.is_rewound
    return _Place(
        group=id_,
        depth=parent.depth + 1,
        parent=parent.id,
        header=header,
        branch="" if is_new_branch else parent.branch,
        lineage=[*parent.lineage, (parent.branch, parent.depth)] if is_new_branch else parent.lineage,
        path=path,
    )


async def path_to(app: App, owner: str, head: TurnRecord) -> list[TurnRecord]:
    """From a turn back towards the root or the last summary, newest first, as many turns as the context reads."""
    path: list[TurnRecord] = []
    most = app.settings.turn.context_turns
    limit = app.reach.of(head.group, most=most)
    async with aclosing(walk_back(app.store, owner, head.group, head, limit=limit)) as walk:
        async for turn in walk:
            path.append(turn)
            if len(path) >= most or (turn.parent is not None and is_enough(path, turn.parent)):
                break
    app.reach.remember(head.group, reach_of(path))
    return path


async def resolve_references(app: App, owner: str, items: list[Json], *, param: str = "input") -> list[Json]:
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
                hint = "" if turn_of(item["id"]) else " Only ids that this server gave can be referred to."
                raise NotFound(f"Item with id {item['id']!r} not found.{hint}", param=param)
            item = known[item["id"]]  # noqa: PLW2901 - the reference is replaced
        resolved.append(item)
    return resolved


def model_request(app: App, turn: TurnRecord, model: str, context: list[Json]) -> ModelRequest:
    """The call that a turn makes, from its record alone: so any host can make it again."""
    params = turn.params
    offered = app.tools.offered(params["tools"])
    tools = [tool for tool in params["tools"] if tool["type"] != "mcp"]
    tools += [
        {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in offered.values()
    ]
    instructions, before = told(app.prompts, turn, list(offered))
    return ModelRequest(
        model=model,
        items=[*before, *context],
        tokens=estimate_tokens(context),
        instructions=instructions,
        tools=tools,
        tool_choice=_upstream_choice(params["tool_choice"], list(offered))
        if tools and "tool_choice" in turn.call["sent"]
        else None,
        text=params["text"] if "text" in turn.call["sent"] else None,
        reasoning={key: value for key, value in params["reasoning"].items() if value} or None,
        logprobs="message.output_text.logprobs" in turn.include,
        pace=app.settings.turn.interval if turn.is_kept else 0.0,
        **{name: params[name] for name in _PASSED if name in turn.call["sent"] and params[name] is not None},
        **turn.call["extra"],
    )


def _upstream_choice(choice: str | Json, offered: list[str]) -> str | Json:
    """A choice in words that a model knows: to it, the tools that run here are functions like any other."""
    if isinstance(choice, str) or choice["type"] in ("function", "custom"):
        return choice
    named = choice["tools"] if choice["type"] == "allowed_tools" else [choice]
    functions = [[each.get("name")] if each.get("name") else offered for each in named if each["type"] == "mcp"]
    tools = [each for each in named if each["type"] != "mcp"]
    tools += [{"type": "function", "name": name} for names in functions for name in names]
    if choice["type"] == "mcp" and len(tools) == 1:
        return tools[0]
    return {"type": "allowed_tools", "mode": choice.get("mode", "required"), "tools": tools}


def model_of(turn: TurnRecord) -> str:
    """The model a turn calls: the one asked for, unless a flag chose another."""
    return turn.call.get("model") or turn.params["model"]


def _call(request: TurnRequest, create: CreateResponse) -> Json:
    """Only what the caller really sent goes on to the model; defaults are the upstream's own."""
    extra = {name: getattr(request, name) for name in ("stop", "seed", "logit_bias", "prediction")}
    threshold = min((each.compact_threshold or 0 for each in create.context_management or ()), default=0)
    return {
        "sent": sorted(sent_params(create) & {*_PASSED, "text", "tool_choice"}),
        "extra": {name: value for name, value in extra.items() if value is not None},
        **({"compact_threshold": threshold} if threshold else {}),
        **({"is_legacy": True} if request.is_legacy else {}),
    }


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
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
