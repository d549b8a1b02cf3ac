"""The limit: a bare pass-through on the same stack (aiohttp client, uvicorn); it parses, checks and stores nothing.

UPSTREAM=http://127.0.0.1:9000/v1 python -m bench.passthrough --port 9001
"""

import argparse
import os

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_session: list[aiohttp.ClientSession] = []


class Relay:
    """An ASGI response that sends each piece of the upstream's body as it comes."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _session:
            connector = aiohttp.TCPConnector(limit=0)
            _session.append(aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)))
        url = f"{os.environ['UPSTREAM']}/chat/completions"
        headers = {"content-type": "application/json"}
        async with _session[0].post(url, data=self._body, headers=headers) as response:
            kind = response.headers["content-type"].encode()
            await send({"type": "http.response.start", "status": response.status, "headers": [(b"content-type", kind)]})
            async for piece in response.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def chat(request: Request) -> Relay:
    return Relay(await request.body())


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])  # pyright: ignore[reportArgumentType]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(
        app, host="127.0.0.1", port=options.port, log_level="error", access_log=False, http="httptools", loop="uvloop"
    )
