"""Many connections at one moment: few passes of the event loop, and all of them are served."""

import asyncio
import socket
from typing import Any

import pytest
import uvloop
from starlette.responses import PlainTextResponse

from localhost import server

MANY = 40
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def test_connections_that_wait_together_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Noted(server.Impatient):
        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            made.append(self)

    monkeypatch.setattr(server, "Impatient", Noted)

    async def program() -> tuple[int, list[bytes]]:
        async with server.serving(PlainTextResponse("here")) as url:
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            clients = [socket.create_connection(address) for _ in range(MANY)]  # the loop stands still meanwhile
            for client in clients:
                client.setblocking(False)
                client.send(REQUEST)
            passes = 0
            while len(made) < MANY and passes < 1000:
                passes += 1
                await asyncio.sleep(0)
            answers = [await _all(client) for client in clients]
            return passes, answers

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        passes, answers = runner.run(program())
    assert len(made) == MANY
    assert passes <= MANY / 4, "not one in a pass"
    assert all(answer.endswith(b"here") for answer in answers)


async def _all(client: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
