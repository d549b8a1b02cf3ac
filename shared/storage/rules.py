"""What both stores hold documents to, so that nothing works on a laptop and fails in the cloud."""

from collections.abc import Sequence

from shared.storage.base import CONTAINERS, ContainerSpec, Delete, Document, Operation

MAX_OPERATIONS = 100
"""Of one batch; the limit of Cosmos DB."""

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


def time_to_live(spec: ContainerSpec, document: Document) -> float | None:
    """Seconds until the document disappears; None: it stays. A `ttl` counts only where the container has expiry."""
    if spec.default_ttl is None:
        return None
    seconds = document.get("ttl", spec.default_ttl)
    return None if seconds is None or seconds < 0 else seconds
