"""Tokens of an OpenID Connect issuer (Entra External ID or any other), checked here.

The algorithms are fixed, issuer and audience exact, and a key comes from the issuer's own list only: whatever a token
says about where its key is (`jku`, `x5u`, `jwk`, …) refuses it. The list is cached, and asked for again in the
background when it is old, or when a token names a key that is not in it, but never more often than once a minute
(after a failure, once in five seconds).
"""

import asyncio
import base64
import binascii
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from shared.clock import Clock
from shared.errors import IdentityUnavailable, Unauthenticated
from shared.ids import derived_token
from shared.principal import SCOPES, Principal
from shared.settings import CallerSettings

type Json = dict[str, Any]
type Fetch = Callable[[str], Awaitable[bytes]]
"""The body behind a URL; raises `IdentityUnavailable`."""

log = logging.getLogger("companion.identity")

MAX_TOKEN = 16_384
ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
LEEWAY = 60.0
"""Seconds by which the issuer's clock may differ from ours."""
FRESH_SECONDS = 3600.0
"""Age of the key list from which on it is asked for again, while the old one still serves."""
STALE_SECONDS = 86_400.0
"""Age from which on it no longer serves."""
REFRESH_SECONDS = 60.0
"""Least time between two requests for the list."""
RETRY_SECONDS = 5.0
"""The same after a request that failed: a host that has just started has nothing else to go by."""
FETCH_SECONDS = 5.0
MAX_LIST = 262_144
MAX_VERIFIED = 4096
VERIFIED_SECONDS = 300.0
"""How long a token that was checked is not checked again; so a key withdrawn by the issuer ends within that time."""

_FORBIDDEN = frozenset({"jku", "x5u", "jwk", "x5c", "crit", "b64"})
_ENTRA = ("login.microsoftonline.com", "sts.windows.net", ".ciamlogin.com")


class Oidc:
    """Verifies the tokens of one issuer."""

    def __init__(self, settings: CallerSettings, clock: Clock, fetch: Fetch | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._fetch = fetch or _get
        self._keys: dict[str, Json] = {}
        self._fetched = float("-inf")
        self._asked = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._verified: dict[bytes, tuple[Principal, float]] = {}

    async def identify(self, token: str) -> Principal:
        """The principal a token speaks for.

        Raises:
            Unauthenticated: it is not a valid token of this issuer for this audience.
            IdentityUnavailable: the issuer's keys cannot be had.
        """
        now = self._clock.now()
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        claims = await self._verify(token, now)
        principal = self._principal(claims)
        if len(self._verified) >= MAX_VERIFIED:
            self._verified.clear()
        self._verified[digest] = principal, min(claims["exp"], now + VERIFIED_SECONDS)
        return principal

    async def _verify(self, token: str, now: float) -> Json:
        import jwt  # noqa: PLC0415 - loads a crypto library, only where it is used

        header = read_header(token)
        algorithm, kid = header["alg"], header["kid"]
        key = await self._key(kid, now)
        if key.get("kty") != ALGORITHMS[algorithm] or key.get("alg", algorithm) != algorithm:
            raise _refused("its key is of another kind")
        if key.get("use", "sig") != "sig":
            raise _refused("its key does not sign")
        try:
            claims: Json = jwt.decode(
                token,
                jwt.PyJWK(key, algorithm=algorithm).key,
                algorithms=[algorithm],
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,  # by our clock, below
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                },
            )
        except jwt.PyJWTError:
            raise _refused("its signature or form is wrong") from None
        self._check(claims, now)
        return claims

    def _check(self, claims: Json, now: float) -> None:
        if claims["iss"] != self._settings.oidc_issuer:
            raise _refused("another issuer made it")
        audience = self._settings.oidc_audience
        if claims["aud"] not in (audience, [audience]):
            raise _refused("it is meant for another audience")
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in times.values()):
            raise _refused("its times are not numbers")
        if not now - LEEWAY < times["exp"] < now + 366 * 86_400:
            raise _refused("it has expired")
        if times.get("nbf", now) > now + LEEWAY or times.get("iat", now) > now + LEEWAY:
            raise _refused("its time has not come")
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise _refused("it names nobody")

    def _principal(self, claims: Json) -> Principal:
        given: Any = claims.get("roles")
        roles = [role for role in cast(list[Any], given) if isinstance(role, str)] if isinstance(given, list) else []
        plan = next((role.removeprefix("plan.") for role in roles if role.startswith("plan.")), "default")
        return Principal(owner=owner_of(claims), scopes=frozenset(SCOPES), plan=plan)

    async def _key(self, kid: str, now: float) -> Json:
        """The issuer's key of this name."""
        age = now - self._fetched
        if kid in self._keys and age < STALE_SECONDS:
            if age > FRESH_SECONDS:
                self._refresh(now)  # beside this request, which the old list serves
            return self._keys[kid]
        task = self._refresh(now)
        if task is not None:
            await asyncio.shield(task)
        if kid in self._keys and self._clock.now() - self._fetched < STALE_SECONDS:
            return self._keys[kid]
        if self._clock.now() - self._fetched >= STALE_SECONDS:
            raise IdentityUnavailable("The keys that sign-in tokens are checked with cannot be had; try again.")
        raise _refused("its key is not one of the issuer's")

    def _refresh(self, now: float) -> "asyncio.Task[None] | None":
        """Ask for the list again, unless that was done a moment ago; one request at a time."""
        if self._refreshing is not None and not self._refreshing.done():
            return self._refreshing
        if now - self._asked < REFRESH_SECONDS:
            return None
        self._asked = now
        self._refreshing = asyncio.create_task(self._load())
        return self._refreshing

    async def _load(self) -> None:
        try:
            url = self._settings.oidc_jwks or await self._discover()
            self._keys = read_keys(await self._fetch(_checked(url)))
            self._fetched = self._clock.now()
        except IdentityUnavailable as error:
            self._asked = self._clock.now() - REFRESH_SECONDS + RETRY_SECONDS
            log.warning("identity.keys_unavailable", extra={"reason": error.message})

    async def _discover(self) -> str:
        issuer = self._settings.oidc_issuer
        body = _json(await self._fetch(_checked(f"{issuer.rstrip('/')}/.well-known/openid-configuration")))
        if body.get("issuer") != issuer or not isinstance(body.get("jwks_uri"), str):
            raise IdentityUnavailable("The issuer's discovery document is not of this issuer.")
        return body["jwks_uri"]


