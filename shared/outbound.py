"""Fetching a URL that a user gave: the one place, so that no such URL leads into our own network (SSRF).

A name is resolved once; every address it has must be public; the connection goes to one of those very addresses, so
that a second answer of the resolver cannot change its mind. Each redirect is a new URL and is checked like the first.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, override
from urllib.parse import urljoin, urlsplit

from shared.errors import InvalidRequest, UpstreamError
from shared.lazy import lazy

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import abc as aiohttp_abc
else:
    aiohttp = lazy("aiohttp")

SECONDS = 20.0
MAX_BYTES = 20 * 1024 * 1024
MAX_REDIRECTS = 5
PORTS = frozenset({80, 443, 8080, 8443})

_MAPPED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses inside IPv6 ones, for NAT64."""

type Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host."""


@dataclass(frozen=True, slots=True)
class Fetched:
    url: str
    """The last one, after redirects."""
    status: int
    content_type: str
    body: bytes


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet: not ours, not a neighbour's, not the platform's.

    >>> is_public("169.254.169.254"), is_public("93.184.216.34")
    (False, True)
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _MAPPED:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved and str(found) != "168.63.129.16"


def check_url(url: str) -> tuple[str, int]:
    """Host and port of a URL that may be asked.

    Raises:
        InvalidRequest: another scheme, credentials inside, an odd port, an address that is not public.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _refused(url) from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password or "\\" in url:
        raise _refused(url)
    port = port or (443 if parts.scheme == "https" else 80)
    if port not in PORTS or len(url) > 4096 or any(ord(sign) <= 32 for sign in url):
        raise _refused(url)
    if _is_literal(host) and not is_public(host):
        raise _refused(url)
    return host, port


async def fetch(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    max_bytes: int = MAX_BYTES,
    resolve: Resolve | None = None,
    allowed: Callable[[str], bool] = is_public,
) -> Fetched:
    """`GET` a user's URL.

    Args:
        allowed: which addresses may be connected to; only tests say otherwise.

    Raises:
        InvalidRequest: it leads, at once or by a redirect, to where it must not; or the answer is too large.
        UpstreamError: it cannot be reached.
    """
    resolver = _checking_resolver(resolve or resolve_host, allowed)
    timeout = aiohttp.ClientTimeout(total=SECONDS, connect=5)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=4)
    try:
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session:
            for _ in range(MAX_REDIRECTS + 1):
                if allowed is is_public:
                    check_url(url)
                async with session.get(url, headers=headers, allow_redirects=False) as answer:
                    place = answer.headers.get("location")
                    if answer.status in (301, 302, 303, 307, 308) and place:
                        if urlsplit(urljoin(url, place)).netloc != urlsplit(url).netloc:
                            headers = None  # what was meant for one host is not told another
                        url = urljoin(url, place)
                        continue
                    body = await _read(answer, max_bytes)
                    return Fetched(url, answer.status, answer.headers.get("content-type", ""), body)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        refusal = _cause(error)
        if refusal is not None:
            raise refusal from None
        raise UpstreamError("The URL cannot be reached.", code="url_unreachable") from error
    raise InvalidRequest(f"The URL redirects more than {MAX_REDIRECTS} times.", code="invalid_url")


async def resolve_host(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class _Refused(OSError):
    """Raised inside the resolver; aiohttp hides what is not an OSError."""


def _checking_resolver(resolve: Resolve, allowed: Callable[[str], bool]) -> "aiohttp_abc.AbstractResolver":
    from aiohttp.abc import AbstractResolver, ResolveResult  # noqa: PLC0415 - loaded on first use

    class Resolver(AbstractResolver):
        @override
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            addresses = await resolve(host, port)
            if not addresses or not all(allowed(address) for address in addresses):
                raise _Refused(host)
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in addresses
            ]

        @override
        async def close(self) -> None:
            """Nothing is held open."""

    return Resolver()


async def _read(answer: Any, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        body += chunk
        if len(body) > max_bytes:
            raise InvalidRequest(f"The URL's content is larger than {max_bytes} bytes.", code="invalid_url")
    return bytes(body)


def _cause(error: BaseException) -> InvalidRequest | None:
    """The refusal behind what aiohttp made of it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _Refused) or isinstance(getattr(seen, "os_error", None), _Refused):
            return _refused(str(seen))
        seen = seen.__cause__ or seen.__context__
    return None


def _is_literal(host: str) -> bool:
    """Whether a host is an address, in any of the ways to write one that a resolver takes."""
    try:
        socket.inet_aton(host)
    except OSError:
        return ":" in host
    return True


def _refused(url: str) -> InvalidRequest:
    return InvalidRequest(f"The URL {url[:200]!r} may not be fetched.", code="invalid_url")
