"""Who calls."""

from dataclasses import dataclass

SCOPES = ("chat", "read", "admin")
"""What a credential may be limited to: make responses and change conversations (and read); read; everything."""

_IMPLIED = {"read": ("read", "chat", "admin"), "chat": ("chat", "admin"), "admin": ("admin",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller an edge has recognised; nothing in a request body or path can change the owner."""

    owner: str
    """Whose data: the partition key of everything the call touches."""
    scopes: frozenset[str] = frozenset(SCOPES)
    """What the credential may do."""
    plan: str = "default"
    """Which limits apply."""
    is_guest: bool = False

    def may(self, scope: str) -> bool:
        """
        >>> Principal(owner="ann", scopes=frozenset({"chat"})).may("read")
        True
        """
        return any(each in self.scopes for each in _IMPLIED[scope])
