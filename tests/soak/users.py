"""A user as an app has one, over HTTP: sends turns, hangs up, comes back, and keeps every byte it was shown."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import orjson

type Json = dict[str, Any]

PATIENCE = 3.0
"""Seconds without a byte (heartbeats come every second) after which a client takes its connection for dead."""
GIVE_UP_SECONDS = 120.0
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


class Recovery(NamedTuple):
    """From when a client knew that its stream had broken to the next event of it."""

    asked: str
    """What the turn was asked."""
    began: float
    ended: float


@dataclass(slots=True)
class Figures:
    """What all users together saw."""

    turns: int = 0
    """That were seen to their terminal event."""
    in_background: int = 0
    hang_ups: int = 0
    breaks: int = 0
    """Connections that broke, or went silent, under a client."""
    refusals: int = 0
    """Answers that ask to try again (409, 429, 5xx)."""
    events: int = 0
    recoveries: list[Recovery] = field(default_factory=list[Recovery])
    violations: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Turn:
    """One turn, as this client saw it."""

    key: str
    text: str
    id: str | None = None
    blocks: dict[int, bytes] = field(default_factory=dict[int, bytes])
    last: int = -1
    status: str | None = None
    breaks: int = 0
    broken_at: float | None = None


class User:
    """One owner with one conversation at a time."""

    def __init__(self, url: str, key: str, figures: Figures, chance: random.Random, *, hang_ups: float) -> None:
        self.figures = figures
        self.turns: list[Turn] = []
        self.conversation = ""
        self._url = url
        self._chance = chance
        self._hang_ups = hang_ups
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), headers={"authorization": f"Bearer {key}"}
        )

    async def close(self) -> None:
        await self._session.close()

    async def begin(self, name: str) -> None:
        self.conversation = (await self.call("POST", "/conversations", {}, key=f"conversation {name}"))["id"]

    async def take_turn(self, name: str, *, background: bool) -> None:
        """One turn, from its send to its terminal event, whatever breaks meanwhile."""
        turn = Turn(key=f"turn {name}", text=f"question {name}")
        self.turns.append(turn)
        body = {"input": turn.text, "conversation": self.conversation, "stream": True, "background": background}
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while turn.status is None:
            if time.monotonic() > deadline:
                self._accuse(turn, f"lost: no end after {GIVE_UP_SECONDS} s, last event {turn.last}")
                return
            if turn.id is None:
                request = self._session.post(
                    f"{self._url}/responses", json=body, headers={"idempotency-key": turn.key}, timeout=_TIMEOUT
                )
            else:
                url = f"{self._url}/responses/{turn.id}?stream=true&starting_after={turn.last}"
                request = self._session.get(url, timeout=_TIMEOUT)
            await self._read(turn, request)
        self.figures.turns += 1
        self.figures.in_background += background
        self.figures.events += len(turn.blocks)

    async def _read(self, turn: Turn, request: Any) -> None:
        """One connection, until it ends, breaks, or the client hangs up."""
        try:
            async with request as response:
                if response.status != 200:
                    await self._refused(turn, response)
                    return
                buffer = b""
                async for data in response.content.iter_any():
                    buffer += data
                    *blocks, buffer = buffer.split(b"\n\n")
                    if self._take(turn, blocks):
                        return
                    if turn.last >= 0 and blocks and self._chance.random() < self._hang_ups:
                        self.figures.hang_ups += 1
                        return
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        self._broken(turn)

    def _take(self, turn: Turn, blocks: list[bytes]) -> bool:
        """Whole events, each once and in order; returns whether this connection has said all."""
        for block in blocks:
            if block.startswith(b":") or block == b"data: [DONE]":
                continue
            event = event_of(block)
            if event["type"] == "error":
                self._broken(turn)
                return True
            number = event["sequence_number"]
            if number != turn.last + 1:
                self._accuse(turn, f"event {number} ({event['type']}) follows {turn.last}")
            turn.last = number
            turn.blocks[number] = block
            if number == 0:
                turn.id = event["response"]["id"]
            if turn.broken_at is not None:
                self.figures.recoveries.append(Recovery(turn.text, turn.broken_at, time.monotonic()))
                turn.broken_at = None
            if event["type"] in TERMINAL:
                turn.status = event["response"]["status"]
                return True
        return False

    def _broken(self, turn: Turn) -> None:
        self.figures.breaks += 1
        turn.breaks += 1
        if turn.broken_at is None:
            turn.broken_at = time.monotonic()

    async def _refused(self, turn: Turn, response: aiohttp.ClientResponse) -> None:
        self.figures.refusals += 1
        if response.status < 500 and response.status not in (409, 429):
            self._accuse(turn, f"refused with {response.status}: {await response.text()}")
            turn.status = "refused"
        await asyncio.sleep(float(response.headers.get("retry-after-ms", 500)) / 1000)

    async def call(self, method: str, path: str, body: Json | None = None, *, key: str | None = None) -> Json:
        """A plain call, repeated until it is answered."""
        headers = {"idempotency-key": key} if key else {}
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                async with self._session.request(
                    method, f"{self._url}{path}", json=body, headers=headers, timeout=_TIMEOUT
                ) as response:
                    if response.status == 200:
                        return await response.json()
                    if response.status < 500 and response.status not in (409, 429):
                        raise AssertionError(f"{method} {path}: {response.status} {await response.text()}")
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(0.2)
        raise AssertionError(f"{method} {path}: no answer for {GIVE_UP_SECONDS} s")

    async def replay(self, turn: Turn) -> dict[int, bytes]:
        """The whole stream of a turn once more."""
        again = Turn(key=turn.key, text=turn.text, id=turn.id)
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while again.status is None and time.monotonic() < deadline:
            url = f"{self._url}/responses/{turn.id}?stream=true&starting_after={again.last}"
            await self._read(again, self._session.get(url, timeout=_TIMEOUT))
        return again.blocks

    def _accuse(self, turn: Turn, what: str) -> None:
        self.figures.violations.append(f"{turn.id} ({turn.key}): {what}")


def event_of(block: bytes) -> Json:
    """The event in a block of a stream."""
    return orjson.loads(block[block.index(b"\ndata: ") + 7 :])


_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=PATIENCE)
