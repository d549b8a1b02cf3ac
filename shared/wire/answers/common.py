"""What answers of every resource share."""

from typing import Any, Literal, TypedDict

type Json = dict[str, Any]


class ErrorBody(TypedDict):
    """What went wrong: all four keys, always."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(TypedDict):
    """The answer of every request that failed."""

    error: ErrorBody


class Page[T](TypedDict):
    """One page of a list; `has_more` is exact, and both ids are null where `data` is empty."""

    object: Literal["list"]
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(TypedDict):
    """It is gone; a second delete is answered 404."""

    id: str
    object: str
    deleted: Literal[True]
