"""Moderations: the request as validated, the answer as rendered."""

from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field

from shared.safety.base import CATEGORIES, Content, Judgement
from shared.wire.items import Schema

type Json = dict[str, Any]

MOST_INPUTS = 128


class ModerationText(Schema):
    type: Literal["text"]
    text: str


class ImageUrl(Schema):
    url: Annotated[str, Field(min_length=1)]


class ModerationImage(Schema):
    type: Literal["image_url"]
    image_url: ImageUrl


type ModerationPart = Annotated[ModerationText | ModerationImage, Field(discriminator="type")]


class CreateModeration(Schema):
    """`POST /v1/moderations`: a text, several texts (a result each), or one content of texts and images."""

    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
        | Annotated[list[ModerationPart], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class ModerationResult(TypedDict):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class Moderation(TypedDict):
    id: str
    model: str
    results: list[ModerationResult]


def contents_of(request: CreateModeration) -> list[Content]:
    """What is to be judged, one for each result."""
    if isinstance(request.input, str):
        return [Content(text=request.input)]
    texts = [entry for entry in request.input if isinstance(entry, str)]
    if texts:
        return [Content(text=text) for text in texts]
    parts = [part for part in request.input if not isinstance(part, str)]
    return [
        Content(
            text="\n".join(part.text for part in parts if isinstance(part, ModerationText)),
            images=tuple(part.image_url.url for part in parts if isinstance(part, ModerationImage)),
        )
    ]


def render_moderation(token: str, model: str, judgements: list[Judgement]) -> Moderation:
    """Every category in every result, as OpenAI's clients expect."""
    return {"id": f"modr-{token}", "model": model, "results": [_result(judgement) for judgement in judgements]}


def _result(judgement: Judgement) -> ModerationResult:
    return {
        "flagged": bool(judgement.flagged),
        "categories": {category: category in judgement.flagged for category in CATEGORIES},
        "category_scores": {category: float(judgement.scores.get(category, 0.0)) for category in CATEGORIES},
        "category_applied_input_types": {category: judgement.inputs.get(category, []) for category in CATEGORIES},
    }
