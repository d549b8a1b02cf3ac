"""What both stores hold documents to, so that nothing works on a laptop and fails in the cloud."""

from collections.abc import Sequence
from urllib.parse import quote

from shared.errors import PayloadTooLarge
from shared.storage.base import CONTAINERS, ContainerSpec, Delete, Document, Operation

MAX_OPERATIONS = 100
"""Of one batch; the limit of Cosmos DB."""

MAX_BYTES = 2_000_000
"""Of the documents of one batch, as JSON; Cosmos DB takes requests of 2 MiB, with what is said around them."""

MAX_BLOB_NAME = 200
"""Of an owner or a name, quoted: what every file system takes, with our suffixes."""

SPECS: dict[str, ContainerSpec] = {spec.name: spec for spec in CONTAINERS}

_RESERVED = frozenset({"pk", "_rid", "_self", "_etag", "_attachments", "_ts", "_lsn"})
_NOT_IN_IDS = frozenset("/\\?#")


def check(operations: Sequence[Operation]) -> None:
    """Refuse what Cosmos DB would refuse.

    Raises:
        ValueError: a bug of the caller: too many operations, an id or a field name that cannot be stored.
    """
    if len(operations) > MAX_OPERATIONS:
        raise ValueError(f"a batch has at most {MAX_OPERATIONS} operations, not {len(operations)}")
    for operation in operations:
        if isinstance(operation, Delete):
            continue
        id_ = operation.body["id"]
        if not id_ or not _NOT_IN_IDS.isdisjoint(id_):
            raise ValueError(f"an id is not empty and has none of / \\ ? #, unlike {id_!r}")
        if not _RESERVED.isdisjoint(operation.body):
            raise ValueError(f"{id_!r} uses a field name that the store keeps for itself")


def too_large() -> PayloadTooLarge:
    """What a batch is refused with that has more bytes than `MAX_BYTES`, by SQLite or by the service."""
    return PayloadTooLarge(f"This is more than can be stored at once ({MAX_BYTES:,} bytes); send less at a time.")


def time_to_live(spec: ContainerSpec, document: Document) -> float | None:
    """Seconds until the document disappears; None: it stays. A `ttl` counts only where the container has expiry."""
    if spec.default_ttl is None:
        return None
    seconds = document.get("ttl", spec.default_ttl)
    return None if seconds is None or seconds < 0 else seconds


def blob_path(owner: str, name: str | None = None) -> str:
    """`owner/name`, both quoted so that neither can leave its place; without a name, the owner's folder alone.

    >>> blob_path("../tenant|user", "picture 1.png")
    '%2E%2E%2Ftenant%7Cuser/picture%201.png'

    Raises:
        ValueError: a name is empty or too long for a file system.
    """
    return _quoted(owner) if name is None else f"{_quoted(owner)}/{_quoted(name)}"


def _quoted(name: str) -> str:
    quoted = quote(name, safe="")
    dots = len(quoted) - len(quoted.lstrip("."))
    quoted = "%2E" * dots + quoted[dots:]
    if not 0 < len(quoted) <= MAX_BLOB_NAME:
        raise ValueError(f"a blob's owner and name have 1 to {MAX_BLOB_NAME} characters when quoted, unlike {name!r}")
    return quoted
