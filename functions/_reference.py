"""The API reference: the OpenAPI document as one page of HTML, without a script and without anything from elsewhere."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html import escape
from typing import Any

type Json = dict[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")
_CODE = re.compile(r"`([^`]+)`")
_SCHEMAS = "#/components/schemas/"


def render_reference(document: Json) -> tuple[bytes, str]:
    """The page, and the content security policy it is served with: its one style sheet, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return "".join(_page(document)).encode(), policy


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
    yield "<nav>" + "".join(_contents(document)) + "</nav><main>"
    yield f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
    yield f'<p>{_words(info["description"])}</p><p>For machines: <a href="openapi.json">openapi.json</a>.</p>'
    for tag in document["tags"]:
        yield f'<h2 id="{_anchor(tag["name"])}">{escape(tag["name"])}</h2><p>{_words(tag["description"])}</p>'
        for path, method, operation in _operations(document, tag["name"]):
            yield from _operation(path, method, operation)
    yield '<h2 id="schemas">Schemas</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{_schema_anchor(name)}"><summary><b>{escape(name)}</b></summary>'
        yield f"<p>{_words(schema.get('description', ''))}</p>{_shape(schema)}</details>"
    yield "</main></body></html>"


def _contents(document: Json) -> Iterator[str]:
    for tag in document["tags"]:
        yield f'<p><a href="#{_anchor(tag["name"])}"><b>{escape(tag["name"])}</b></a></p><ul>'
        for _, method, operation in _operations(document, tag["name"]):
            label = f"<i>{method}</i> {escape(operation['summary'].partition(':')[0].rstrip('.'))}"
            yield f'<li><a href="#{operation["operationId"]}">{_CODE.sub(r"\1", label)}</a></li>'
        yield "</ul>"
    yield '<p><a href="#schemas"><b>Schemas</b></a></p>'


def _operations(document: Json, tag: str) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods and tag in methods[method]["tags"]:
                yield path, method, methods[method]


def _operation(path: str, method: str, operation: Json) -> Iterator[str]:
    yield f'<section id="{operation["operationId"]}"><h3><i>{method}</i> <code>{escape(path)}</code></h3>'
    yield f"<p>{_words(operation['summary'])}</p>"
    if "description" in operation:
        yield f"<p>{_words(operation['description'])}</p>"
    if operation.get("security") == []:
        yield "<p>Anybody may call it.</p>"
    rows = [
        (each["name"], f"{each['in']}, {_type(each['schema'])}", each["description"], each.get("required", False))
        for each in operation.get("parameters", ())
    ]
    if rows:
        yield f"<h4>Parameters</h4>{_table(rows)}"
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h4>Body <small>{escape(media)}</small></h4>{_shape(content['schema'])}"
    yield "<h4>Answers</h4><ul>" + "".join(_answers(operation["responses"])) + "</ul></section>"


def _answers(responses: Json) -> Iterator[str]:
    refusals = [status for status, answer in responses.items() if "$ref" in answer]
    for status, answer in responses.items():
        if status in refusals:
            continue
        kinds = [
            f"{_type(content.get('x-event-schema') or content.get('schema') or {})} <small>{escape(media)}</small>"
            for media, content in answer.get("content", {}).items()
        ]
        yield f"<li><b>{status}</b> {' or '.join(kinds)}</li>"
    if refusals:
        error = f'<a href="#{_schema_anchor("Error")}">Error</a>'
        yield f"<li><b>{', '.join(refusals)}</b> {error}</li>"


def _shape(schema: Json) -> str:
    """An object's fields as a table; anything else in a word."""
    if "properties" not in schema:
        return f"<p>{_type(schema)}</p>"
    required = schema.get("required", [])
    return _table(
        [
            (name, _type(part), part.get("description", ""), name in required)
            for name, part in schema["properties"].items()
        ]
    )


def _table(rows: list[tuple[str, str, str, bool]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code>{'<sup>*</sup>' if required else ''}</td>"
        f"<td>{kind}</td><td>{_words(description)}</td></tr>"
        for name, kind, description, required in rows
    )
    return f"<table>{cells}</table>"


def _type(schema: Json) -> str:
    """A schema in a few words of HTML."""
    if "$ref" in schema:
        name: str = schema["$ref"].removeprefix(_SCHEMAS)
        return f'<a href="#{_schema_anchor(name)}">{escape(name)}</a>'
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[union]))
    if "const" in schema:
        return f"<code>{escape(repr(schema['const']))}</code>"
    if "enum" in schema:
        return " ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "anything"))) + _limits(schema)


def _limits(schema: Json) -> str:
    known = {
        "minimum": "≥",
        "maximum": "≤",
        "minLength": "length ≥",
        "maxLength": "length ≤",
        "default": "default",
    }
    said = [f"{sign} {escape(str(schema[name]))}" for name, sign in known.items() if name in schema]
    return f" <small>{', '.join(said)}</small>" if said else ""


def _words(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _anchor(tag: str) -> str:
    return f"tag-{re.sub(r'\W+', '-', tag.lower())}"


def _schema_anchor(name: str) -> str:
    return f"schema-{name}"


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:light-dark(#0b57d0,#a8c7fa)}
*{box-sizing:border-box}
body{margin:0;font:16px/1.55 system-ui,sans-serif;display:grid;grid-template-columns:19rem minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1rem 1.25rem;font-size:.9rem;
 border-right:1px solid var(--line)}
nav ul{list-style:none;margin:0 0 .75rem;padding:0}nav li{padding:.1rem 0}nav p{margin:.5rem 0 .25rem}
main{padding:1rem 2.5rem 6rem;max-width:64rem}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
h2{margin-top:3rem;border-bottom:1px solid var(--line);padding-bottom:.25rem}
section{margin:2rem 0;scroll-margin-top:1rem}h3{font-size:1.1rem}h4{margin:1rem 0 .25rem}
i{font:600 .75em ui-monospace,monospace;text-transform:uppercase;color:var(--accent)}
code{font:.9em ui-monospace,monospace;background:var(--soft);padding:.1em .3em;border-radius:.25rem}
small{opacity:.7;font-weight:400}sup{color:var(--accent)}
table{border-collapse:collapse;width:100%;font-size:.92rem}
td{border-top:1px solid var(--line);padding:.35rem .75rem .35rem 0;vertical-align:top;overflow-wrap:anywhere}
td:first-child{width:28%}td:nth-child(2){width:36%}
details{border-top:1px solid var(--line);padding:.4rem 0}summary{cursor:pointer}
@media(max-width:52rem){body{display:block}nav{position:static;height:auto;border:0}main{padding:1rem}}
"""
