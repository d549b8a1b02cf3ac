"""A model's server that costs almost nothing: pre-rendered chunks over a bare asyncio protocol.

    python -m bench.upstream --port 9000

The model's name says how it answers: `t200` at once, `t200p10` one token each 10 ms; `plain` bodies when not streamed.
"""

import argparse
import asyncio
import re
import time
from functools import cache
from typing import cast

import orjson
import uvloop

LISTED = ("t200", "t200p10", "t20", "t3p10")
"""Servers that look names up know these; the others are known here all the same."""
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, object], finish: str | None = None) -> bytes:
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: %b\n\n" % orjson.dumps(body)


@cache
def script(tokens: int) -> list[bytes]:
    """One HTTP chunk a token: role and first token, the others, then end and usage."""
    chunks = [_chunk(_event({"role": "assistant", "content": "token "}))]
    chunks += [_chunk(_event({"content": "token "}))] * (tokens - 1)
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": tokens + 10}
    last: dict[str, object] = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [],
    }
    end = _event({}, "stop") + b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps({**last, "usage": usage})
    return [*chunks, _chunk(end) + b"0\r\n\r\n"]


@cache
def whole(tokens: int) -> bytes:
    message = {"role": "assistant", "content": "token " * tokens}
    body = orjson.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1,
            "model": "bench",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": tokens + 10},
        }
    )
    return _JSON_HEAD % len(body) + body


_MODEL = re.compile(rb'"model":\s*"[^"]*?t(\d+)(?:p(\d+))?"')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Upstream(asyncio.Protocol):
    """Answers every POST; enough of HTTP for clients that send a content-length."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, split, body = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not split or (length and len(body) < int(length[1])):
            return
        self._data = b""
        if head.startswith(b"GET"):
            listed = orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in LISTED]})
            self.transport.write(_JSON_HEAD % len(listed) + listed)
            return
        model = _MODEL.search(body)
        tokens, pace = (int(model[1]), int(model[2] or 0) / 1000) if model else (200, 0.0)
        if b'"stream":true' not in body.replace(b" ", b""):
            self.transport.write(whole(tokens))
        elif pace:
            _Paced(self.transport, script(tokens), pace, closes=b"connection: close" in head)
            return
        else:
            self.transport.write(_HEAD + b"".join(script(tokens)))
        if b"connection: close" in head:
            self.transport.close()


class _Paced:
    """Writes one chunk an interval, on time whatever the loop does in between."""

    def __init__(self, transport: asyncio.Transport, chunks: list[bytes], pace: float, *, closes: bool) -> None:
        self._transport, self._chunks, self._pace, self._closes = transport, chunks, pace, closes
        self._next = 1
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        transport.write(_HEAD + chunks[0])
        self._loop.call_later(pace, self._tick)

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._chunks[self._next])
        self._next += 1
        if self._next < len(self._chunks):
            due = self._began + self._next * self._pace
            self._loop.call_later(max(0.0, due - time.monotonic()), self._tick)
        elif self._closes:
            self._transport.close()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    print("serving", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(main(parser.parse_args().port))
