"""Who calls."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller an edge has recognised; nothing in a request body or path can change the owner."""

    owner: str
    """Whose data: the partition key of everything the call touches."""
    scopes: frozenset[str] = frozenset({"chat", "read", "admin"})
    """What the credential may do."""
    plan: str = "default"
    """Which limits apply."""
    is_guest: bool = False
