"""Where a model's server is and how we prove who we are there; what it says it serves."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from shared.errors import UpstreamError
from shared.models.base import Json
from shared.models.transport import UNREADABLE, Transport
from shared.settings import Secret

OPENAI_BASE_URL = "https://api.openai.com/v1"
AZURE_SCOPE = "https://cognitiveservices.azure.com/.default"
TOKEN_MARGIN = 300.0
"""Seconds before its end that a token is no longer used: a long stream begins with it."""
RENEW_SECONDS = 30.0
"""Until the next attempt to renew a token that is still good, when nobody gave one."""
CATALOG_SECONDS = 300.0


class AccessToken(Protocol):
    """What azure-identity gives."""

    @property
    def token(self) -> str: ...

    @property
    def expires_on(self) -> int: ...


type TokenSource = Callable[[], Awaitable[AccessToken]]


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server that speaks OpenAI's protocol.

    >>> openai_endpoint("http://127.0.0.1:8000/v1", Secret("")).kind
    'compatible'
    """

    base_url: str
    """Up to and including `/v1`, no slash at the end."""
    kind: Literal["openai", "azure", "compatible"]
    setting: str
    """The variable to check when credentials are refused."""
    authorize: Callable[[], Awaitable[Mapping[str, str]]]
    """The headers that prove who we are."""
    close: Callable[[], Awaitable[None]] = _nothing

    @property
    def is_openai(self) -> bool:
        """OpenAI's own implementation: newer names, stricter checks."""
        return self.kind != "compatible"

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc


def openai_endpoint(base_url: str, key: Secret) -> Endpoint:
    """OpenAI itself, or any compatible server; without a key no Authorization header is sent."""
    base_url = base_url or OPENAI_BASE_URL
    kind = "openai" if (urlsplit(base_url).hostname or "").endswith("api.openai.com") else "compatible"
    headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
    return Endpoint(base_url=base_url, kind=kind, setting="OPENAI_API_KEY", authorize=_fixed(headers))


def azure_endpoint(
    endpoint: str, key: Secret, *, client_id: str = "", token_source: TokenSource | None = None
) -> Endpoint:
    """Azure OpenAI's v1 surface; keyless unless a key is given."""
    base_url = f"{endpoint.rstrip('/').removesuffix('/openai/v1')}/openai/v1"
    if key:
        headers = _fixed({"api-key": key.reveal()})
        return Endpoint(base_url=base_url, kind="azure", setting="AZURE_OPENAI_API_KEY", authorize=headers)
    token = AzureToken(client_id, token_source)
    setting = "the role `Cognitive Services OpenAI User` of its identity"
    return Endpoint(base_url=base_url, kind="azure", setting=setting, authorize=token.headers, close=token.close)


def _fixed(headers: Mapping[str, str]) -> Callable[[], Awaitable[Mapping[str, str]]]:
    async def authorize() -> Mapping[str, str]:
        return headers

    return authorize


class AzureToken:
    """A managed identity's token as headers, asked for again shortly before it ends."""

    def __init__(self, client_id: str, source: TokenSource | None, now: Callable[[], float] = time.time) -> None:
        self._client_id = client_id
        self._source = source
        self._now = now
        self._lock = asyncio.Lock()
        self._headers: Mapping[str, str] = {}
        self._until = 0.0
        self._end = 0.0
        self._credential: Any = None

    async def headers(self) -> Mapping[str, str]:
        """Raises `UpstreamError` when no credential works here."""
        if self._now() < self._until:
            return self._headers
        async with self._lock:
            if self._now() >= self._until:
                await self._renew()
        return self._headers

    async def close(self) -> None:
        if self._credential is not None:
            await self._credential.close()
            self._credential = None

    async def _renew(self) -> None:
        source = self._source or self._identity
        try:
            token = await source()
        except UpstreamError:
            left = self._end - self._now()
            if left <= 0:
                raise
            self._until = self._now() + min(left, RENEW_SECONDS)
            return
        self._end = token.expires_on
        self._headers = {"Authorization": f"Bearer {token.token}"}
        self._until = token.expires_on - TOKEN_MARGIN

    async def _identity(self) -> AccessToken:
        # Imported on first use: 200 ms that nothing without Azure OpenAI should pay.
        from azure.core.exceptions import AzureError  # noqa: PLC0415
        from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415

        if self._credential is None:
            self._credential = DefaultAzureCredential(managed_identity_client_id=self._client_id or None)
        try:
            return await self._credential.get_token(AZURE_SCOPE)
        except AzureError as exc:
            raise UpstreamError(
                "No identity for the model's server; the operator should check AZURE_CLIENT_ID, or run `az login`."
            ) from exc


class Catalog:
    """What `GET /models` of an endpoint says, remembered for some minutes."""

    def __init__(self, endpoint: Endpoint, transport: Transport, now: Callable[[], float] = time.monotonic) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._now = now
        self._lock = asyncio.Lock()
        self._models: list[Json] = []
        self._until = 0.0

    async def models(self) -> list[Json]:
        """`{id, created, owned_by}` of each, in the server's own order.

        Raises:
            AssistantError: the server refuses, fails or cannot be reached; nothing is remembered then.
        """
        if self._now() < self._until:
            return self._models
        async with self._lock:
            if self._now() >= self._until:
                self._models = await self._read()
                self._until = self._now() + CATALOG_SECONDS
        return self._models

    async def _read(self) -> list[Json]:
        headers = await self._endpoint.authorize()
        url = f"{self._endpoint.base_url}/models"
        answer = await self._transport.get_json(url, headers, setting=self._endpoint.setting)
        entries: Any = answer.get("data")
        if not isinstance(entries, list):
            raise UpstreamError(UNREADABLE)
        return [_entry(entry) for entry in entries if isinstance(entry, dict) and entry.get("id")]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType, reportUnknownMemberType]


def _entry(entry: Json) -> Json:
    created = entry.get("created")
    return {
        "id": str(entry["id"]),
        "created": created if isinstance(created, int) else 0,
        "owned_by": str(entry.get("owned_by") or "upstream"),
    }
