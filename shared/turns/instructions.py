"""What a turn's model is told before the conversation, and what flags decide about it.

`instruct` decides once, before the turn is accepted, and everything it decides goes on the turn's record; so any host
can make the same model call again (`told`).
"""

import logging
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import TypeAdapter, ValidationError

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.errors import InvalidRequest, NotFound
from shared.ids import item_id
from shared.principal import Principal
from shared.prompts.library import Prompt, PromptLibrary
from shared.safety.untrusted import RULE
from shared.wire.items import Message, stored_items
from shared.wire.responses import CreateResponse, PromptParam

type Json = dict[str, Any]

log = logging.getLogger("companion.turns")

SYSTEM_PROMPT = "companion"
"""The prompt that stands before the caller's instructions where COMPANION_SYSTEM_PROMPT is on."""

_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was decided for a turn."""

    create: CreateResponse
    """The request, with the defaults of its prompt where the caller said nothing."""
    model: str | None = None
    """The model a flag chose instead of the one asked for."""
    params: Json = field(default_factory=dict[str, Any])
    """Settings that the response echoes otherwise than they were sent."""
    call: Json = field(default_factory=dict[str, Any])
    """What the model call needs besides: the system prompt's version and inputs, the model a flag chose."""
    prompt_version: str | None = None
    flags: dict[str, str] = field(default_factory=dict[str, str])
    """Flag to variant: what this turn was assigned."""


async def instruct(app: App, caller: Principal, create: CreateResponse, *, token: str, default_model: str) -> Told:
    """Decide on prompt, model and titles for a turn.

    Raises:
        InvalidRequest: no such prompt or version, or a variable that does not fit.
    """
    await app.flags.fresh()
    assigned = _Assigned(app, caller)
    prompt: Prompt | None = None
    params: Json = {}
    call: Json = {}
    if create.prompt is not None:
        prompt = app.prompts.find(create.prompt.id, create.prompt.version or assigned.version(create.prompt.id))
        params = _echo(create, create.prompt, prompt, token)
        create = with_defaults(create, prompt)
    elif app.settings.turn.system_prompt and (create.model or default_model).startswith(SYSTEM_PROMPT):
        prompt = app.prompts.find(SYSTEM_PROMPT, assigned.version(SYSTEM_PROMPT))
        call["system"] = {"version": prompt.version, "inputs": _inputs(create, app.clock.now())}
    model = await assigned.model(create.model or default_model)
    if model is not None:
        call["model"] = model
    if create.conversation is not None:
        assigned.take("titles")
    return Told(
        create=create,
        model=model,
        params=params,
        call=call,
        prompt_version=prompt.label if prompt is not None else None,
        flags=assigned.variants,
    )


def told(prompts: PromptLibrary, turn: TurnRecord, tools: list[str]) -> tuple[str | None, list[Json]]:
    """The instructions of a turn's model call, and the messages of its prompt, which come before everything else.

    What is the same in all turns stands first, so that upstream caches hit.
    """
    given: str | list[Json] | None = turn.params["instructions"]
    system: Json | None = turn.call.get("system")
    texts: list[str] = []
    if system is not None:
        version = system["version"] if prompts.has(SYSTEM_PROMPT, system["version"]) else None
        texts.append(prompts.find(SYSTEM_PROMPT, version).text({**system["inputs"], "tools": tools}))
    elif tools:
        texts.append(RULE)
    if isinstance(given, str):
        texts.append(given)
    return "\n\n".join(texts) or None, given if isinstance(given, list) else []


def with_defaults(create: CreateResponse, prompt: Prompt) -> CreateResponse:
    """The prompt's model and settings, where the caller sent none."""
    missing = {name: value for name, value in prompt.defaults.items() if name not in create.model_fields_set}
    if not missing:
        return create
    defaults = CreateResponse.model_validate(missing)
    return create.model_copy(update={name: getattr(defaults, name) for name in defaults.model_fields_set})


def _echo(create: CreateResponse, asked: PromptParam, prompt: Prompt, token: str) -> Json:
    """`prompt` with the version that was taken, and the rendered messages as `instructions`, as OpenAI shows them."""
    rendered = prompt.render(asked.variables)
    if create.instructions is not None:
        rendered.append({"role": "developer", "content": create.instructions})
    try:
        messages = stored_items(list(_messages().validate_python(rendered)), token)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise InvalidRequest(f"Invalid part among the variables: {message}.", param="prompt.variables") from None
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param="prompt.variables") from None
    numbered = [{**message, "id": item_id("msg", token, "p", place)} for place, message in enumerate(messages)]
    echoed = asked.model_dump(exclude_none=True)
    return {"prompt": {**echoed, "version": prompt.version}, "instructions": numbered}


@cache
def _messages() -> TypeAdapter[list[Message]]:
    """Built on first use."""
    return TypeAdapter(list[Message])


class _Assigned:
    """The flags asked for in one turn, and what they gave."""

    def __init__(self, app: App, caller: Principal) -> None:
        self._app = app
        self._caller = caller
        self.variants: dict[str, str] = {}

    def take(self, flag: str) -> str | None:
        """The value of the variant, where it is a text."""
        got = self._app.flags.assign(flag, self._caller)
        if got is None:
            return None
        self.variants[flag] = got.variant
        return got.text

    def version(self, prompt: str) -> str | None:
        """The version of a prompt that a flag chose, if that version exists."""
        name = prompt.removeprefix("pmpt_")
        version = self.take(f"prompt.{name}")
        if version is None or self._app.prompts.has(name, version):
            return version
        log.warning("flags.no_such_version", extra={"prompt": name, "version": version})
        return None

    async def model(self, asked: str) -> str | None:
        """The route that a flag chose for a model's name, if there is one."""
        chosen = self.take(f"model.{asked}")
        if chosen is None or chosen == asked:
            return None
        try:
            return await self._app.models.resolve(chosen)
        except NotFound as error:
            log.warning("flags.no_such_model", extra={"model": chosen, "code": error.code})
            return None


def _inputs(create: CreateResponse, now: float) -> Json:
    """What the caller's `metadata` says of the user (`locale`, `time_zone`), and the day there. Nonsense is ignored."""
    said = create.metadata or {}
    inputs: Json = {}
    if _LOCALE.fullmatch(said.get("locale", "")):
        inputs["locale"] = said["locale"]
    zone = _zone(said.get("time_zone", ""))
    if zone is not None:
        inputs["time_zone"] = zone.key
    return {**inputs, "date": f"{datetime.fromtimestamp(now, zone or UTC):%Y-%m-%d}"}


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
