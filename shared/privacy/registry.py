"""Every kind of record there is, and what becomes of it when its owner exports, imports or erases.

A kind that is not here fails a test (tests/unit/privacy/test_registry.py). Whoever adds a record adds it here.
"""

from dataclasses import dataclass
from typing import Literal

from shared.answers.records import AnswerRecord
from shared.conversations.records import DELETED, ConversationRecord, Record, Tombstone, TurnRecord
from shared.identity.records import ApiKeyRecord, GuestRecord, KeyEntry
from shared.models.operator import RoutesRecord
from shared.models.shadow import ShadowRecord
from shared.privacy.records import AdoptedRecord, BlobsRecord, DataJobRecord, ErasureRecord, ProfileRecord
from shared.projects.records import FeedbackRecord, ProjectRecord
from shared.sharing.records import ShareEntry, ShareRecord
from shared.sync.records import SyncRecord
from shared.usage.records import UsageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of record."""

    name: str
    record: type[Record]
    where: Literal["state", "knowledge", "directory"] = "state"
    erased: Literal["with the partition", "by its owner's record", "by the job itself", "operator's"]
    """How an erasure reaches it. Partitions go whole, but for the bare sums of this month's `usage`, which go when it
    ends, unless its owner comes again before; directory records are found through a record of the owner's."""
    is_exported: bool = False
    is_imported: bool = False
    id_prefix: str = ""
    """Of kinds that are imported: what an id begins with; 32 hexadecimal digits follow."""
    left_out: frozenset[str] = frozenset()
    """Fields of ours that say nothing about the owner (leases, hosts, hashes)."""


_RUN = frozenset(
    {
        "due",
        "host",
        "attempt",
        "send_key",
        "body_hash",
        "nonce",
        "usage_id",
        "charge",
        "next_sequence",
        "is_journalled",
        "first_token_ms",
        "trace",
    }
)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="conversation",
            record=ConversationRecord,
            erased="with the partition",
            is_exported=True,
            is_imported=True,
            id_prefix="conv_",
            left_out=frozenset({"running", "body_hash", "due", "deleted_at", "purged_at"}),
        ),
        Kind(name=DELETED, record=ConversationRecord, erased="with the partition"),
        Kind(
            name="turn",
            record=TurnRecord,
            erased="with the partition",
            is_exported=True,
            is_imported=True,
            id_prefix="resp_",
            left_out=_RUN,
        ),
        Kind(
            name="project",
            record=ProjectRecord,
            erased="with the partition",
            is_exported=True,
            is_imported=True,
            id_prefix="proj_",
        ),
        Kind(
            name="feedback",
            record=FeedbackRecord,
            erased="with the partition",
            is_exported=True,
            is_imported=True,
            id_prefix="feedback_",
        ),
        Kind(
            name="profile",
            record=ProfileRecord,
            erased="with the partition",
            is_exported=True,
            is_imported=True,
            left_out=frozenset({"due"}),
        ),
        Kind(
            name="usage",
            record=UsageRecord,
            erased="with the partition",
            is_exported=True,
            left_out=frozenset({"due", "rate", "reserved", "sent", "background", "waiting", "waiting_first"}),
        ),
        Kind(name="api_key", record=ApiKeyRecord, erased="with the partition", is_exported=True),
        Kind(name="share", record=ShareRecord, erased="with the partition", is_exported=True),
        Kind(name="adopted", record=AdoptedRecord, erased="with the partition", is_exported=True),
        Kind(name="shadow", record=ShadowRecord, erased="with the partition"),
        Kind(name="answer", record=AnswerRecord, erased="with the partition"),
        Kind(name="tombstone", record=Tombstone, erased="with the partition"),
        Kind(name="data_job", record=DataJobRecord, erased="with the partition"),
        Kind(name="sync", record=SyncRecord, erased="with the partition"),
        Kind(name="blobs", record=BlobsRecord, erased="with the partition"),
        Kind(name="key_entry", record=KeyEntry, where="directory", erased="by its owner's record"),
        Kind(name="share_entry", record=ShareEntry, where="directory", erased="by its owner's record"),
        Kind(name="guest", record=GuestRecord, where="directory", erased="by its owner's record"),
        Kind(name="erasure", record=ErasureRecord, where="directory", erased="by the job itself"),
        Kind(name="receipt", record=DataJobRecord, where="directory", erased="by the job itself"),
        Kind(name="routes", record=RoutesRecord, erased="operator's"),
    )
}
"""By the record's `kind`. Not records, and erased as well: journals (`events`, by their turns), messages of queues,
blobs, and what a deleted turn leaves for a day so that its id stays taken (`spent`, in the owner's partition)."""

OWNERS_DIRECTORY: dict[str, str] = {"api_key": "id", "share": "id", "adopted": "guest"}
"""Records of the owner that lead to a directory record, and the field that names it (of a guest, if the claim is the
owner's)."""
