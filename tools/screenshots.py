"""Pictures of the chat page: `python -m tools.screenshots` writes those of the README, `--all DIR` every main state.

Answers come from a scripted model server below, so that the pictures show an ordinary conversation.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

from aiohttp import web

from tests.processes import ROOT, companion

IMAGES = ROOT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

SAVINGS = r"""With compound interest, your savings after $n$ years are

$$S_n = S_0 \left(1 + r\right)^n \quad\Longrightarrow\quad n = \frac{\ln(S_n / S_0)}{\ln(1 + r)}$$

so at 4 % a year, 5,000 € become 8,000 € after **about 12 years**:

| year | savings |
|---:|---:|
| 0 | 5,000 € |
| 6 | 6,327 € |
| 12 | 8,005 € |

```python
from math import log

def years(start: float, goal: float, rate: float) -> float:
    return log(goal / start) / log(1 + rate)

print(f"{years(5000, 8000, 0.04):.1f} years")  # 12.0 years
```

The [rule of 72](https://en.wikipedia.org/wiki/Rule_of_72) is a good check: money doubles in roughly 72 / 4 = 18 years.
"""
BERN = """A day in **Bern**, mostly on foot:

1. *Morning*: the Rose Garden, with the whole old town below it
2. *Noon*: the arcades, and lunch at a market on Bundesplatz
3. *Afternoon*: the Zentrum Paul Klee, or a swim down the Aare if it is warm
4. *Evening*: the tower of the Minster, just before it closes

Bring a bathing suit: in summer half the city floats home from work.
"""
ANSWERS = {
    "How long until 5,000 € become 8,000 € at 4 %?": SAVINGS,
    "What should I do with one day in Bern?": BERN,
}
TITLES = {"How long": "Compound interest", "What should": "One day in Bern"}
OTHERS = (
    "Pasta without tomatoes",
    "Regular expressions for dates",
    "Why is the sky blue?",
    "Letter to the landlord",
    "Learning Python in six weeks",
)


def _spoken(body: dict[str, Any]) -> str:
    asked = [message["content"] for message in body["messages"] if message["role"] == "user"][-1]
    text = asked if isinstance(asked, str) else asked[0]["text"]
    if "Name this conversation" in json.dumps(body["messages"][:-1]):
        return next((title for start, title in TITLES.items() if text.startswith(start)), "Conversation")
    return ANSWERS.get(text, f"You asked: {text}")


async def _complete(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    text = _spoken(body)
    for piece in (text[start : start + 12] for start in range(0, len(text), 12)):
        chunk = {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}}]}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await asyncio.sleep(0.02)
    usage = {"prompt_tokens": 40, "completion_tokens": len(text) // 4, "total_tokens": 40 + len(text) // 4}
    end: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": usage},
    ]
    for last in end:
        await response.write(f"data: {json.dumps(last)}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def _models(_: web.Request) -> web.Response:
    data = [{"id": name, "object": "model", "created": 1, "owned_by": "demo"} for name in ("large", "small")]
    return web.json_response({"object": "list", "data": data})


def _model_server(stack: ExitStack) -> str:
    """The scripted model server, in a thread of its own; gives its base URL."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run[T](work: Callable[[], Awaitable[T]]) -> T:
        async def call() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(call(), loop).result(20)

    app = web.Application()
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _complete)
    runner = web.AppRunner(app, access_log=None)
    run(runner.setup)
    run(web.TCPSite(runner, "127.0.0.1", 0).start)
    stack.callback(lambda: loop.call_soon_threadsafe(loop.stop))
    stack.callback(lambda: run(runner.cleanup))
    return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__)
    parser.add_argument("--all", type=Path, metavar="DIR", help="write every main state there instead")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("Chromium is missing: install the package `chromium`.", file=sys.stderr)
        return 1
    out: Path = arguments.all or IMAGES
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = _model_server(stack)
        api = stack.enter_context(companion(data, OPENAI_BASE_URL=upstream, OPENAI_API_KEY="demo"))
        order = {
            "base": api.removesuffix("/v1"),
            "browser": browser,
            "out": str(out.resolve()),
            "all": arguments.all is not None,
            "questions": list(ANSWERS),
            "others": OTHERS,
        }
        command = ["node", str(ROOT / "tools" / "screenshots.mjs"), json.dumps(order)]
        return subprocess.run(command, cwd=ROOT, check=False, timeout=300).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
