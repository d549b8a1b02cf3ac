"""How a send says which send it is: by idempotency key, or as a retry of an equal body."""

import hashlib
from typing import TypedDict

import orjson

from functions._edge import BODY
from functions._http import Request
from shared.errors import InvalidRequest

MAX_KEY = 255


class Sent(TypedDict):
    """The fields of a `TurnRequest` that headers and body decide."""

    send_key: str | None
    body_hash: str | None
    is_retry: bool


def key_of(request: Request) -> str | None:
    """The `Idempotency-Key`, if there is one.

    Raises:
        InvalidRequest: it cannot be used.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise InvalidRequest(f"An Idempotency-Key has 1 to {MAX_KEY} printable characters.", param="Idempotency-Key")
    return key


def sent_as(request: Request) -> Sent:
    """Of a request whose body was read.

    Raises:
        InvalidRequest: the key cannot be used.
    """
    key = key_of(request)
    count = request.headers.get("x-stainless-retry-count", "0")
    body = orjson.dumps([request.scope["path"], request.scope[BODY]], option=orjson.OPT_SORT_KEYS)
    return Sent(
        send_key=key,
        body_hash=hashlib.sha256(body).hexdigest()[:32],
        is_retry=count.isdecimal() and count.strip("0") != "",  # no int: of any length
    )
