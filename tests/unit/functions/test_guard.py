"""What the guard does with a request it refuses: answered whole, and its invocation ends whenever it comes."""

import asyncio
import uuid
from types import SimpleNamespace
from typing import Any, cast, override

import pytest
from azure_functions_runtime import http_v2  # pyright: ignore[reportMissingTypeStubs]
from starlette.types import Message, Receive, Scope, Send

from functions import _guard, _shed
from functions._edge import Call, edge
from functions._guard import ANSWERED, Guard
from functions._http import Request, Response
from shared.models.gate import Gate
from shared.settings import Settings

coordinator: Any = cast(Any, http_v2).http_coordinator
entries: dict[str, Any] = coordinator._context_references

ORIGIN = "https://app.example"


async def unreachable(*_: object) -> Any:
    raise AssertionError("the runtime must not hear of it")


def asked(id_: str, key: str = "a", path: str = "/v1/responses", **headers: str) -> Scope:
    given = {"x-ms-invocation-id": id_, "authorization": f"Bearer {key}", **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": raw}


async def remember(scope: Scope) -> None:
    """As a caller whom the gate would refuse."""
    gate = Gate(most=1, is_adaptive=False)
    gate.take("somebody")
    asyncio.ensure_future(gate.enter("ada"))  # noqa: RUF006 - waits until the test ends
    await asyncio.sleep(0)
    settings = Settings.read({"COMPANION_CORS_ORIGINS": ORIGIN})
    _shed.remember(scope, lambda: gate.check("ada"), settings.http)


async def sent_by(guard: Guard, scope: Scope) -> tuple[int, dict[str, str], bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await guard(scope, unreachable, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


@pytest.fixture
async def guard() -> Any:
    _shed.forget()
    await remember(asked("-"))
    made = Guard(cast(Any, unreachable), entries)
    yield made
    _shed.forget()
    for id_ in made.answered:
        entries.pop(id_, None)


@edge
async def never(request: Request, call: Call) -> Response:
    """The function behind; it must not run."""
    raise AssertionError


async def test_a_refusal_is_whole(guard: Guard) -> None:
    status, headers, body = await sent_by(guard, asked(str(uuid.uuid4()), origin=ORIGIN, x_forwarded_proto="https"))

    assert status == 503
    assert b'"type":"server_error"' in body
    assert headers["x-request-id"].startswith("req_")
    assert int(headers["retry-after"]) >= 1
    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" in headers


@pytest.mark.parametrize("is_first", [True, False])
async def test_its_invocation_ends_at_once_and_leaves_nothing(guard: Guard, *, is_first: bool) -> None:
    """As the runtime does it: wait for the request, run the function, hand over the response."""
    id_ = str(uuid.uuid4())

    async def invocation() -> int:
        request = await coordinator.get_http_request_async(id_)
        response = await never(request)
        coordinator.set_http_response(id_, response)
        return response.status_code

    early = asyncio.create_task(invocation()) if is_first else None
    await asyncio.sleep(0)
    await sent_by(guard, asked(id_))
    async with asyncio.timeout(1):
        status = await (early or asyncio.create_task(invocation()))

    assert status == 200
    assert id_ not in entries
    assert not guard.answered


async def test_what_no_invocation_comes_for_is_let_go(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "UNCLAIMED", 1.0)  # a minute is too long for a test
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for id_ in ids:
        await sent_by(guard, asked(id_))
        await asyncio.sleep(0.01)
    assert ids[-1] in entries

    await asyncio.sleep(1.5)

    assert not any(id_ in entries for id_ in ids)
    assert not guard.answered


async def test_who_knows_that_none_will_come_may_say_so(guard: Guard) -> None:
    scope = asked(id_ := str(uuid.uuid4()))
    await sent_by(guard, scope)

    scope[ANSWERED]()

    assert id_ not in entries


async def test_many_that_are_let_go_at_once_leave_one_timer(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Guard):
        sweeps = 0

        @override
        def _sweep(self) -> None:
            self.sweeps += 1
            super()._sweep()

    monkeypatch.setattr(_guard, "UNCLAIMED", 0.5)
    counting = Counting(cast(Any, unreachable), entries)
    for _ in range(20):
        scope = asked(str(uuid.uuid4()))
        await sent_by(counting, scope)
        scope[ANSWERED]()
    await asyncio.sleep(1.0)

    assert counting.sweeps == 1


async def test_an_id_that_was_refused_is_not_taken_twice(guard: Guard) -> None:
    scope = asked(str(uuid.uuid4()))
    statuses = [(await sent_by(guard, scope))[0] for _ in range(2)]
    scope[ANSWERED]()

    assert statuses == [503, 400]


class TestWhoIsKnown:
    async def test_only_the_same_credential_on_the_same_route(self, guard: Guard) -> None:
        others: list[Scope] = [
            asked("-", key="b"),
            asked("-", path="/v1/other"),
            {**asked("-"), "method": "GET"},
            {**asked("-"), "headers": []},
            {**asked("-"), "headers": [(b"authorization", b"Basic a")]},
            {**asked("-"), "headers": [(b"authorization", b"Bearer a")] * 2},
        ]

        assert _shed.refusal(asked("-")) is not None
        assert [_shed.refusal(each) for each in others] == [None] * len(others)

    async def test_a_caller_is_forgotten_after_seconds(self, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
        now = _shed.time.monotonic()
        monkeypatch.setattr(_shed, "time", SimpleNamespace(monotonic=lambda: now + _shed.SECONDS + 1))

        assert _shed.refusal(asked("-")) is None

    async def test_a_flood_of_callers_pushes_out_the_oldest(self, guard: Guard) -> None:
        for number in range(_shed.MOST):
            _shed.remember(asked("-", key=f"k{number}"), lambda: 0, Settings.read({}).http)

        assert len(_shed.callers) == _shed.MOST
        assert _shed.refusal(asked("-")) is None

    async def test_no_credential_is_kept_in_memory(self, guard: Guard) -> None:
        await remember(asked("-", key="secret-key"))

        assert not any(b"secret-key" in digest for digest in _shed.callers)


async def test_what_is_answered_needs_no_app() -> None:
    response = await never(Request({"type": "http", ANSWERED: True}))

    assert (response.status_code, response.body) == (200, b"")


async def test_an_answer_that_has_begun_needs_no_entry_any_more() -> None:
    id_ = str(uuid.uuid4())
    kept: list[bool] = []

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        coordinator.set_http_request(id_, Request(scope))
        kept.append(id_ in entries)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        kept.append(id_ in entries)
        await send({"type": "http.response.body", "body": b""})

    await sent_by(Guard(streaming, entries), asked(id_))

    assert kept == [True, False]
