"""Clients that hold a connection and do nothing with it: each is let go, and others are served meanwhile."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from localhost import server

ENDED: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    response: Response = PlainTextResponse("here")
    if scope["path"] == "/much":
        response = StreamingResponse(much())
    await Request(scope, receive).body()
    await response(scope, receive, send)


async def much() -> AsyncGenerator[bytes]:
    try:
        while True:
            yield b"x" * 65_536
            await asyncio.sleep(0)
    finally:
        ENDED.append("much")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)  # constants on purpose: nobody sets them
    monkeypatch.setattr(server, "STALL_SECONDS", 1.0)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nx-slow:"]
)
async def test_whoever_never_finishes_the_head_of_a_request_is_let_go(sent: bytes) -> None:
    async with server.serving(app) as url:
        reader, writer = await connect(url)
        writer.write(sent)
        began = time.monotonic()
        await asyncio.wait_for(reader.read(), 5)
        seconds = time.monotonic() - began
        async with httpx.AsyncClient(base_url=url) as other:
            served = await other.get("/")
        writer.close()

    assert 0.2 < seconds < 4
    assert served.text == "here"


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_takes_its_time_for_the_body_is_served() -> None:
    """How long a body may take is the edge's business."""
    async with server.serving(app) as url:
        reader, writer = await connect(url)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nconnection: close\r\n\r\n")
        await asyncio.sleep(0.6)
        writer.write(b"x")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert answer.endswith(b"here")


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux, which alone has this time-out")
async def test_whoever_does_not_read_is_let_go() -> None:
    ENDED.clear()
    async with server.serving(app, drain=1) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
            deadline = time.monotonic() + 20
            while not ENDED and time.monotonic() < deadline:  # noqa: ASYNC110 - the socket is the point
                await asyncio.sleep(0.05)

    assert ENDED == ["much"]
