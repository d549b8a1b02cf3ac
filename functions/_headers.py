"""What every answer carries in its head, whichever way it was made."""

from starlette.datastructures import Headers
from starlette.responses import Response

from shared.settings import HttpSettings

_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")
"""Where the platform in front says that it was asked by HTTPS; browsers take it from nothing else."""
_NO_PAGE = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""Of every answer that is no page: opened in a browser, it does nothing there."""
_EXPOSED = (
    b"x-request-id,retry-after,retry-after-ms,x-should-retry,openai-processing-ms,"
    b"x-ratelimit-limit-requests,x-ratelimit-remaining-requests,x-ratelimit-reset-requests,"
    b"x-ratelimit-limit-tokens,x-ratelimit-remaining-tokens,x-ratelimit-reset-tokens"
)


def complete(response: Response, asked: Headers, settings: HttpSettings | None, *, seconds: float) -> Response:
    """Add them to an answer. Without settings, which could not be read, no page of another origin may see it."""
    headers = response.raw_headers
    headers += [(b"openai-version", b"2020-10-01"), (b"openai-processing-ms", b"%d" % int(seconds * 1000)), *_SECURITY]
    if settings is not None:
        headers += _cors(settings, asked)
    given = {name for name, _ in headers}
    if b"cache-control" not in given:
        headers.append((b"cache-control", b"no-store"))
    if b"content-security-policy" not in given:
        headers.append(_NO_PAGE)
    if asked.get("x-forwarded-proto") == "https":
        headers.append(_HTTPS_ONLY)
    return response


def _cors(settings: HttpSettings, asked: Headers) -> list[tuple[bytes, bytes]]:
    """For a page of an origin on the allow-list; credentials are never sent along by the browser itself."""
    if not settings.cors_origins:
        return []
    headers = [(b"vary", b"origin")]
    origin = asked.get("origin")
    if origin in settings.cors_origins:
        headers += [
            (b"access-control-allow-origin", origin.encode()),
            (b"access-control-expose-headers", _EXPOSED),
        ]
    return headers
