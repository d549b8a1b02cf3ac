"""What is stored of requests that name themselves by a key."""

from typing import Literal

from shared.conversations.records import Record

KEPT_SECONDS = 86_400


class AnswerRecord(Record):
    """Under an id derived from the key: that the request is being answered, then how it was."""

    kind: Literal["answer"] = "answer"
    body_hash: str
    until: float
    """While there is no answer: when whoever makes it is given up."""
    sealed: str | None = None
    """The answer's body, which only who knows the key can read: an answer may show a secret that is kept nowhere."""
    ttl: int = KEPT_SECONDS
