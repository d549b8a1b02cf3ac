import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.errors import (
    AssistantError,
    ContentBlocked,
    InvalidRequest,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    UpstreamError,
)
from shared.models.connections import Answer
from shared.models.transport import (
    SseParser,
    Transport,
    payload_error,
    retry_after,
    sse_data,
    status_error,
)

STREAM = (
    b": a comment\n\n"
    b"data: first\n\n"
    b"event: named\r\nid: 7\r\ndata: second\r\n\r\n"
    b"data:no space\n\n"
    b"data: two\ndata: lines\n\n\n"
    b"\rdata: old mac\r\r"
    b"data: \xe2\x82\xac\n\n"
    b"retry: 5\n\n"
    b"data: \n\n"
    b"data\n\n"
    b"data: [DONE]\n\n"
)
PAYLOADS = [b"first", b"second", b"no space", b"two\nlines", b"old mac", "€".encode(), b"[DONE]"]


class TestSseParser:
    def test_payloads_do_not_depend_on_where_the_stream_is_split(self) -> None:
        for place in range(len(STREAM) + 1):
            parser = SseParser()

            payloads = parser.feed(STREAM[:place]) + parser.feed(STREAM[place:]) + parser.flush()

            assert payloads == PAYLOADS, place

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
    def test_payloads_do_not_depend_on_the_size_of_the_pieces(self, size: int) -> None:
        parser = SseParser()

        pieces = [parser.feed(STREAM[start : start + size]) for start in range(0, len(STREAM), size)]

        assert [payload for piece in pieces for payload in piece] + parser.flush() == PAYLOADS

    def test_a_byte_order_mark_takes_no_event_away(self) -> None:
        parser = SseParser()

        assert parser.feed(b"\xef\xbb\xbfdata: a\n\ndata: b\n\n") == [b"a", b"b"]

    def test_the_last_event_may_lack_its_blank_line(self) -> None:
        parser = SseParser()

        assert parser.feed(b"data: a\n\ndata: b") == [b"a"]
        assert parser.flush() == [b"b"]

    def test_an_event_without_end_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shared.models.transport.LONGEST_EVENT", 100)  # 64 MiB would only make the test slow
        parser = SseParser()
        parser.feed(b"data: ")

        with pytest.raises(UpstreamError):
            parser.feed(b"x" * 200)


def body(message: str = "no", **fields: object) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error", **fields}})


class TestStatusError:
    @pytest.mark.parametrize(
        ("status", "payload", "expected", "code"),
        [
            (400, body("bad", param="top_p", code="invalid_value"), InvalidRequest, "invalid_value"),
            (400, body("long", code="context_length_exceeded"), InvalidRequest, "context_length_exceeded"),
            (400, body("evil", code="content_filter"), ContentBlocked, "content_policy_violation"),
            (404, body("The model `x` does not exist.", code="model_not_found"), InvalidRequest, "model_not_found"),
            (404, body("No such deployment.", code="DeploymentNotFound"), InvalidRequest, "model_not_found"),
            (404, b'{"detail":"Not Found"}', UpstreamError, "upstream_error"),
            (404, b"<html>nginx</html>", UpstreamError, "upstream_error"),
            (413, body("too big"), InvalidRequest, None),
            (422, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', InvalidRequest, None),
            (401, body("Incorrect API key provided: sk-abc"), UpstreamError, "upstream_error"),
            (403, b"", UpstreamError, "upstream_error"),
            (408, b"", ModelTimeout, "model_timeout"),
            (504, b"<html>", ModelTimeout, "model_timeout"),
            (409, b"", RateLimited, "rate_limit_exceeded"),
            (429, body("slow"), RateLimited, "rate_limit_exceeded"),
            (429, body("pay", code="insufficient_quota"), ModelUnavailable, "model_unavailable"),
            (500, b"", UpstreamError, "upstream_error"),
            (502, b"", ModelUnavailable, "model_unavailable"),
            (503, body("overloaded"), ModelUnavailable, "model_unavailable"),
            (529, b"{}", ModelUnavailable, "model_unavailable"),
            (307, b"", UpstreamError, "upstream_error"),
            (418, b"[]", UpstreamError, "upstream_error"),
        ],
    )
    def test_each_status_is_the_error_it_stands_for(
        self, status: int, payload: bytes, expected: type[AssistantError], code: str | None
    ) -> None:
        error = status_error(status, {}, payload)

        assert type(error) is expected
        assert error.code == code

    def test_a_refusal_keeps_message_and_param(self) -> None:
        error = status_error(400, {}, body("top_p is too large", param="top_p"))

        assert (error.message, error.param) == ("top_p is too large", "top_p")

    def test_refused_credentials_name_the_setting_and_never_the_key(self) -> None:
        error = status_error(401, {}, body("Incorrect API key provided: sk-abc"), setting="OPENAI_API_KEY")

        assert "OPENAI_API_KEY" in error.message
        assert "sk-abc" not in error.message

    def test_a_numeric_code_is_no_code(self) -> None:
        error = status_error(404, {}, body("The model `x` does not exist.", param="model", code=404))

        assert type(error) is InvalidRequest
        assert error.code is None

    def test_what_can_be_tried_again_says_when(self) -> None:
        assert status_error(429, {"retry-after": "7"}, b"").retry_after == 7
        assert status_error(503, {"retry-after-ms": "1500"}, b"").retry_after == 1.5


class TestRetryAfter:
    def test_milliseconds_win(self) -> None:
        assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25

    def test_a_date_is_counted_from_now(self) -> None:
        date = format_datetime(datetime.fromtimestamp(1_000_030, UTC), usegmt=True)

        assert retry_after({"retry-after": date}, now=1_000_000.0) == 30.0
        assert retry_after({"retry-after": date}, now=1_000_099.0) == 0.0

    @pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", ""])
    def test_nonsense_is_nothing_said(self, text: str) -> None:
        assert retry_after({"retry-after": text}) is None


class TestPayloadError:
    @pytest.mark.parametrize(
        ("payload", "expected"),
        [
            ({"error": {"message": "m", "type": "server_error", "code": None}}, UpstreamError),
            ({"error": {"message": "m", "type": "BadRequestError", "code": 400}}, InvalidRequest),
            ({"error": {"message": "m", "code": 503}}, ModelUnavailable),
            ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, RateLimited),
            ({"error": {"message": "m", "code": "context_length_exceeded"}}, InvalidRequest),
            ({"error": {"message": "m", "code": "content_filter"}}, ContentBlocked),
            ({"error": {"message": "m", "type": "overloaded_error"}}, ModelUnavailable),
            ({"error": {"message": "m", "type": "timeout"}}, ModelTimeout),
            ({"error": "it broke"}, UpstreamError),
            ({"type": "error", "message": "m", "code": "server_error", "param": None}, UpstreamError),
            ({"type": "error", "message": "m", "code": "rate_limit_exceeded", "param": None}, RateLimited),
        ],
    )
    def test_each_error_inside_a_stream_is_the_error_it_stands_for(
        self, payload: dict[str, object], expected: type[AssistantError]
    ) -> None:
        assert type(payload_error(payload)) is expected

    def test_a_payload_without_error_is_none(self) -> None:
        assert payload_error({"type": "response.created", "response": {"error": None}}) is None


