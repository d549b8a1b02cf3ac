"""The app on the local host for the conformance suites, spoken to by the stock SDK and by plain HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import httpx
import orjson
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.contract.documented import documented

type Json = dict[str, Any]

KEY = "first-key"
OTHER_KEY = "second-key"
KEYS = f"{KEY}=first,{OTHER_KEY}=second"
MODEL = "companion"

WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
TIME: Json = {"type": "function", "name": "time", "parameters": {"type": "object"}}

EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
"""What the SDK knows of events; unlike the SDK itself, this complains about what does not fit."""

TERMINAL = ("response.completed", "response.incomplete", "response.failed")


@dataclass(frozen=True, slots=True)
class Server:
    """A running Companion: offline model, no delay between words, two callers with a key each."""

    url: str
    """Up to and including /v1."""

    def client(self, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=30)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = KEY,
        headers: Any = None,
        params: Any = None,
    ) -> httpx.Response:
        """A plain request; `body` is sent as JSON, or as it is when it is bytes."""
        sent: dict[str, str] = {"content-type": "application/json"} if body is not None else {}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        content = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        url = f"{self.url}{path}"
        answer = httpx.request(
            method, url, content=content, headers={**sent, **(headers or {})}, params=params, timeout=30
        )
        documented(self.url).check(answer)
        return answer

    def get(self, path: str, **params: Any) -> Json:
        return answer_of(self.send("GET", path, params=params))

    def post(self, path: str, body: object, **headers: str) -> Json:
        return answer_of(self.send("POST", path, body, headers=headers))

    def create(self, given: object = None, **fields: Any) -> Json:
        """A response to this input."""
        return self.post("/responses", {"model": MODEL, **({} if given is None else {"input": given}), **fields})

    def error(self, method: str, path: str, body: object = None, *, status: int, **more: Any) -> Json:
        """The error of a request that must be refused with this status."""
        return error_of(self.send(method, path, body, **more), status)

    def refused(self, given: object = None, *, status: int = 400, **fields: Any) -> Json:
        """The error of a create that must be refused."""
        body = {"model": MODEL, **({} if given is None else {"input": given}), **fields}
        return self.error("POST", "/responses", body, status=status)

    def frames(
        self, method: str, path: str, body: object = None, *, params: Any = None, headers: Any = None
    ) -> list[str]:
        """The frames of a stream, as they came."""
        given: dict[str, str] = {"authorization": f"Bearer {KEY}", **(headers or {})}
        with httpx.stream(method, f"{self.url}{path}", json=body, params=params, headers=given, timeout=30) as response:
            response.read()
            assert response.status_code == 200, response.text
            assert response.headers["content-type"].startswith("text/event-stream")
            documented(self.url).check(response)
            return [frame for frame in response.text.split("\n\n") if frame and not frame.startswith(":")]

    def stream(self, given: object, **fields: Any) -> list[Json]:
        """The events of a streamed response, each held against what the SDK knows of it."""
        return events_of(self.frames("POST", "/responses", {"model": MODEL, "input": given, "stream": True, **fields}))

    def resume(self, id_: str, **params: Any) -> list[Json]:
        return events_of(self.frames("GET", f"/responses/{id_}", params={"stream": "true", **params}))


def answer_of(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    return response.json()


def error_of(response: httpx.Response, status: int) -> Json:
    """The error in the envelope: four keys, and a request id beside it."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


def events_of(frames: list[str]) -> list[Json]:
    """The events in their frames: named as their type, `[DONE]` last."""
    assert frames[-1] == "data: [DONE]"
    events: list[Json] = []
    for frame in frames[:-1]:
        name, data = frame.split("\n")
        event: Json = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENTS.validate_python(event)
        events.append(event)
    return events


def text_of(response: Json) -> str:
    """What the assistant says in a response."""
    Response.model_validate(response)
    return "".join(part.get("text", "") for item in of_type(response, "message") for part in item["content"])


def of_type(response: Json, type_: str) -> list[Json]:
    return [item for item in response["output"] if item["type"] == type_]


def the(response: Json, type_: str) -> Json:
    """The one output item of this type."""
    (item,) = of_type(response, type_)
    return item


def message(text: str, role: str = "user") -> Json:
    return {"role": role, "content": text}


def output(call: Json, text: object) -> Json:
    """What a tool gave back."""
    return {"type": "function_call_output", "call_id": call["call_id"], "output": text}


def texts(items: list[Json]) -> list[str]:
    """The texts of some messages."""
    return [part["text"] for item in items if item["type"] == "message" for part in cast(list[Json], item["content"])]


def pages(server: Server, path: str, **params: Any) -> Iterator[Json]:
    """Every page of a list, from cursor to cursor."""
    after: Json = {}
    while True:
        page = server.get(path, **params, **after)
        assert page["object"] == "list"
        if page["data"]:
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        yield page
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}
