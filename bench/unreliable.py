"""A model's server that fails as it is told; every answer names its call, so that a spliced one is seen."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

KINDS = ("429", "500", "hang", "cut", "garbage", "slow")


class Unreliable:
    """Says `<call>.<place>` words, `words` of them, `pause` seconds apart."""

    def __init__(self, *, words: int = 40, pause: float = 0.025, seed: int = 1) -> None:
        self.words = words
        self.pause = pause
        self.failing = 0.0
        """Share of the calls that fail, each in one of `KINDS`."""
        self.is_down = False
        self.calls = 0
        self.failed: Counter[str] = Counter()
        self._chance = random.Random(seed)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        number = self.calls
        self.calls += 1
        if self.is_down:
            return web.json_response({"error": {"message": "down"}}, status=503)
        kind = self._chance.choice(KINDS) if self._chance.random() < self.failing else ""
        self.failed[kind] += 1
        if kind == "429":
            error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
            return web.json_response(error, status=429, headers={"retry-after-ms": "100"})
        if kind == "500":
            return web.json_response({"error": {"message": "failed"}}, status=500)
        break_at = self._chance.randrange(self.words) if kind in ("hang", "cut", "garbage") else -1
        if kind == "hang" and break_at % 2:
            await asyncio.sleep(600)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for place in range(self.words):
            if place == break_at:
                await self._break(kind, request, response)
                return response
            await response.write(_chunk({"content": f"{number}.{place} "}))
            if self.pause:
                await asyncio.sleep(self.pause * (2 if kind == "slow" else 1))
        usage = {"prompt_tokens": 10, "completion_tokens": self.words}
        await response.write(_chunk({}, "stop") + _data({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        return response

    async def _break(self, kind: str, request: web.Request, response: web.StreamResponse) -> None:
        if kind == "garbage":
            await response.write(b'data: {"choices": [{"delta\n\n')
        elif kind == "hang":
            await asyncio.sleep(600)
        elif request.transport is not None:
            request.transport.abort()


def is_whole(text: str, words: int) -> bool:
    """Whether a text is one call's, from its first word to its last."""
    said = [word.split(".") for word in text.split()]
    return len({call for call, _ in said}) == 1 and [int(place) for _, place in said] == list(range(words))


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    return _data({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _data(payload: object) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


@asynccontextmanager
async def serving(upstream: Unreliable) -> AsyncGenerator[str]:
    """Its base URL, up to and including /v1."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", upstream.chat)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
