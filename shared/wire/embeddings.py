"""Embeddings: the request as validated."""

from typing import Annotated, Literal

from pydantic import Field

from shared.wire.items import Schema

type Text = Annotated[str, Field(min_length=1)]
type Tokens = Annotated[list[int], Field(min_length=1)]

MOST_INPUTS = 2048


class CreateEmbedding(Schema):
    """`POST /v1/embeddings`. Official clients ask for base64 unless told otherwise."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    model: Annotated[str, Field(min_length=1, max_length=256)]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
