"""Identifiers: random, prefixed as the field expects, and an item's id carries its turn's.

>>> turn_of("msg_5f3a…c1_o0")
'5f3a…c1'
"""

import hashlib
import secrets
from typing import Protocol


class Ids(Protocol):
    """Source of fresh tokens; tests inject a counted one."""

    def token(self) -> str:
        """32 lower-case hexadecimal digits, never given before."""
        ...


class RandomIds:
    """128 random bits a token."""

    def token(self) -> str:
        return secrets.token_hex(16)


class CountedIds:
    """Deterministic tokens for tests and simulations: one counter, one seed."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._count = 0

    def token(self) -> str:
        self._count += 1
        return hashlib.sha256(f"{self._seed}:{self._count}".encode()).hexdigest()[:32]


def derived_token(*parts: str) -> str:
    """The same parts give the same token: what makes a retried create conflict with the first."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


class DerivedIds:
    """The same tokens, in the same order, whenever the same work is begun again."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts
        self._count = 0

    def token(self) -> str:
        self._count += 1
        return derived_token(*self._parts, "made", str(self._count))


def item_id(prefix: str, turn_token: str, side: str, index: int) -> str:
    """`msg_<turn token>_o0`: prefix, turn, side (`i` input, `o` output) and place."""
    return f"{prefix}_{turn_token}_{side}{index}"


def turn_of(id_: str) -> str | None:
    """The turn token inside an item or response id; None where there is none."""
    parts = id_.split("_")
    return parts[1] if len(parts) in (2, 3) and len(parts[1]) == 32 else None
