"""A stream against a hand-driven ASGI client: order, silence, errors, leaving, and what is left behind."""

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from starlette.types import Message

from functions._sse import DONE, sse_response
from shared.errors import AssistantError, RateLimited


class Client:
    """The other end of an ASGI call."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.under_way = 0
        self.most_under_way = 0
        self.left = asyncio.Event()
        self.is_slow = asyncio.Event()
        self.is_slow.set()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.is_slow.wait()
        self.under_way -= 1
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        return self.sent[-1]["type"] == "http.response.body" and not self.sent[-1]["more_body"]


class Source:
    """Chunks put in by hand; remembers being closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.is_closed = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            while (chunk := await self.queue.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.is_closed = True

    async def put(self, *chunks: bytes | Exception | None) -> None:
        for chunk in chunks:
            self.queue.put_nowait(chunk)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def source() -> Source:
    return Source()


def start(source: Source, client: Client, *, heartbeat: float = 60.0) -> asyncio.Task[None]:
    response = sse_response(source.chunks(), heartbeat=heartbeat)
    return asyncio.ensure_future(response({"type": "http"}, client.receive, client.send))


async def test_a_chunk_is_one_send_at_once(source: Source, client: Client) -> None:
    running = start(source, client)

    await source.put(b"data: 1\n\n")
    after_one = len(client.sent)
    await source.put(b"data: 2\n\n", None)
    await running

    assert after_one == 2
    assert [message.get("body") for message in client.sent[1:]] == [b"data: 1\n\n", b"data: 2\n\n", DONE]
    assert client.is_complete and source.is_closed


async def test_an_empty_source_is_an_empty_stream(source: Source, client: Client) -> None:
    running = start(source, client)
    await source.put(None)
    await running

    assert (client.sent[0]["status"], client.body, client.is_complete) == (200, DONE, True)


async def test_silence_is_filled_before_the_first_event_too(source: Source, client: Client) -> None:
    running = start(source, client, heartbeat=0.05)
    await asyncio.sleep(0.17)
    await source.put(b"data: 1\n\n", None)
    await running

    assert client.body in (b": heartbeat\n\n" * count + b"data: 1\n\n" + DONE for count in (2, 3))


async def test_events_put_the_heartbeat_off(source: Source, client: Client) -> None:
    running = start(source, client, heartbeat=0.2)
    for _ in range(6):
        await asyncio.sleep(0.06)
        await source.put(b"x")
    await source.put(None)
    await running

    assert client.body == b"xxxxxx" + DONE


async def test_no_heartbeat_is_sent_into_a_send_that_waits(source: Source, client: Client) -> None:
    running = start(source, client, heartbeat=0.03)
    client.is_slow.clear()
    await source.put(b"data: 1\n\n")
    await asyncio.sleep(0.1)
    client.is_slow.set()
    await source.put(None)
    await running

    assert client.body == b"data: 1\n\n" + DONE


async def test_the_end_waits_for_a_heartbeat_under_way(source: Source, client: Client) -> None:
    running = start(source, client, heartbeat=0.03)
    await source.put(b"data: 1\n\n")
    client.is_slow.clear()
    await asyncio.sleep(0.05)  # a heartbeat waits to be sent
    await source.put(None)
    await asyncio.sleep(0.05)
    client.is_slow.set()
    await running
    await asyncio.sleep(0.05)

    assert client.body == b"data: 1\n\n: heartbeat\n\n" + DONE
    assert client.is_complete
    assert client.most_under_way == 1, "never two sends at once"


async def test_no_heartbeat_is_sent_beside_the_end(source: Source, client: Client) -> None:
    running = start(source, client, heartbeat=0.03)
    await source.put(b"data: 1\n\n")
    client.is_slow.clear()
    await source.put(None)
    await asyncio.sleep(0.1)  # the end waits to be sent
    client.is_slow.set()
    await running

    assert client.body == b"data: 1\n\n" + DONE
    assert client.most_under_way == 1


async def test_the_source_is_closed_when_the_client_leaves(source: Source, client: Client) -> None:
    running = start(source, client)
    await source.put(b"data: 1\n\n")

    client.left.set()
    await running

    assert source.is_closed
    assert not client.is_complete


async def test_what_feeds_the_source_goes_on_when_the_client_leaves(client: Client) -> None:
    done = asyncio.Event()

    async def turn() -> None:
        await asyncio.sleep(0.05)
        done.set()

    async def watch(task: asyncio.Task[None]) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await asyncio.shield(task)

    task = asyncio.create_task(turn())
    running = asyncio.ensure_future(
        sse_response(watch(task), heartbeat=60)({"type": "http"}, client.receive, client.send)
    )
    await settle()
    client.left.set()
    await running
    await task

    assert done.is_set()


async def test_a_source_that_ignores_the_end_is_left_all_the_same(client: Client) -> None:
    async def stubborn() -> AsyncIterator[bytes]:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                yield b"still here"

    running = asyncio.ensure_future(
        sse_response(stubborn(), heartbeat=60)({"type": "http"}, client.receive, client.send)
    )
    await settle()
    client.left.set()
    await asyncio.wait_for(running, 1)


async def test_an_error_goes_on_from_the_last_sequence_number(source: Source, client: Client) -> None:
    running = start(source, client)
    await source.put(
        b'data: {"type":"a","sequence_number":8}\n\ndata: {"sequence_number":9}\n\n', RuntimeError("secret")
    )
    await running

    assert b'event: error\ndata: {"type":"error","sequence_number":10,' in client.body
    assert b"secret" not in client.body
    assert client.is_complete


async def test_another_surface_words_its_own_last_event(source: Source, client: Client) -> None:
    def words(error: AssistantError, sequence_number: int) -> bytes:
        return b"data: %s\n\n" % error.message.encode()

    response = sse_response(source.chunks(), heartbeat=60, on_error=words)
    running = asyncio.ensure_future(response({"type": "http"}, client.receive, client.send))
    await source.put(b"data: 1\n\n", RateLimited("Slow down."))
    await running

    assert client.body == b"data: 1\n\ndata: Slow down.\n\n" + DONE


async def test_an_error_before_the_first_event_is_a_status_with_the_same_request_id(
    source: Source, client: Client
) -> None:
    response = sse_response(source.chunks(), heartbeat=60, headers={"X-Extra": "1"})
    response.raw_headers.append((b"x-request-id", b"req_1"))
    running = asyncio.ensure_future(response({"type": "http"}, client.receive, client.send))
    await source.put(RateLimited("Slow down.", retry_after=1))
    await running

    headers = dict[bytes, bytes](client.sent[0]["headers"])
    assert client.sent[0]["status"] == 429
    assert headers[b"content-type"] == b"application/json"
    assert (headers[b"x-request-id"], headers[b"x-extra"], headers[b"retry-after"]) == (b"req_1", b"1", b"1")


async def test_a_stream_that_the_server_cancels_says_so_and_stays_cancelled(source: Source, client: Client) -> None:
    running = start(source, client)
    await source.put(b'data: {"sequence_number":0}\n\n')

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert b'"sequence_number":1,' in client.body and b"server_restarting" in client.body
    assert client.is_complete and source.is_closed


async def test_nothing_runs_on_after_a_stream(source: Source, client: Client) -> None:
    before = asyncio.all_tasks()
    running = start(source, client, heartbeat=0.01)
    await asyncio.sleep(0.05)
    await source.put(None)
    await running
    await settle()

    assert asyncio.all_tasks() == before


async def test_an_open_stream_holds_less_than_eight_kilobytes() -> None:
    sources = [Source() for _ in range(200)]
    clients = [Client() for _ in sources]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        running = [start(source, client) for source, client in zip(sources, clients, strict=True)]
        await settle()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for client in clients:
        client.left.set()
    await asyncio.gather(*running)

    assert (after - before) / len(sources) < 8_000
