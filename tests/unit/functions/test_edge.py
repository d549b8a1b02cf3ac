"""The wrapper and the helpers of the edge, in process; over HTTP they are in tests/e2e/test_host.py."""

import inspect
from types import SimpleNamespace
from typing import Any, cast, get_type_hints

import pytest

from functions import _edge
from functions._edge import (
    ANYONE,
    Call,
    edge,
    flag_param,
    include_param,
    json_response,
    limit_param,
    order_param,
    override_app,
    starting_after_param,
)
from functions._http import Request, Response
from shared.errors import InvalidRequest, Unauthenticated
from shared.settings import Settings


def make_request(query: str = "", **headers: str) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": raw})


def app_with(**environ: str) -> Any:
    return cast(Any, SimpleNamespace(settings=Settings.read(environ)))


async def say_hello(request: Request, call: Call) -> Response:
    """Say hello."""
    return json_response({"owner": call.principal.owner})


class TestEdge:
    def test_the_runtime_sees_a_function_of_the_request_alone(self) -> None:
        function = edge(say_hello)

        assert inspect.iscoroutinefunction(function)
        assert list(inspect.signature(function).parameters) == ["req"]
        assert get_type_hints(function) == {"req": Request, "return": Response}
        assert (function.__name__, function.__doc__) == ("say_hello", "Say hello.")

    async def test_the_handler_gets_the_principal(self) -> None:
        with override_app(app_with(COMPANION_LOCAL_OWNER="ann")):
            response = await edge(say_hello)(make_request(host="127.0.0.1"))

        assert response.body == b'{"owner":"ann"}'

    async def test_a_public_edge_asks_nobody_who_they_are(self) -> None:
        with override_app(app_with(COMPANION_API_KEYS="k=ann")):
            response = await edge(public=True)(say_hello)(make_request())

        assert response.body == b'{"owner":""}'
        assert not ANYONE.scopes

    async def test_without_a_credential_the_handler_is_not_reached(self) -> None:
        async def unreachable(request: Request, call: Call) -> Response:
            raise AssertionError

        with override_app(app_with(COMPANION_API_KEYS="k=ann")):
            response = await edge(unreachable)(make_request())

        assert response.status_code == Unauthenticated.status

    async def test_each_answer_has_exactly_one_request_id(self) -> None:
        async def fail(request: Request, call: Call) -> Response:
            raise InvalidRequest(call.request_id)

        with override_app(app_with()):
            for handler in (say_hello, fail):
                response = await edge(public=True)(handler)(make_request())
                assert [name for name, _ in response.raw_headers].count(b"x-request-id") == 1

    async def test_a_cancelled_handler_stays_cancelled(self) -> None:
        import asyncio

        async def cancelled(request: Request, call: Call) -> Response:
            raise asyncio.CancelledError

        with override_app(app_with()), pytest.raises(asyncio.CancelledError):
            await edge(public=True)(cancelled)(make_request())

    async def test_an_app_is_closed_once(self) -> None:
        closed: list[str] = []

        async def close() -> None:
            closed.append("closed")

        with override_app(cast(Any, SimpleNamespace(close=close))):
            await _edge.close_app()
            await _edge.close_app()

        assert closed == ["closed"]


class TestQuery:
    @pytest.mark.parametrize(("query", "limit"), [("", 20), ("limit=1", 1), ("limit=100", 100), ("limit=", 20)])
    def test_a_limit_in_range_is_taken(self, query: str, limit: int) -> None:
        assert limit_param(make_request(query)) == limit

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=1.5", "limit=-1", f"limit={'9' * 99}"])
    def test_a_limit_out_of_range_is_refused_by_name(self, query: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            limit_param(make_request(query))

        assert caught.value.param == "limit"

    def test_the_order_has_two_values(self) -> None:
        assert order_param(make_request()) == "desc"
        assert order_param(make_request(), default="asc") == "asc"
        assert order_param(make_request("order=asc")) == "asc"
        with pytest.raises(InvalidRequest, match="'asc' and 'desc'"):
            order_param(make_request("order=up"))

    def test_arrays_come_with_brackets_or_without(self) -> None:
        names = ["reasoning.encrypted_content", "message.output_text.logprobs", "code_interpreter_call.outputs"]
        query = f"include%5B%5D={names[0]}&include[]={names[1]}&include={names[2]}"

        assert include_param(make_request(query)) == names

    def test_an_unknown_include_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="Invalid value: 'everything'") as caught:
            include_param(make_request("include[]=everything"))

        assert caught.value.param == "include"

    def test_a_sequence_number_is_an_integer(self) -> None:
        assert starting_after_param(make_request()) is None
        assert starting_after_param(make_request("starting_after=7")) == 7
        with pytest.raises(InvalidRequest, match="expected an integer"):
            starting_after_param(make_request("starting_after=seven"))

    @pytest.mark.parametrize(("query", "flag"), [("", False), ("stream=true", True), ("stream=false", False)])
    def test_a_flag_is_true_or_false(self, query: str, flag: bool) -> None:
        assert flag_param(make_request(query), "stream") is flag

    def test_a_flag_that_is_neither_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="expected a boolean"):
            flag_param(make_request("stream=maybe"), "stream")
