"""The client side: bare asyncio streams over loopback, so that what is measured is the server.

Every request is bounded in time; a stream that does not end counts as failed.
"""

import asyncio
import re
import time
from dataclasses import dataclass, field

import orjson

LIMIT = 60.0
"""Seconds one request may take."""
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Sample:
    """One answer as the client saw it; seconds from sending the request."""

    first: float = 0.0
    """To the first token."""
    total: float = 0.0
    bytes: int = 0
    is_whole: bool = False
    gaps: list[float] = field(default_factory=list[float])
    """Between pieces that arrived, after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server under test, and how it is asked."""

    name: str
    port: int
    path: str
    body: dict[str, object]
    token: bytes = b"token"
    """What tells that text has arrived."""
    end: bytes = b"[DONE]"
    headers: dict[str, str] = field(default_factory=dict[str, str])


async def ask(target: Target, *, model: str, stream: bool) -> Sample:
    """One request on a connection of its own."""
    try:
        async with asyncio.timeout(LIMIT):
            return await _ask(target, model=model, stream=stream)
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return Sample()


async def _ask(target: Target, *, model: str, stream: bool) -> Sample:
    body = orjson.dumps({**target.body, "model": model, "stream": stream})
    head = f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\nauthorization: Bearer bench\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    sample = Sample()
    try:
        began = last = time.perf_counter()
        writer.write(head.encode() + body)
        tail, is_ok = b"", False
        while piece := await reader.read(65536):
            now = time.perf_counter()
            is_ok = is_ok or piece.startswith(b"HTTP/1.1 200")
            sample.bytes += len(piece)
            if not sample.first and target.token in tail + piece:
                sample.first = now - began
            elif sample.first:
                sample.gaps.append(now - last)
            last = now
            tail = (tail + piece)[-512:]
        sample.total = last - began
        sample.is_whole = is_ok and (target.end in tail if stream else True)
    finally:
        writer.close()
    return sample


async def together(target: Target, *, model: str, count: int) -> list[Sample]:
    """So many streams at once, started within a moment."""

    async def one(place: int) -> Sample:
        await asyncio.sleep(place * 0.002)
        return await ask(target, model=model, stream=True)

    return await asyncio.gather(*(one(place) for place in range(count)))


async def in_turn(target: Target, *, model: str, count: int, at_once: int) -> list[Sample]:
    """Whole answers, so many workers one after the other."""
    left = iter(range(count))
    samples: list[Sample] = []

    async def worker() -> None:
        for _ in left:
            samples.append(await ask(target, model=model, stream=False))

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return samples
