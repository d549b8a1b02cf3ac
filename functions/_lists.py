"""Pages as OpenAI renders them."""

from typing import Any

type Json = dict[str, Any]


def page(data: list[Json], *, has_more: bool) -> Json:
    """`first_id` and `last_id` are null on an empty page; `has_more` is exact."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
