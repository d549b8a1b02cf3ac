"""What is stored of credentials. No record holds one: a digest is kept, which tells whether it is right."""

from typing import Literal

from shared.conversations.records import Record


class ApiKeyRecord(Record):
    """In the owner's partition: what its owner sees of a key."""

    kind: Literal["api_key"] = "api_key"
    sort: str
    name: str
    scopes: list[str]
    plan: str
    hint: str
    """The last characters, to know it by."""
    created_at: float
    expires_at: float | None = None


class KeyEntry(Record):
    """In the directory, under the key's public prefix: whose key it is."""

    kind: Literal["key_entry"] = "key_entry"
    owner: str
    digest: str
    """SHA-256 of the whole key, hexadecimal; it has 256 random bits, so no salt and no slow hash is needed."""
    scopes: list[str]
    plan: str
    expires_at: float | None = None


class GuestRecord(Record):
    """In the directory, once a guest signed in: whose their data is now. The guest's token is worth nothing more."""

    kind: Literal["guest"] = "guest"
    owner: str
    account: str
    adopted_at: float
    due: float | None = None
    """When to look for what was left behind; None once there can be nothing."""
    ttl: int | None = None
