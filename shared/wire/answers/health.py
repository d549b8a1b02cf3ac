"""What `/healthz` and `/readyz` answer."""

from typing import Literal, TypedDict


class Alive(TypedDict):
    status: Literal["ok"]


class Ready(TypedDict):
    """Each part that the server needs, and whether it answers."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
