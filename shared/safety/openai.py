"""OpenAI's moderation as a `Moderator`."""

import asyncio
from collections.abc import Sequence
from typing import Any

from shared.errors import UpstreamError
from shared.models.endpoint import Endpoint
from shared.models.transport import UNREADABLE, Transport
from shared.safety.base import Content, Judgement

type Json = dict[str, Any]

MODEL = "omni-moderation-latest"
SECONDS = 10.0


class OpenAIModerator:
    """`POST /moderations` of OpenAI, or of a server that has it too."""

    model = MODEL

    def __init__(self, endpoint: Endpoint, transport: Transport | None = None) -> None:
        self._endpoint = endpoint
        self._transport = transport or Transport()

    async def judge(self, contents: Sequence[Content]) -> list[Judgement]:
        """Texts in one call; what has images in a call each, as the service wants it."""
        if all(not content.images for content in contents):
            answer = await self.ask({"model": MODEL, "input": [content.text for content in contents]})
            return [_judgement(result) for result in _results(answer, len(contents))]
        answers = await asyncio.gather(*(self.ask({"model": MODEL, "input": _parts(content)}) for content in contents))
        return [_judgement(_results(answer, 1)[0]) for answer in answers]

    async def find_attack(self, text: str) -> bool:
        del text
        return False

    async def ask(self, body: Json) -> Json:
        """The service's own answer to the service's own request.

        Raises:
            AssistantError: refused, failed or unreachable.
        """
        headers = await self._endpoint.authorize()
        url = f"{self._endpoint.base_url}/moderations"
        return await self._transport.post_json(url, body, headers, seconds=SECONDS, setting=self._endpoint.setting)

    async def close(self) -> None:
        await self._transport.close()
        await self._endpoint.close()


def _parts(content: Content) -> list[Json]:
    texts: list[Json] = [{"type": "text", "text": content.text}] if content.text else []
    return texts + [{"type": "image_url", "image_url": {"url": url}} for url in content.images]


def _results(answer: Json, count: int) -> list[Json]:
    results: Any = answer.get("results")
    if not isinstance(results, list) or len(results) != count:  # pyright: ignore[reportUnknownArgumentType]
        raise UpstreamError(UNREADABLE)
    return results  # pyright: ignore[reportUnknownVariableType]


def _judgement(result: Json) -> Judgement:
    categories: Json = result.get("categories") or {}
    flagged = frozenset(name for name, is_flagged in categories.items() if is_flagged)
    return Judgement(
        flagged=flagged or (frozenset({"content"}) if result.get("flagged") else frozenset()),
        scores=result.get("category_scores") or {},
        inputs=result.get("category_applied_input_types") or {},
    )
