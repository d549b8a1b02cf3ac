"""Azure AI Content Safety as a `Moderator`: its REST API, by managed identity."""

import asyncio
from collections.abc import Sequence
from typing import Any

from shared.errors import InvalidRequest, UpstreamError
from shared.models.endpoint import AzureToken, TokenSource
from shared.models.transport import UNREADABLE, Transport
from shared.safety.base import Content, Judgement

type Json = dict[str, Any]

VERSION = "2024-09-01"
SECONDS = 10.0
MOST_CHARACTERS = 10_000
"""Of a text in one call."""
MOST_CALLS = 4
"""At a time, for one content."""
FLAGGED_FROM = 4
"""Severity 0, 2, 4 or 6: medium and high are flagged."""

_CATEGORIES = {"Hate": "hate", "SelfHarm": "self-harm", "Sexual": "sexual", "Violence": "violence"}
SETTING = "the role `Cognitive Services User` of its identity at COMPANION_CONTENT_SAFETY"


class ContentSafety:
    """See `Moderator`; also finds prompt attacks (Prompt Shields) in what tools give."""

    model = "azure-content-safety"

    def __init__(
        self,
        endpoint: str,
        *,
        client_id: str = "",
        token_source: TokenSource | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._url = f"{endpoint}/contentsafety"
        self._token = AzureToken(client_id, token_source)
        self._transport = transport or Transport()
        self._slots = asyncio.Semaphore(MOST_CALLS)

    async def judge(self, contents: Sequence[Content]) -> list[Judgement]:
        return list(await asyncio.gather(*(self._judge(content) for content in contents)))

    async def find_attack(self, text: str) -> bool:
        """Raises as `judge` does."""
        answers = await asyncio.gather(
            *(self._post("text:shieldPrompt", {"userPrompt": "", "documents": [piece]}) for piece in pieces(text))
        )
        found: list[list[Json]] = [answer.get("documentsAnalysis") or [] for answer in answers]
        return any(analysis.get("attackDetected") for analyses in found for analysis in analyses)

    async def close(self) -> None:
        await self._transport.close()
        await self._token.close()

    async def _judge(self, content: Content) -> Judgement:
        texts = [self._post("text:analyze", {"text": piece}) for piece in pieces(content.text)]
        images = [self._post("image:analyze", {"image": _image(url)}) for url in content.images]
        answers = await asyncio.gather(*texts, *images)
        severities: dict[str, int] = {}
        inputs: dict[str, list[str]] = {}
        for place, answer in enumerate(answers):
            kind = "text" if place < len(texts) else "image"
            for name, severity in _severities(answer):
                severities[name] = max(severity, severities.get(name, 0))
                if kind not in inputs.setdefault(name, []):
                    inputs[name].append(kind)
        return Judgement(
            flagged=frozenset(name for name, severity in severities.items() if severity >= FLAGGED_FROM),
            scores={name: severity / 7 for name, severity in severities.items()},
            inputs=inputs,
        )

    async def _post(self, action: str, body: Json) -> Json:
        headers = await self._token.headers()
        async with self._slots:
            url = f"{self._url}/{action}?api-version={VERSION}"
            return await self._transport.post_json(url, body, headers, seconds=SECONDS, setting=SETTING)


def pieces(text: str) -> list[str]:
    return [text[start : start + MOST_CHARACTERS] for start in range(0, len(text), MOST_CHARACTERS)]


def _image(url: str) -> Json:
    """The service takes bytes, or its own customer's blobs; it does not fetch a stranger's URL."""
    head, comma, data = url.partition(";base64,")
    if not (comma and head.startswith("data:image/")):
        raise InvalidRequest("This server checks images: send them as data: URLs.", param="input")
    return {"content": data}


def _severities(answer: Json) -> list[tuple[str, int]]:
    entries: list[Json] | None = answer.get("categoriesAnalysis")
    if not isinstance(entries, list):
        raise UpstreamError(UNREADABLE)
    known = [(_CATEGORIES.get(str(entry.get("category"))), entry.get("severity") or 0) for entry in entries]
    return [(name, int(severity)) for name, severity in known if name is not None]
