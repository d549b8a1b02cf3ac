"""Does a deployment answer? The stock `openai` SDK holds a conversation with it and cleans up behind itself.

    OPENAI_BASE_URL=https://HOST/v1 OPENAI_API_KEY=… python -m tools.smoke [--wait SECONDS] [--model NAME]

Exits 1 with one sentence where it does not. `--wait`: how long a new deployment may take to become ready; roles take
minutes to reach every service.
"""

import argparse
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import openai

TIMEOUT = 120.0


class Failed(Exception):
    """What did not hold."""


def wait_until_ready(base_url: str, seconds: float) -> float:
    """Until `/readyz` says 200; returns how long that took.

    Raises:
        Failed: it did not in time; the message carries the last answer.
    """
    url = base_url.removesuffix("/v1").rstrip("/") + "/readyz"
    began = time.monotonic()
    while True:
        answer = _ask(url)
        waited = time.monotonic() - began
        if answer is None:
            return waited
        if waited > seconds:
            raise Failed(f"{url} is not ready after {waited:.0f} s: {answer}")
        time.sleep(min(5.0, seconds / 10))


def _ask(url: str) -> str | None:
    """None when ready, else why not."""
    try:
        with urllib.request.urlopen(url, timeout=30):  # noqa: S310 - the operator's own address
            return None
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return str(error)


def converse(client: openai.OpenAI, model: str) -> str:
    """Two turns of a conversation, the second streamed; every id can be read back, and is gone after deletion."""
    conversation = client.conversations.create()
    try:
        first = client.responses.create(model=model, conversation=conversation.id, input="Say one word.")
        _require(first.status == "completed", f"the first turn ended {first.status}")
        began, first_token, text = time.monotonic(), 0.0, ""
        with client.responses.stream(model=model, conversation=conversation.id, input="Now say three.") as events:
            for event in events:
                if event.type == "response.output_text.delta":
                    first_token = first_token or time.monotonic() - began
                    text += event.delta
            final = events.get_final_response()
        _require(final.status == "completed", f"the second turn ended {final.status}")
        _require(bool(text) and text == final.output_text, "the stream is not what was stored")
        read = client.responses.retrieve(final.id)
        _require(read.output_text == text, "reading the turn back gives something else")
        items = client.conversations.items.list(conversation.id)
        _require(sum(1 for _ in items) >= 4, "the conversation does not hold both turns")
    finally:
        client.conversations.delete(conversation.id)
    _require(
        _raises_not_found(lambda: client.conversations.retrieve(conversation.id)), "a deleted conversation is there"
    )
    return f"first token after {first_token * 1000:.0f} ms, {len(text)} characters"


def _raises_not_found(call: Callable[[], object]) -> bool:
    try:
        call()
    except openai.NotFoundError:
        return True
    return False


def refuse_strangers(base_url: str) -> None:
    """A key nobody gave out opens nothing."""
    with openai.OpenAI(base_url=base_url, api_key="nobody", max_retries=0, timeout=TIMEOUT) as stranger:
        try:
            stranger.models.list()
        except openai.AuthenticationError:
            return
    raise Failed("a key that nobody gave out was accepted")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


def main() -> int:
    parser = argparse.ArgumentParser(prog="smoke", description="Does a deployment answer?")
    parser.add_argument(
        "--wait", type=float, default=10.0, help="seconds until it must be ready (default: %(default)s)"
    )
    parser.add_argument("--model", default="companion", help="default: %(default)s")
    options = parser.parse_args()
    base_url = os.environ["OPENAI_BASE_URL"].rstrip("/")
    try:
        print(f"ready after {wait_until_ready(base_url, options.wait):.1f} s")
        refuse_strangers(base_url)
        with openai.OpenAI(base_url=base_url, timeout=TIMEOUT, max_retries=2) as client:
            print(converse(client, options.model))
    except (Failed, openai.OpenAIError) as exc:
        print(f"{base_url}: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