def read_header(token: str) -> Json:
    """A token's header, if it is one that may be considered at all.

    Raises:
        Unauthenticated: it is not.
    """
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3 or not all(parts):
        raise _refused("it is not a signed token")
    try:
        header: object = orjson.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (ValueError, binascii.Error):
        raise _refused("its header cannot be read") from None
    if not isinstance(header, dict):
        raise _refused("its header is not an object")
    found = cast(Json, header)
    if not isinstance(found.get("alg"), str) or found["alg"] not in ALGORITHMS or _FORBIDDEN & found.keys():
        raise _refused("its header asks for what is not done here")
    if not isinstance(found.get("kid"), str) or not 0 < len(found["kid"]) <= 256:
        raise _refused("it does not name its key")
    return found


def owner_of(claims: Json) -> str:
    """Whose data. Entra's users keep theirs across apps of a tenant; all others are known by issuer and subject."""
    issuer: str = claims["iss"]
    host = urlsplit(issuer).hostname or ""
    if any(host == each or (each.startswith(".") and host.endswith(each)) for each in _ENTRA):
        tenant, person = claims.get("tid"), claims.get("oid")
        if isinstance(tenant, str) and isinstance(person, str) and tenant and person:
            return entra_owner(tenant, person)
    return f"u_{derived_token('oidc', issuer, claims['sub'])}"


def entra_owner(tenant: str, person: str) -> str:
    return f"u_{derived_token('entra', tenant.lower(), person.lower())}"


def read_keys(body: bytes) -> dict[str, Json]:
    """Key id to key, of a JWKS document.

    Raises:
        IdentityUnavailable: it is none.
    """
    keys: Any = _json(body).get("keys")
    if not isinstance(keys, list):
        raise IdentityUnavailable("The issuer's list of keys cannot be read.")
    found = [cast(Json, key) for key in cast(list[Any], keys) if isinstance(key, dict)]
    return {key["kid"]: key for key in found if isinstance(key.get("kid"), str) and key.get("kty") in ("RSA", "EC")}


def _json(body: bytes) -> Json:
    try:
        found: object = orjson.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise IdentityUnavailable("The issuer answered something that is not JSON.")
    return cast(Json, found)


def _checked(url: str) -> str:
    """HTTPS, or a loopback address for tests and development."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        return url
    raise IdentityUnavailable("The issuer's keys must be behind https.")


async def _get(url: str) -> bytes:
    import aiohttp  # noqa: PLC0415 - loaded on first use

    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise IdentityUnavailable(f"The issuer answered {answer.status}.")
            body = await answer.content.read(MAX_LIST + 1)
            while len(body) <= MAX_LIST and (more := await answer.content.read(MAX_LIST)):
                body += more
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise IdentityUnavailable("The issuer cannot be reached.") from error
    if len(body) > MAX_LIST:
        raise IdentityUnavailable("The issuer's answer is too large.")
    return body


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"The sign-in token cannot be accepted: {why}.")
