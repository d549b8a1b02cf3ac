"""What is stored of share links."""

from typing import Literal

from shared.conversations.records import Record


class ShareRecord(Record):
    """In the owner's partition. The snapshot itself is a blob of the owner's, under the same id."""

    kind: Literal["share"] = "share"
    group: str
    """The conversation."""
    sort: str
    title: str | None = None
    items: int = 0
    created_at: float


class ShareEntry(Record):
    """In the directory: where a link leads. The link's id has 128 random bits; who has it may read."""

    kind: Literal["share_entry"] = "share_entry"
    owner: str
