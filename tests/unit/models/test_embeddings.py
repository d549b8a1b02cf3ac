import base64
import struct

import pytest

from shared.errors import AssistantError, InvalidRequest, NotFound
from shared.models.base import Json
from shared.models.embeddings import OFFLINE_DIMENSIONS, OfflineEmbedder


async def vectors(**body: object) -> list[list[float]]:
    answer = await OfflineEmbedder().embed({"model": "text-embedding-3-small", **body})
    return [entry["embedding"] for entry in answer["data"]]


def nearness(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_vectors_have_length_one_and_are_always_the_same() -> None:
    (first,) = await vectors(input="The cat sat")

    assert len(first) == OFFLINE_DIMENSIONS
    assert nearness(first, first) == pytest.approx(1.0)
    assert (await vectors(input="The cat sat")) == [first]


async def test_texts_that_share_words_are_near() -> None:
    cat, kitten, stocks = await vectors(input=["the cat sat here", "the cat was here", "quarterly revenue grew"])

    assert nearness(cat, kitten) > nearness(cat, stocks)


async def test_base64_is_the_same_vector_as_little_endian_floats() -> None:
    (plain,) = await vectors(input="hello", dimensions=8)
    answer = await OfflineEmbedder().embed(
        {"model": "companion", "input": "hello", "dimensions": 8, "encoding_format": "base64"}
    )

    assert struct.unpack("<8f", base64.b64decode(answer["data"][0]["embedding"])) == pytest.approx(plain)


@pytest.mark.parametrize(("value", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
async def test_every_form_of_input_is_taken(value: object, count: int) -> None:
    assert len(await vectors(input=value)) == count


@pytest.mark.parametrize(
    ("body", "expected", "param"),
    [
        ({"model": "gpt-9", "input": "a"}, NotFound, "model"),
        ({"input": "a"}, NotFound, "model"),
        ({"model": "companion"}, InvalidRequest, "input"),
        ({"model": "companion", "input": []}, InvalidRequest, "input"),
        ({"model": "companion", "input": ["a", ""]}, InvalidRequest, "input"),
        ({"model": "companion", "input": ["a"] * 2049}, InvalidRequest, "input"),
        ({"model": "companion", "input": "a", "dimensions": 0.5}, InvalidRequest, "dimensions"),
        ({"model": "companion", "input": "a", "dimensions": 5000}, InvalidRequest, "dimensions"),
        ({"model": "companion", "input": "a", "encoding_format": "hex"}, InvalidRequest, "encoding_format"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_name(body: Json, expected: type[AssistantError], param: str) -> None:
    with pytest.raises(expected) as caught:
        await OfflineEmbedder().embed(body)

    assert caught.value.param == param
