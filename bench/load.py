"""The client side: bare asyncio protocols over loopback, so that what is measured is the server.

Every request is bounded in time; one that does not end as it should counts as unfinished.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

import orjson

LIMIT = 30.0
"""Seconds one request may take."""
APART = 0.002
"""Seconds between the starts of streams that run together."""


@dataclass(slots=True)
class Sample:
    """One answer as the client saw it; seconds from sending the request."""

    first: float = 0.0
    """To the first token."""
    total: float = 0.0
    bytes: int = 0
    is_whole: bool = False
    delays: list[float] = field(default_factory=list[float])
    """Of each token behind its own time, where the model paces them."""

    def unevenness(self) -> list[float]:
        """Of each token: how much later it came than the one that was least behind its time.

        RFC 5481, section 4.2: what the first one waits for, and every later one with it, is no part of this.
        """
        fastest = min(self.delays, default=0.0)
        return [delay - fastest for delay in self.delays]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server under test, and how it is asked."""

    name: str
    port: int
    path: str
    body: dict[str, object]
    token: bytes = b'"content":"token'
    """What tells that text has arrived."""
    end: bytes = b"[DONE]"
    """What a stream that ended well ends with."""
    whole: bytes = b'"token token'
    """What a plain body that is right contains."""
    model: str = ""
    """Asked for instead of one that is named for its tokens and pace."""
    prefix: str = ""
    """Before the model's name."""
    each: bytes = b"token "
    """What every token shows as in a stream."""


class _Client(asyncio.Protocol):
    """One request on a connection of its own."""

    def __init__(self, target: Target, request: bytes, *, stream: bool, tokens: int, pace: float) -> None:
        self._target, self._request, self._stream = target, request, stream
        self._tokens, self._pace, self._seen = tokens, pace, 0
        self._tail = b""
        self._is_ok = False
        self.sample = Sample()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
        self._began = self._last = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = self._last = time.perf_counter()
        sample = self.sample
        if not sample.bytes:
            self._is_ok = data.startswith(b"HTTP/1.1 200")
        sample.bytes += len(data)
        text = self._tail + data
        if not self._stream:
            self._tail = text
            return
        if not sample.first and self._target.token in text:
            sample.first = now - self._began
        if self._pace and sample.first:
            self._count(data, now - self._began)
        self._tail = text[-512:]

    def _count(self, data: bytes, since: float) -> None:
        """A token cut in two by the network is counted with the next; the text is told again at the end."""
        news = min(data.count(self._target.each), self._tokens - self._seen)
        self.sample.delays += [since - place * self._pace for place in range(self._seen, self._seen + news)]
        self._seen += news

    def connection_lost(self, exc: Exception | None) -> None:
        sample = self.sample
        sample.total = self._last - self._began
        sample.is_whole = self._is_ok and (self._target.end if self._stream else self._target.whole) in self._tail
        if not self.done.done():
            self.done.set_result(None)


async def ask(target: Target, *, tokens: int, pace_ms: int = 0, stream: bool = True) -> Sample:
    """One request for so many tokens, one each `pace_ms` (0: all at once)."""
    model = target.model or (f"t{tokens}p{pace_ms}" if pace_ms else f"t{tokens}")
    body = orjson.dumps({**target.body, "model": target.prefix + model, "stream": stream})
    head = (
        f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\nauthorization: Bearer bench\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    client = _Client(target, head.encode() + body, stream=stream, tokens=tokens, pace=pace_ms / 1000)
    try:
        async with asyncio.timeout(LIMIT):
            await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", target.port)
            await client.done
    except (TimeoutError, OSError):
        return Sample()
    finally:
        if hasattr(client, "transport"):
            client.transport.abort()
    return client.sample


async def together(target: Target, *, count: int, tokens: int, pace_ms: int = 0, apart: float = APART) -> list[Sample]:
    """So many streams at once, one beginning so many seconds after the other."""

    async def one(place: int) -> Sample:
        await asyncio.sleep(place * apart)
        return await ask(target, tokens=tokens, pace_ms=pace_ms)

    return await asyncio.gather(*(one(place) for place in range(count)))


async def spread(target: Target, *, count: int, times: int, tokens: int, pace_ms: int) -> list[Sample]:
    """So many streams open all the time: one begins as another ends. Those that began while all were open."""
    apart = tokens * pace_ms / 1000 / count

    async def one(place: int) -> list[Sample]:
        await asyncio.sleep(place * apart)
        return [await ask(target, tokens=tokens, pace_ms=pace_ms) for _ in range(times)]

    found = await asyncio.gather(*(one(place) for place in range(count)))
    return [sample for samples in found for sample in samples[1:]]


async def in_turn(
    target: Target, *, count: int, at_once: int, tokens: int, pace_ms: int = 0, stream: bool = False
) -> list[Sample]:
    """So many answers, by workers that ask one after the other."""
    left = iter(range(count))
    samples: list[Sample] = []

    async def worker() -> None:
        for _ in left:
            samples.append(await ask(target, tokens=tokens, pace_ms=pace_ms, stream=stream))

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return samples
