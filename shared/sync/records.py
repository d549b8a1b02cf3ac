"""What is stored of synchronisation."""

from typing import Literal

from shared.conversations.records import Record

SYNC = "sync"


class SyncRecord(Record):
    """Names the present life of an owner's data: after an erasure it is another one, and old tokens say nothing."""

    kind: Literal["sync"] = "sync"
    id: str = SYNC
    life: str
