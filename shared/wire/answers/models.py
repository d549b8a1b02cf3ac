"""What `/v1/models` and `/v1/embeddings` answer."""

from typing import Literal, NotRequired, TypedDict


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """All of them, the default first; there are no pages."""

    object: Literal["list"]
    data: list[Model]


class Embedding(TypedDict):
    """`embedding` is a list of numbers, or those numbers as little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: NotRequired[EmbeddingUsage]
