"""A model server that is in trouble: some of its calls are refused, break, hang, are cut off or send garbage.

Each word of an answer tells which call said it ("12.0 12.1 12.2 …"), so that two answers spliced together show.
"""

import asyncio
import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

KEY = "soak-key"
MODEL = "soak"
HANG_SECONDS = 3600.0
TROUBLES = ("429", "500", "hang", "cut", "garbage")


class TroubledModel:
    """The server's state."""

    def __init__(self, *, trouble: float, words: int, pace: float, seed: str) -> None:
        """
        Args:
            trouble: share of the calls that go wrong, in equal parts each way.
            words: of an answer.
            pace: seconds a word.
        """
        self.counts: Counter[str] = Counter()
        self.silences: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        """By what was asked: from when to when a call hung, until whoever asked gave it up."""
        self._trouble = trouble
        self._words = words
        self._pace = pace
        self._chance = random.Random(seed)
        self._number = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        del request
        data = [{"id": MODEL, "object": "model", "created": 1_760_000_000, "owned_by": "tests"}]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        number, self._number = self._number, self._number + 1
        asked = _asked(await request.json())
        trouble = self._chance.choice(TROUBLES) if self._chance.random() < self._trouble else ""
        self.counts["calls"] += 1
        self.counts[trouble or "well"] += 1
        match trouble:
            case "429":
                return _error(429, "rate_limit_exceeded", {"retry-after-ms": "50"})
            case "500":
                return _error(500, "server_error", {})
            case _:
                return await self._stream(request, number, trouble, asked)

    async def _stream(self, request: web.Request, number: int, trouble: str, asked: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        stop = self._chance.randrange(self._words)
        for place in range(self._words):
            if trouble and place == stop:
                return await self._break(request, response, trouble, asked)
            word = f"{' ' if place else ''}{number}.{place}"
            await response.write(_chunk(number, {"delta": {"role": "assistant", "content": word}, "index": 0}))
            await asyncio.sleep(self._pace)
        await response.write(_chunk(number, {"delta": {}, "finish_reason": "stop", "index": 0}))
        usage = {"prompt_tokens": 10, "completion_tokens": self._words, "total_tokens": 10 + self._words}
        await response.write(_chunk(number, None, usage))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _break(
        self, request: web.Request, response: web.StreamResponse, trouble: str, asked: str
    ) -> web.StreamResponse:
        if trouble == "hang":
            await self._hang(asked)
        if trouble == "garbage":
            await response.write(b'data: {"choices": [{"delta\n\n')
        if trouble == "cut" and request.transport is not None:
            request.transport.abort()
        return response

    async def _hang(self, asked: str) -> None:
        began = time.monotonic()
        self.silences[asked].append((began, math.inf))
        place = len(self.silences[asked]) - 1
        try:
            await asyncio.sleep(HANG_SECONDS)
        finally:
            self.silences[asked][place] = (began, time.monotonic())


def _asked(body: Any) -> str:
    """What the user said last."""
    said: Any = next(message["content"] for message in reversed(body["messages"]) if message["role"] == "user")
    return said if isinstance(said, str) else said[-1]["text"]


def _chunk(number: int, choice: Any, usage: Any = None) -> bytes:
    body = {
        "id": f"chatcmpl-soak{number}",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": MODEL,
        "choices": [choice] if choice is not None else [],
        "usage": usage,
    }
    return f"data: {json.dumps(body)}\n\n".encode()


def _error(status: int, code: str, headers: dict[str, str]) -> web.Response:
    error = {"message": "The server is in trouble.", "type": code, "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


@asynccontextmanager
async def serving(model: TroubledModel) -> AsyncGenerator[str]:
    """The model on a loopback port; gives its base URL, up to and including /v1."""
    runner = web.AppRunner(model.app(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