class TestTransport:
    @pytest.fixture
    async def server(self) -> AsyncIterator[TestServer]:
        self.connections: set[object] = set()
        self.calls = 0
        app = web.Application()
        app.router.add_post("/stream", self._stream)
        app.router.add_post("/drop", self._drop)
        app.router.add_post("/halting", self._halting)
        app.router.add_post("/plain", self._plain)
        app.router.add_post("/moved", self._moved)
        app.router.add_get("/list", self._list)
        server = TestServer(app)
        await server.start_server()
        yield server
        await server.close()

    @pytest.fixture
    async def transport(self) -> AsyncIterator[Transport]:
        transport = Transport(silence=0.3)
        yield transport
        await transport.close()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\ndata: 2\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _halting(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(0.2)
        await response.write(b"data: [DONE]\n\n")
        return response

    @pytest.mark.parametrize("is_listening", [True, False])
    async def test_words_that_were_expected_earlier_are_waited_for_only_by_who_did_not_listen(
        self, server: TestServer, transport: Transport, is_listening: bool
    ) -> None:
        answer = await transport.post_stream(str(server.make_url("/halting")), {}, {})
        reads = sse_data(answer)
        await anext(reads)
        answer.expect_words_within(0.05)
        if is_listening:
            with pytest.raises(ModelTimeout):
                await anext(reads)
            return
        answer.pause()
        await asyncio.sleep(0.3)
        answer.resume()

        assert [read async for read in reads if read] == []

    async def _drop(self, request: web.Request) -> web.StreamResponse:
        """The first call finds its connection closed, as a pooled one may be."""
        self.calls += 1
        if self.calls == 1:
            assert request.transport is not None
            request.transport.close()
        return await self._stream(request)

    async def _plain(self, request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "busy", "code": "rate_limit_exceeded"}})

    async def _moved(self, request: web.Request) -> web.Response:
        return web.Response(status=308, headers={"location": "/stream"})

    async def _list(self, request: web.Request) -> web.Response:
        return web.Response(text="[1, 2]", content_type="application/json")

    async def test_a_connection_is_used_again_after_a_whole_answer(
        self, server: TestServer, transport: Transport
    ) -> None:
        for _ in range(3):
            response = await transport.post_stream(str(server.make_url("/stream")), {}, {})
            assert await self._payloads(response) == [b"1", b"2"]

        assert len(self.connections) == 1

    async def test_a_kept_connection_that_was_dropped_is_opened_once_more(
        self, server: TestServer, transport: Transport
    ) -> None:
        await self._payloads(await transport.post_stream(str(server.make_url("/stream")), {}, {}))

        response = await transport.post_stream(str(server.make_url("/drop")), {}, {})
        response.release()

        assert self.calls == 2

    async def _payloads(self, response: Answer) -> list[bytes]:
        return [payload async for read in sse_data(response) for payload in read]

    async def test_an_error_with_status_200_is_an_error(self, server: TestServer, transport: Transport) -> None:
        with pytest.raises(RateLimited):
            await transport.post_stream(str(server.make_url("/plain")), {}, {})

    async def test_a_redirect_is_not_followed_with_a_key_in_hand(
        self, server: TestServer, transport: Transport
    ) -> None:
        with pytest.raises(UpstreamError, match="308"):
            await transport.post_stream(str(server.make_url("/moved")), {}, {})

    async def test_a_list_where_an_object_should_be_cannot_be_read(
        self, server: TestServer, transport: Transport
    ) -> None:
        with pytest.raises(UpstreamError, match="cannot be read"):
            await transport.get_json(str(server.make_url("/list")), {})

    async def test_a_server_that_is_not_there_is_unavailable(self, unused_tcp_port: int, transport: Transport) -> None:
        with pytest.raises(ModelUnavailable):
            await transport.post_stream(f"http://127.0.0.1:{unused_tcp_port}/", {}, {})

    async def test_an_address_that_is_none_is_the_operators_fault(self, transport: Transport) -> None:
        with pytest.raises(UpstreamError, match="OPENAI_BASE_URL"):
            await transport.post_stream("nonsense", {}, {})
