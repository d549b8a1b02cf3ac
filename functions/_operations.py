"""What the API's document says of each HTTP function, written where its handler is.

    @blueprint.route("v1/things/{thing_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    @edge
    @Operation(answer=Thing, query=(INCLUDE,), errors=(404,))
    async def retrieve_thing(request: Request, call: Call) -> Response:
        '''A thing: this sentence is the summary. What follows it is the description.'''

What every operation has (the path's parameters, the request id, 401, 500 and the like) is added by the document.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from shared.wire.responses import Includable

type Json = dict[str, Any]
type Shape = Any
"""What pydantic can make a JSON schema of: a pydantic class, a TypedDict, a union of them."""

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of the query, or a header."""

    name: str
    schema: Json
    description: str
    place: str = "query"
    style: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One HTTP function, as a caller sees it; decorates its handler."""

    body: Shape = None
    """What the request's body must be; None: it has none."""
    body_media: str = JSON
    is_body_required: bool = True
    answer: Shape = None
    """What the answer's body is; None: no JSON (see `answer_media`), or nothing."""
    answer_media: str = JSON
    status: int = 200
    stream: Shape = None
    """What the events are that it answers with instead when a stream is asked for."""
    query: tuple[Parameter, ...] = ()
    is_idempotent_by_key: bool = False
    """It takes an `Idempotency-Key`."""
    also: Mapping[int, Shape] = field(default_factory=dict[int, Shape])
    """Other statuses that are answered with something else than an error body."""
    errors: tuple[int, ...] = ()
    """Statuses of refusals, beyond those that every operation of its kind has."""
    tag: str = ""
    """The heading it stands under; empty: the name of its module."""

    def __call__[H: Callable[..., Any]](self, handler: H) -> H:
        """Say it of this handler."""
        _operations[handler.__name__] = self
        return handler


_operations: dict[str, Operation] = {}


def find_operation(name: str) -> Operation | None:
    """What was said of the function of that name; None when nothing was."""
    return _operations.get(name)


# parameters that several operations have


def integer(name: str, description: str, **limits: int) -> Parameter:
    """A whole number: `integer("limit", "…", minimum=1, maximum=100, default=20)`."""
    return Parameter(name=name, schema={"type": "integer", **limits}, description=description)


def text(name: str, description: str) -> Parameter:
    return Parameter(name=name, schema={"type": "string"}, description=description)


def choice(name: str, description: str, *choices: str, default: str | None = None) -> Parameter:
    schema: Json = {"type": "string", "enum": list(choices)}
    return Parameter(
        name=name, schema=schema if default is None else {**schema, "default": default}, description=description
    )


def flag(name: str, description: str) -> Parameter:
    return Parameter(name=name, schema={"type": "boolean", "default": False}, description=description)


LIMIT = integer("limit", "How many to list.", minimum=1, maximum=100, default=20)
AFTER = text("after", "The id behind which the page begins, in the order asked for: `last_id` of the page before.")
NEWEST_FIRST = choice("order", "Newest first (`desc`), or oldest first (`asc`).", "asc", "desc", default="desc")
OLDEST_FIRST = choice("order", "Oldest first (`asc`), or newest first (`desc`).", "asc", "desc", default="asc")
PAGED = (LIMIT, AFTER, NEWEST_FIRST)
PAGED_UPWARDS = (LIMIT, AFTER, OLDEST_FIRST)
INCLUDE = Parameter(
    name="include[]",
    schema={"type": "array", "items": {"type": "string", "enum": list(get_args(Includable))}},
    description="What to show that is left out otherwise.",
)
STREAM = flag("stream", "Answer with server-sent events.")
STARTING_AFTER = integer("starting_after", "The sequence number behind which the stream begins; needs `stream=true`.")
