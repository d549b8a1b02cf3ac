"""What is stored of an owner's data rights: profile, and the jobs that export, import and erase."""

from typing import Literal

from pydantic import Field

from shared.conversations.records import Record

type JobType = Literal["export", "import", "erase"]
type JobStatus = Literal["queued", "in_progress", "completed", "failed"]

PROFILE = "profile"


class ProfileRecord(Record):
    """What the owner says of themselves and wants. One per owner, with this very id."""

    kind: Literal["profile"] = "profile"
    id: str = PROFILE
    name: str | None = None
    retention_days: int | None = None
    due: float | None = None
    """When the retention policy is looked at next; None: there is none."""
    updated_at: float = 0.0


class AdoptedRecord(Record):
    """A guest whose data this account has taken over."""

    kind: Literal["adopted"] = "adopted"
    guest: str
    adopted_at: float
    account: str | None = None
    """Only in what is left in the guest's own partition: where the data went."""


class DataJobRecord(Record):
    """An export or import, in the owner's partition; the receipt of an erasure, in the directory."""

    kind: Literal["data_job", "receipt"] = "data_job"
    type: JobType
    sort: str | None = None
    status: JobStatus = "queued"
    created_at: float
    completed_at: float | None = None
    owner_digest: str = ""
    """Of a receipt: whose it is, for them alone to recognise."""
    counts: dict[str, int] = Field(default_factory=dict[str, int])
    step: int = 0
    """How far it has come; a job that is run again goes on from here."""
    tries: int = 0
    error: str | None = None
    due: float | None = None
    """When to look after it, should its worker have died; None once final."""
    ttl: int | None = None


class ErasureRecord(Record):
    """In the directory while an owner's data is being erased; then it goes too."""

    kind: Literal["erasure"] = "erasure"
    owner: str
    receipt: str
    due: float
    tries: int = 0
    counts: dict[str, int] = Field(default_factory=dict[str, int])
    """What is gone for certain; the receipt says this and `found`."""
    found: dict[str, int] = Field(default_factory=dict[str, int])
    """What was found last and is being deleted: written before, so that a worker that dies leaves nothing uncounted."""


class BlobsRecord(Record):
    """Blobs of a document that disappears by itself (storage/large.py); outlives it, to take them along."""

    kind: Literal["blobs"] = "blobs"
    due: float
    of: str
    names: list[str]
