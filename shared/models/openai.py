"""Any server of OpenAI's protocol as a `Model`: one call, its stream of events, its errors as ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from shared.errors import AssistantError, InvalidRequest, UpstreamError
from shared.models.base import Finished, Json, ModelEvent, ModelRequest
from shared.models.chat import PATH as CHAT_PATH
from shared.models.chat import ChatReader, amend_chat_body, chat_body
from shared.models.endpoint import Endpoint
from shared.models.gathering import Gathering
from shared.models.pacing import Pace
from shared.models.responses import PATH as RESPONSES_PATH
from shared.models.responses import ResponsesReader, amend_responses_body, responses_body
from shared.models.transport import UNREADABLE, Transport, sse_data
from shared.stages import stage

if TYPE_CHECKING:
    from shared.models.connections import Answer

MOST_AMENDMENTS = 2
ABOUT_THIS_CALL = ("invalid_encrypted_content",)
"""Codes of refusals that say nothing about the next call."""


class Reader(Protocol):
    """Payloads of one answer in, events (through `gathering`) out."""

    gathering: Gathering

    @property
    def is_over(self) -> bool: ...

    def feed(self, payloads: list[bytes]) -> None: ...

    def finish(self) -> None: ...


class OpenAIModel:
    """What both APIs share; a subclass knows one API's words. Upstream calls are stateless and never retried here."""

    path: ClassVar[str]

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._url = endpoint.base_url + self.path
        self._lessons: dict[str, list[InvalidRequest]] = {}
        """What each model has refused so far, so that it is not asked for it again."""

    @property
    def provider(self) -> str:
        """See `Deployment.provider`."""
        return "azure.ai.openai" if self._endpoint.kind == "azure" else self._endpoint.kind

    def body(self, request: ModelRequest) -> Json:
        raise NotImplementedError

    def amend(self, body: Json, refusal: InvalidRequest) -> bool:
        raise NotImplementedError

    def reader(self) -> Reader:
        raise NotImplementedError

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See `Model`. What one read of the socket brought is told at once; then it rests, as `Pace` says."""
        response = await self._open(request)
        reader = self.reader()
        pace = Pace(request.pace)
        steady_now = asyncio.get_running_loop().time
        said, longest = 0.0, 0.0
        try:
            async with aclosing(sse_data(response)) as reads:
                async for payloads in reads:
                    if said:
                        longest = max(longest, steady_now() - said)
                    failure = _feed(reader, payloads)
                    events = reader.gathering.take()
                    for event in events:
                        yield event
                    if failure is not None:
                        raise failure
                    if events and not said and request.silence is not None:
                        response.expect_words_within(request.silence)
                    said = steady_now() if events or said else 0.0
                    if events and request.pace and not reader.is_over:
                        size = sum(map(len, payloads))
                        payloads.clear()  # what was heard is not kept meanwhile
                        await pace.rest(response, size)
        except AssistantError:
            if not reader.is_over:
                raise
        reader.finish()
        for event in reader.gathering.take():
            yield replace(event, longest_silence=longest) if type(event) is Finished else event

    async def close(self) -> None:
        await self._transport.close()
        await self._endpoint.close()

    async def _open(self, request: ModelRequest) -> Answer:
        await stage()
        body = self.body(request)
        lessons = self._lessons.setdefault(request.model, [])
        for lesson in lessons:
            self.amend(body, lesson)
        for _ in range(MOST_AMENDMENTS):
            try:
                return await self._post(body, request.deadline)
            except InvalidRequest as refusal:
                if not self.amend(body, refusal):
                    raise
                if refusal.code not in ABOUT_THIS_CALL:
                    # A copy: the exception itself would keep this call's frames, and so its whole input, alive.
                    lessons.append(InvalidRequest(refusal.message, param=refusal.param, code=refusal.code))
        return await self._post(body, request.deadline)

    async def _post(self, body: Json, deadline: float | None) -> Answer:
        headers = await self._endpoint.authorize()
        setting = self._endpoint.setting
        return await self._transport.post_stream(self._url, body, headers, deadline=deadline, setting=setting)


class ChatUpstream(OpenAIModel):
    """A server of `chat/completions`: what everyone speaks."""

    path = CHAT_PATH

    def body(self, request: ModelRequest) -> Json:
        return chat_body(request, is_openai=self._endpoint.is_openai)

    def amend(self, body: Json, refusal: InvalidRequest) -> bool:
        return amend_chat_body(body, refusal)

    def reader(self) -> Reader:
        return ChatReader()


class ResponsesUpstream(OpenAIModel):
    """A server of `responses`: reasoning keeps its thread between calls."""

    path = RESPONSES_PATH

    def body(self, request: ModelRequest) -> Json:
        return responses_body(request, is_openai=self._endpoint.is_openai)

    def amend(self, body: Json, refusal: InvalidRequest) -> bool:
        return amend_responses_body(body, refusal)

    def reader(self) -> Reader:
        return ResponsesReader()


def _feed(reader: Reader, payloads: list[bytes]) -> AssistantError | None:
    """Feed what arrived; the error in it, if any, is told after what came before it."""
    try:
        reader.feed(payloads)
    except AssistantError as error:
        return error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as exc:
        failure = UpstreamError(UNREADABLE)
        failure.__cause__ = exc
        return failure
    return None
