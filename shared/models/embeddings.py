"""Embeddings: passed through to an upstream by the OpenAI SDK, or made up, deterministically, when there is none."""

import base64
import hashlib
import math
import re
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from shared.errors import AssistantError, InvalidRequest, ModelTimeout, ModelUnavailable, NotFound
from shared.models.base import Json
from shared.models.endpoint import Endpoint
from shared.models.transport import CONNECT_SECONDS, read_object, status_error

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OFFLINE_DIMENSIONS = 256
MOST_DIMENSIONS = 4096
MOST_INPUTS = 2048


class OpenAIEmbedder:
    """`POST /embeddings` of an endpoint, body as it came, but for the names that are ours."""

    def __init__(self, endpoint: Endpoint, *, seconds: float = 60.0, names: dict[str, str] | None = None) -> None:
        self._endpoint = endpoint
        self._seconds = seconds
        self._names = names or {}
        self._client: AsyncOpenAI | None = None

    async def embed(self, body: Json) -> Json:
        """The upstream's answer, as it came.

        Raises:
            AssistantError: as the model stream does, by the same table.
        """
        # Imported on first use: half a second that the token path must not pay.
        import openai  # noqa: PLC0415

        name = body.get("model")
        if name in self._names:
            body = {**body, "model": self._names[name]}
        headers: dict[str, Any] = {"Authorization": openai.Omit(), **await self._endpoint.authorize()}
        try:
            response = await self._sdk().post(
                "/embeddings", cast_to=openai.HttpxBinaryResponseContent, body=body, options={"headers": headers}
            )
        except openai.APIStatusError as exc:
            raise self._refusal(exc.status_code, exc.response.headers, exc.response.content) from exc
        except openai.APITimeoutError as exc:
            raise ModelTimeout("The model's server did not answer in time; try again.") from exc
        except openai.APIConnectionError as exc:
            raise ModelUnavailable("The model's server cannot be reached; try again later.") from exc
        return read_object(response.content)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _refusal(self, status: int, headers: Any, payload: bytes) -> AssistantError:
        return status_error(status, headers, payload, setting=self._endpoint.setting)

    def _sdk(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, Timeout  # noqa: PLC0415

        if self._client is None:
            # The key goes with each call (a token may be renewed); retries are the router's business, not the SDK's.
            self._client = AsyncOpenAI(
                api_key="unused",
                base_url=self._endpoint.base_url,
                timeout=Timeout(self._seconds, connect=CONNECT_SECONDS),
                max_retries=0,
            )
        return self._client


class OfflineEmbedder:
    """Vectors of unit length from hashed words: texts that share words are near each other, everywhere, always."""

    async def embed(self, body: Json) -> Json:
        """The protocol's answer to an embeddings request.

        Raises:
            NotFound: the name is not one of an embedding model.
            InvalidRequest: a field cannot be used.
        """
        model = body.get("model")
        if not isinstance(model, str) or not (model.startswith("companion") or "embed" in model):
            raise NotFound(f"The model {model!r} does not exist.", code="model_not_found", param="model")
        dimensions = body.get("dimensions") or OFFLINE_DIMENSIONS
        if not isinstance(dimensions, int) or not 1 <= dimensions <= MOST_DIMENSIONS:
            raise InvalidRequest(f"dimensions must be between 1 and {MOST_DIMENSIONS}.", param="dimensions")
        encode = _encoding(body.get("encoding_format") or "float")
        inputs = _inputs(body.get("input"))
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector_of(words, dimensions))}
            for index, words in enumerate(inputs)
        ]
        tokens = sum(max(1, len(words)) for words in inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": model, "usage": usage}

    async def close(self) -> None:
        return None


def vector_of(words: Sequence[str], dimensions: int) -> list[float]:
    """Each word adds to one dimension its hash picks, with the sign its hash picks; then scaled to length 1."""
    vector = [0.0] * dimensions
    for word in words or ("",):
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:7]) % dimensions] += 1.0 if digest[7] & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def _encoding(name: object) -> Callable[[list[float]], Any]:
    match name:
        case "float":
            return lambda vector: vector
        case "base64":
            return lambda vector: base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        case _:
            raise InvalidRequest("encoding_format must be 'float' or 'base64'.", param="encoding_format")


def _inputs(value: object) -> list[list[str]]:
    """The words of each text. Token ids count as words, so that the clients that send them are served as well."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise InvalidRequest("input must be a text, a list of texts, or token ids.", param="input")
    entries = cast(list[object], value)
    if all(isinstance(entry, int) for entry in entries):
        entries = [entries]
    if len(entries) > MOST_INPUTS:
        raise InvalidRequest(f"input must have at most {MOST_INPUTS} entries.", param="input")
    return [_words(entry) for entry in entries]


def _words(entry: object) -> list[str]:
    if isinstance(entry, str) and entry:
        return re.findall(r"\w+", entry.lower()) or [entry]
    if isinstance(entry, list) and entry:
        return [str(token) for token in cast(list[object], entry)]
    raise InvalidRequest("input must not be empty.", param="input")
