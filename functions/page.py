"""The chat page at `/`, `/c/…` and `/s/…`: what `make setup` built into web/dist, and nothing else from disk."""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import azure.functions as func

from functions._edge import Call, edge
from functions._http import Request, Response
from functions._operations import Operation
from shared.errors import NotFound

blueprint = func.Blueprint()

DIST = Path(__file__).parent.parent / "web" / "dist"

MISSING = (
    "<!doctype html><meta charset=utf-8><title>Companion</title><p>The API is here, under /v1; "
    "for the chat page install Node 20.19 or newer, <code>make setup</code>, load this again.\n"
)

# Scripts and styles from this server only, none inline; pictures from what the user attached. Styles that the page
# sets go through the CSSOM, which needs no exception.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": POLICY,
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
FOREVER = "public, max-age=31536000, immutable"
_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
_ASSET = re.compile(r"[\w-]+(\.[\w-]+)*")
"""A bare file name: no folder, nothing hidden."""


class Static(NamedTuple):
    """A file as it is sent."""

    body: bytes
    etag: str


@blueprint.route("/", methods=["GET", "HEAD"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer_media="text/html")
async def page(request: Request, call: Call) -> Response:
    """The chat page; without a built one, a sentence that says how to get it."""
    return index(request.headers)


@blueprint.route("c/{conversation_id}", methods=["GET", "HEAD"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer_media="text/html")
async def conversation_page(request: Request, call: Call) -> Response:
    """The same page: it reads from its address what to show."""
    return index(request.headers)


@blueprint.route("s/{share_id}", methods=["GET", "HEAD"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer_media="text/html")
async def shared_page(request: Request, call: Call) -> Response:
    """The same page, for whoever has a share link."""
    response = index(request.headers)
    response.headers["x-robots-tag"] = "noindex"  # a link is for those it was given to
    return response


@blueprint.route("assets/{name}", methods=["GET", "HEAD"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer_media="application/octet-stream", errors=(404,))
async def page_asset(request: Request, call: Call) -> Response:
    """Scripts, styles and fonts; their names change with their content, so they never do."""
    name = request.path_params["name"]
    sent = _file(request.headers, f"assets/{name}", FOREVER) if _ASSET.fullmatch(name) else None
    if sent is None:
        raise NotFound(f"There is no asset {name!r}; after an update, load the page again.")
    return sent


@blueprint.route("favicon.svg", methods=["GET", "HEAD"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer_media="image/svg+xml", errors=(404,))
async def page_icon(request: Request, call: Call) -> Response:
    """The page's icon."""
    sent = _file(request.headers, "favicon.svg", "public, max-age=86400")
    if sent is None:
        raise NotFound("The chat page is not built.")
    return sent


def index(headers: Mapping[str, str]) -> Response:
    """The page, or in its place how to get it."""
    # never from a cache unasked: it names the assets of the version that runs
    sent = _file(headers, "index.html", "no-cache")
    if sent is None:
        return Response(MISSING, media_type=_TYPES[".html"], headers=_HEADERS)
    return sent


def _file(asked: Mapping[str, str], name: str, caching: str) -> Response | None:
    """A file of the built page, compressed as the client likes it best; None when there is none."""
    accepted = {part.partition(";")[0].strip() for part in asked.get("accept-encoding", "").split(",")}
    for encoding, suffix in (*_ENCODINGS, ("", "")):
        if encoding and encoding not in accepted:
            continue
        found = _read(DIST / f"{name}{suffix}")
        if found is None:
            continue
        headers = {**_HEADERS, "cache-control": caching, "etag": found.etag, "vary": "accept-encoding"}
        if encoding:
            headers["content-encoding"] = encoding
        if asked.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        media_type = _TYPES.get(Path(name).suffix, "application/octet-stream")
        return Response(found.body, media_type=media_type, headers=headers)
    return None


def _read(path: Path) -> Static | None:
    """From memory while it is unchanged on disk: a build shows at once, and nothing is read twice."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return None
    return _load(path, changed)


@lru_cache(maxsize=128)
def _load(path: Path, changed: int) -> Static:
    body = path.read_bytes()
    return Static(body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
