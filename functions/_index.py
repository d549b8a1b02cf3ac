"""What indexing needs to know of each blueprint, kept beside the bytecode: so that a cold start imports what it serves.

The host asks for every function's route before it sends the first request. Importing all handlers for that costs more
than the request itself. So the first import of the app writes their routes down, as Python does with bytecode; later
ones register stand-ins, and a handler's module loads with its first request. A blueprint whose source has changed is
imported as ever, and the note is made anew. Blueprints with other triggers than HTTP are always imported.
"""

import contextlib
import os
import sys
import zlib
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import azure.functions as func
import orjson

from functions._http import Request, Response

_HERE = Path(__file__).parent
_CACHE = _HERE / "__pycache__" / f"index.{sys.implementation.cache_tag}.json"

type Note = dict[str, Any]
"""Of one blueprint: `source`, a checksum; `functions`, or None when it is to be imported."""

_sources: dict[str, int] = {}
"""Checksums from before these were imported: what is on the disk later may be something else than what runs here."""


def register(app: func.FunctionApp, names: Sequence[str]) -> None:
    """Put the functions of these modules of this package into the app."""
    notes = _read()
    # Of what was imported before nobody can tell what it was made of.
    _sources.update({name: _checksum(name) for name in names if f"{__package__}.{name}" not in sys.modules})
    for name in names:
        note = notes.get(name)
        known: list[Note] | None = note["functions"] if note and note["source"] == _sources.get(name) else None
        if known is None or f"{__package__}.{name}" in sys.modules:
            app.register_functions(import_module(f"{__package__}.{name}").blueprint)
            continue
        for function in known:
            _stand_in(app, name, function)


def keep(functions: Sequence[Any], names: Sequence[str], *, folder: Path = _CACHE.parent) -> None:
    """Write down what the indexed functions are, where that is not known yet."""
    before = _read()
    made = {name: {"source": source, "functions": _functions(functions, name)} for name, source in _sources.items()}
    known = before | made
    notes = {name: known[name] for name in names if name in known}
    if notes == before and folder == _CACHE.parent:
        return
    with contextlib.suppress(OSError):  # a folder that is only to be read: then all is imported, every time
        folder.mkdir(exist_ok=True)
        written = folder / f"{_CACHE.name}.{os.getpid()}"
        written.write_bytes(orjson.dumps(notes))
        written.replace(folder / _CACHE.name)


def _functions(functions: Sequence[Any], name: str) -> list[Note] | None:
    own = [each for each in functions if each.get_user_function().__module__ == f"{__package__}.{name}"]
    if not own or not all(each.is_http_function() for each in own):
        return None
    return [_note(each) for each in own]


def _note(function: Any) -> Note:
    trigger, run = function.get_trigger(), function.get_user_function()
    return {
        "name": function.get_function_name(),
        "doc": run.__doc__,
        "route": trigger.route,
        "methods": [method.value for method in trigger.methods or ()],
        "auth_level": trigger.auth_level.value if trigger.auth_level is not None else None,
    }


def _stand_in(app: func.FunctionApp, name: str, note: Note) -> None:
    module, function = f"{__package__}.{name}", note["name"]

    @cache
    def handler() -> Callable[[Request], Awaitable[Response]]:
        return getattr(import_module(module), function)

    async def run(req: Request) -> Response:
        return await handler()(req)

    run.__name__ = run.__qualname__ = function
    run.__module__ = module
    run.__doc__ = note["doc"]
    app.route(route=note["route"], methods=note["methods"] or None, auth_level=note["auth_level"])(run)  # pyright: ignore[reportUnknownMemberType]


def _read() -> dict[str, Note]:
    try:
        return cast(dict[str, Note], orjson.loads(_CACHE.read_bytes()))
    except (OSError, orjson.JSONDecodeError):
        return {}


def _checksum(name: str) -> int:
    return zlib.crc32((_HERE / f"{name}.py").read_bytes())
