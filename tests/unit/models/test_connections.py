"""Over real sockets: each server here writes exact bytes."""

import asyncio
import contextlib
import datetime
import gc
import ipaddress
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.errors import ModelUnavailable, UpstreamError
from shared.models import connections
from shared.models.connections import (
    MOST_UNREAD,
    Answer,
    Broken,
    Failed,
    NoAddress,
    NotConnected,
    NotTrusted,
    Patience,
    Pool,
    TimedOut,
    address_of,
)
from shared.models.pacing import Pace
from shared.models.transport import Transport, connection_error, sse_data

PATIENCE = Patience(connect=2, silence=5, total=10)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

type Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Hears requests and answers each as told; the last telling holds for what follows."""

    def __init__(self, *answers: bytes | Say) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        """So far."""
        self.current = 0
        """Now."""
        self.gone = asyncio.Event()
        """Somebody has hung up."""
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        self.current += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                self.requests.append(await _request(reader))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(reader, writer)
        self.current -= 1
        self.gone.set()
        writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line[16:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")), b"0")
    return head + await reader.readexactly(int(length))


@asynccontextmanager
async def served(*answers: bytes | Say, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Server]:
    server = Server(*answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/x?y=z"
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool()
    yield pool
    await pool.close()
    assert census(pool) == (0, 0)


def census(pool: Pool) -> tuple[int, int]:
    """Connections that are open, and those of them that are kept for the next call."""
    return len(pool._open), sum(map(len, pool._idle.values()))  # pyright: ignore[reportPrivateUsage] - what leaks, leaks here


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not claim():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.002)


async def ask(pool: Pool, server: Server, patience: Patience = PATIENCE) -> Answer:
    return await pool.request("POST", server.url, {"X-One": "1"}, b"question", patience=patience)


async def fetch(pool: Pool, server: Server, patience: Patience = PATIENCE) -> bytes:
    answer = await ask(pool, server, patience)
    try:
        return await answer.read(1 << 26)
    finally:
        answer.release()


def closing(data: bytes, *, after: float = 0) -> Say:
    """Say this, then hang up."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(after)
        writer.close()

    return say


def in_pieces(*pieces: bytes, pause: float = 0) -> Say:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return say


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1)


# what is asked


class TestRequest:
    async def test_it_is_what_http_wants(self, pool: Pool) -> None:
        async with served(OK) as server:
            await fetch(pool, server)

        authority = server.url.split("/")[2].encode()
        assert server.requests == [
            b"POST /v1/x?y=z HTTP/1.1\r\nHost: " + authority + b"\r\nX-One: 1\r\nContent-Length: 8\r\n\r\nquestion"
        ]

    async def test_a_get_has_no_length(self, pool: Pool) -> None:
        async with served(OK) as server:
            (await pool.request("GET", server.url, {}, b"", patience=PATIENCE)).release()

        assert b"Content-Length" not in server.requests[0]

    @pytest.mark.parametrize(
        "headers",
        [{"A": "b\r\nEvil: 1"}, {"A": "b\nEvil: 1"}, {"A\r\nEvil": "1"}, {"A": "b\r"}, {"A": "\0"}, {"A": "ключ"}],
    )
    async def test_a_header_that_holds_another_is_refused(self, pool: Pool, headers: dict[str, str]) -> None:
        async with served(OK) as server:
            with pytest.raises(NoAddress):
                await pool.request("POST", server.url, headers, b"", patience=PATIENCE)

        assert server.connections == 0

    @pytest.mark.parametrize(
        ("url", "host", "port", "authority", "target"),
        [
            ("http://x.example", "x.example", 80, "x.example", "/"),
            ("https://x.example", "x.example", 443, "x.example", "/"),
            ("https://x.example:8443/a", "x.example", 8443, "x.example:8443", "/a"),
            ("http://x.example?a=b", "x.example", 80, "x.example", "/?a=b"),
            ("http://x.example/a?b=c#d", "x.example", 80, "x.example", "/a?b=c"),
            ("http://[::1]:8080/a", "::1", 8080, "[::1]:8080", "/a"),
            ("http://user:secret@x.example/a", "x.example", 80, "x.example", "/a"),
            ("HTTP://X.example/A%20b", "x.example", 80, "X.example", "/A%20b"),
        ],
    )
    def test_a_url_is_taken_apart(self, url: str, host: str, port: int, authority: str, target: str) -> None:
        assert address_of(url) == (host, port, url.startswith("https"), authority, target)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "x.example/v1",
            "http://",
            "http:///v1",
            "http://:80/",
            "http+unix://%2Fsocket/v1",
            "ftp://x.example",
            "http://x.example:99999/",
            "http://x.example:port/",
            "http://[::1/",
            "http://münchen.example/",
            "http://x.example/ü",
            "http://x.example/a b",
            "http://x.example/\r\nEvil: 1",
            "http://x.example/\0",
            "http://x\n.example/",
        ],
    )
    async def test_what_is_no_url_is_refused_and_not_shown(self, pool: Pool, url: str) -> None:
        with pytest.raises(NoAddress) as failure:
            await pool.request("GET", url, {}, b"", patience=PATIENCE)

        assert not url or url not in str(failure.value)
        assert isinstance(connection_error(failure.value), UpstreamError)

    @pytest.mark.parametrize("host", ["x" * 300, "a..b", "nowhere.invalid"])
    async def test_a_host_that_is_none_cannot_be_connected_to(self, pool: Pool, host: str) -> None:
        with pytest.raises(NotConnected):
            await pool.request("GET", f"http://{host}/", {}, b"", patience=PATIENCE)

    async def test_a_server_at_an_ipv6_address(self, pool: Pool) -> None:
        server = Server(OK)
        try:
            listener = await asyncio.start_server(server.serve, "::1", 0)
        except OSError:
            pytest.skip("this machine has no IPv6")
        server.url = f"http://[::1]:{listener.sockets[0].getsockname()[1]}/"

        assert await fetch(pool, server) == b"ok"
        listener.close()

    async def test_nobody_listens(self, pool: Pool) -> None:
        async with served(OK) as server:
            pass

        with pytest.raises(NotConnected):
            await ask(pool, server)

    async def test_a_server_that_accepts_nobody_is_given_up(self, pool: Pool) -> None:
        with socket.socket() as full, socket.socket() as first:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            first.connect(full.getsockname())  # the queue holds one, and another may be on its way
            others = [socket.socket() for _ in range(3)]
            for other in others:
                other.setblocking(False)
                other.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}/"

            with pytest.raises(NotConnected):
                await pool.request("GET", url, {}, b"", patience=Patience(connect=0.1, silence=1, total=1))

            for other in others:
                other.close()


# what is answered


class TestAnswer:
    BODY = b"3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"

    async def test_chunks_do_not_depend_on_where_they_are_split(self, pool: Pool) -> None:
        whole = CHUNKED + self.BODY
        splits = [in_pieces(whole[:place], whole[place:]) for place in range(1, len(whole))]
        async with served(*splits) as server:
            bodies = [await fetch(pool, server) for _ in splits]

        assert bodies == [b"abc0123456789"] * len(splits)
        assert server.connections == 1

    async def test_a_byte_at_a_time(self, pool: Pool) -> None:
        whole = CHUNKED + self.BODY
        async with served(in_pieces(*(whole[n : n + 1] for n in range(len(whole))))) as server:
            assert await fetch(pool, server) == b"abc0123456789"

    @pytest.mark.parametrize(
        ("said", "status", "body"),
        [
            (OK, 200, b"ok"),
            (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", 200, b""),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
            (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n" + OK, 200, b"ok"),
            (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad", 502, b"bad"),
            (b"\r\n" + OK, 200, b"ok"),
        ],
    )
    async def test_each_has_its_end_and_leaves_its_connection(
        self, pool: Pool, said: bytes, status: int, body: bytes
    ) -> None:
        async with served(said) as server:
            for _ in range(2):
                answer = await ask(pool, server)
                assert (answer.status, await answer.read(10)) == (status, body)
                assert "link" not in answer.headers
            assert census(pool) == (1, 1)
            assert server.connections == 1

    @pytest.mark.parametrize(
        "head",
        [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"],
    )
    async def test_a_body_may_last_until_the_connection_ends(self, pool: Pool, head: bytes) -> None:
        async with served(closing(head + b"all of it")) as server:
            assert await fetch(pool, server) == b"all of it"

        assert census(pool) == (0, 0)

    async def test_repeated_headers_are_joined_whatever_their_case(self, pool: Pool) -> None:
        headers = b"A: 1\r\nContent-Type: Text/Event-Stream; charset=x\r\na: 2\r\nContent-Length: 0\r\n"
        async with served(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n") as server:
            answer = await ask(pool, server)

        assert answer.headers["a"] == "1, 2"
        assert answer.content_type == "text/event-stream"

    async def test_what_follows_the_body_is_no_header(self, pool: Pool) -> None:
        async with served(CHUNKED + b"1\r\na\r\n0\r\nRetry-After: 9\r\n\r\n") as server:
            answer = await ask(pool, server)
            await answer.read(10)

        assert "retry-after" not in answer.headers

    async def test_longer_than_allowed_is_broken(self, pool: Pool) -> None:
        async with served(OK) as server:
            answer = await ask(pool, server)
            with pytest.raises(Broken):
                await answer.read(1)
            answer.release()

    @pytest.mark.parametrize(
        "said",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"<html>",
            b"\x16\x03\x01\x02\x00",
            CHUNKED + b"zz\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX\xff: a\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n...",
            b"HTTP/1.1 200 OK\r\n" + b"A: " + b"a" * 70_000,
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        ],
    )
    async def test_what_is_no_answer_is_broken(self, pool: Pool, said: bytes) -> None:
        async with served(said) as server:
            with pytest.raises(Broken):
                await ask(pool, server)
            await asyncio.wait_for(server.gone.wait(), 3)

        assert server.connections == 1
        assert census(pool) == (0, 0)

    @pytest.mark.parametrize(
        ("said", "read"),
        [
            (CHUNKED + b"3\r\nab", b"ab"),
            (CHUNKED + b"3\r\nabc\r\n", b"abc"),
            (CHUNKED + b"3\r\nabc\r\n0\r\n", b"abc"),
            (CHUNKED + b"3\r\nabcXX0\r\n\r\n", b"abc"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd", b"abcd"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b""),
        ],
    )
    async def test_one_that_ends_too_early_is_read_so_far_and_then_broken(
        self, pool: Pool, said: bytes, read: bytes
    ) -> None:
        async with served(closing(said)) as server:
            answer = await ask(pool, server)
            data = b""
            with pytest.raises(Broken):
                while piece := await answer.read_any():
                    data += piece
            with pytest.raises(Broken):
                await answer.read_any()

        assert data == read
        assert census(pool) == (0, 0)

    async def test_the_end_is_read_again_and_again(self, pool: Pool) -> None:
        async with served(OK) as server:
            answer = await ask(pool, server)

            assert [await answer.read_any() for _ in range(3)] == [b"ok", b"", b""]


# connections that are kept


class TestKeeping:
    async def test_one_call_after_another_shares_a_connection(self, pool: Pool) -> None:
        async with served(OK, CHUNKED + b"2\r\nok\r\n0\r\n\r\n", OK) as server:
            bodies = [await fetch(pool, server) for _ in range(3)]

        assert bodies == [b"ok"] * 3
        assert server.connections == 1

    async def test_calls_at_the_same_time_do_not(self, pool: Pool) -> None:
        async with served(OK) as server:
            await asyncio.gather(*(fetch(pool, server) for _ in range(5)))
            await fetch(pool, server)

            assert census(pool) == (5, 5)
        assert server.connections == 5

    @pytest.mark.parametrize(
        "said",
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ],
    )
    async def test_a_server_that_will_close_is_not_asked_again(self, pool: Pool, said: bytes) -> None:
        async with served(said) as server:
            for _ in range(2):
                assert await fetch(pool, server) == b"ok"
                assert census(pool) == (0, 0)

        assert server.connections == 2

    async def test_http_1_0_may_keep_too(self, pool: Pool) -> None:
        async with served(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok") as server:
            await fetch(pool, server)
            await fetch(pool, server)

        assert server.connections == 1

    async def test_one_that_ends_while_idle_is_forgotten(self, pool: Pool) -> None:
        async with served(closing(OK, after=0.01)) as server:
            await fetch(pool, server)
            await until(lambda: census(pool) == (0, 0))
            assert await fetch(pool, server) == b"ok"

        assert server.connections == 2

    async def test_one_that_ends_instead_of_answering_is_replaced_once(self, pool: Pool) -> None:
        async with served(OK, closing(b""), OK) as server:
            await fetch(pool, server)
            assert await fetch(pool, server) == b"ok"

        assert (server.connections, len(server.requests)) == (2, 3)

    async def test_a_second_end_is_told(self, pool: Pool) -> None:
        async with served(OK, closing(b"")) as server:
            await fetch(pool, server)
            with pytest.raises(Broken):
                await ask(pool, server)

        assert (server.connections, len(server.requests)) == (2, 3)

    async def test_a_new_connection_that_ends_is_not_replaced(self, pool: Pool) -> None:
        async with served(closing(b"")) as server:
            with pytest.raises(Broken):
                await ask(pool, server)

        assert len(server.requests) == 1

    @pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 200 OK\r\nA: b", b"HTTP/1.1 100 Continue\r\n\r\n", b"nonsense"])
    async def test_one_that_had_begun_to_answer_is_not_asked_twice(self, pool: Pool, said: bytes) -> None:
        async with served(OK, closing(said)) as server:
            await fetch(pool, server)
            with pytest.raises(Broken):
                await ask(pool, server)

        assert len(server.requests) == 2

    async def test_silence_is_not_asked_twice(self, pool: Pool) -> None:
        async with served(OK, silence) as server:
            await fetch(pool, server)
            with pytest.raises(TimedOut):
                await ask(pool, server, Patience(connect=1, silence=0.05, total=5))

        assert len(server.requests) == 2

    @pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"HTTP/1.1 200", b"evil"])
    @pytest.mark.parametrize("pause", [0, 0.02])
    async def test_what_nobody_asked_for_answers_nobody(self, pool: Pool, more: bytes, pause: float) -> None:
        async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not pause:
                writer.write(OK + more)
                return
            writer.write(OK)
            await asyncio.sleep(pause)
            writer.write(more)

        async with served(say) as server:
            assert await fetch(pool, server) == b"ok"
            await until(lambda: census(pool) == (0, 0))
            assert await fetch(pool, server) == b"ok"

        assert server.connections == 2

    async def test_one_that_still_sends_the_question_is_not_kept(self, pool: Pool) -> None:
        """A server may refuse before it has heard the whole of it, and then never hear the rest."""

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await asyncio.sleep(5)

        listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"

        answer = await pool.request("POST", url, {}, b"x" * 30_000_000, patience=PATIENCE)

        assert (answer.status, await answer.read(10)) == (413, b"no")
        assert census(pool) == (0, 0)
        listener.close()

    async def test_it_is_let_go_after_a_while(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "IDLE_SECONDS", 0.02)  # nobody waits for half a minute
        async with served(OK) as server:
            await fetch(pool, server)
            assert census(pool) == (1, 1)
            await asyncio.wait_for(server.gone.wait(), 3)

        assert census(pool) == (0, 0)


# time


class TestPatience:
    async def test_silence_before_the_answer(self, pool: Pool) -> None:
        async with served(silence) as server:
            with pytest.raises(TimedOut):
                await ask(pool, server, Patience(connect=1, silence=0.05, total=5))
            await asyncio.wait_for(server.gone.wait(), 3)

    async def test_silence_within_it(self, pool: Pool) -> None:
        async with served(in_pieces(CHUNKED + b"1\r\na\r\n", b"", pause=3)) as server:
            answer = await ask(pool, server, Patience(connect=1, silence=0.05, total=5))
            assert await answer.read_any() == b"a"
            with pytest.raises(TimedOut):
                await answer.read_any()

        assert census(pool) == (0, 0)

    async def test_pieces_in_time_are_no_silence(self, pool: Pool) -> None:
        pieces = [CHUNKED, *[b"1\r\na\r\n"] * 8, b"0\r\n\r\n"]
        async with served(in_pieces(*pieces, pause=0.03)) as server:
            assert await fetch(pool, server, Patience(connect=1, silence=0.15, total=5)) == b"a" * 8

    @pytest.mark.parametrize("piece", [b"1\r\na\r\n", b""])
    async def test_a_slow_drip_ends_at_the_deadline(self, pool: Pool, piece: bytes) -> None:
        pieces = [CHUNKED, *[piece] * 300]
        async with served(in_pieces(*pieces, pause=0.01)) as server:
            started = asyncio.get_running_loop().time()
            with pytest.raises(TimedOut):
                await fetch(pool, server, Patience(connect=1, silence=0.3, total=0.15))

        assert 0.1 < asyncio.get_running_loop().time() - started < 1

    async def test_a_slow_head_ends_at_the_deadline(self, pool: Pool) -> None:
        async with served(in_pieces(b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 300, pause=0.01)) as server:
            with pytest.raises(TimedOut):
                await ask(pool, server, Patience(connect=1, silence=1, total=0.1))

    async def test_the_deadline_is_one_for_both_tries(self, pool: Pool) -> None:
        async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.2)
            writer.close()

        async with served(OK, late, silence) as server:
            await fetch(pool, server)
            started = asyncio.get_running_loop().time()
            with pytest.raises(TimedOut):
                await ask(pool, server, Patience(connect=1, silence=5, total=0.3))

        assert asyncio.get_running_loop().time() - started < 0.45

    async def test_what_we_do_not_hear_is_no_silence_of_the_server(self, pool: Pool) -> None:
        async with served(CHUNKED + b"1\r\na\r\n") as server:
            answer = await ask(pool, server, Patience(connect=1, silence=0.05, total=5))
            assert answer.pause()
            await asyncio.sleep(0.15)
            answer.resume()

            assert await answer.read_any() == b"a"
            with pytest.raises(TimedOut):
                await answer.read_any()


# leaving early


class TestRelease:
    async def test_one_left_in_the_middle_takes_its_connection_with_it(self, pool: Pool) -> None:
        async with served(CHUNKED + b"1\r\na\r\n") as server:
            answer = await ask(pool, server)
            answer.release()
            answer.release()

            assert census(pool) == (0, 0)
            await asyncio.wait_for(server.gone.wait(), 3)

    async def test_reading_on_after_it_fails(self, pool: Pool) -> None:
        async with served(CHUNKED) as server:
            answer = await ask(pool, server)
            answer.release()

            with pytest.raises(Broken):
                await answer.read_any()
            assert not answer.pause()
            answer.resume()

    async def test_when_the_end_comes_soon_the_connection_is_kept(self, pool: Pool) -> None:
        async with served(in_pieces(CHUNKED + b"1\r\na\r\n", b"0\r\n\r\n", pause=0.02), OK) as server:
            answer = await ask(pool, server)
            await answer.read_any()
            answer.release(is_done=True)
            await until(lambda: census(pool) == (1, 1))
            assert await fetch(pool, server) == b"ok"

        assert server.connections == 1

    @pytest.mark.parametrize("piece", [b"", b"1\r\nb\r\n"])
    async def test_when_it_does_not_the_connection_ends(self, pool: Pool, piece: bytes) -> None:
        async with served(in_pieces(CHUNKED + b"1\r\na\r\n", *[piece] * 50, pause=0.01)) as server:
            answer = await ask(pool, server)
            await answer.read_any()
            answer.release(is_done=True)
            assert census(pool) == (1, 0)
            await asyncio.wait_for(server.gone.wait(), 3)

        assert census(pool) == (0, 0)

    async def test_the_end_may_have_come_while_it_rested(self, pool: Pool) -> None:
        async with served(in_pieces(CHUNKED + b"1\r\na\r\n", b"0\r\n\r\n", pause=0.01)) as server:
            answer = await ask(pool, server)
            await answer.read_any()
            answer.pause()
            await asyncio.sleep(0.03)
            answer.release(is_done=True)
            await until(lambda: census(pool) == (1, 1))

    async def test_done_and_then_left_ends_at_once(self, pool: Pool) -> None:
        async with served(CHUNKED + b"1\r\na\r\n") as server:
            answer = await ask(pool, server)
            answer.release(is_done=True)
            answer.release()

            assert census(pool) == (0, 0)

    async def test_a_stream_ends_with_done_and_leaves_its_connection(self, pool: Pool) -> None:
        events = b"data: a\n\ndata: [DONE]\n\n"
        said = in_pieces(CHUNKED, b"%x\r\n%b\r\n" % (len(events), events), b"0\r\n\r\n", pause=0.01)
        async with served(said) as server:
            payloads = [one async for many in sse_data(await ask(pool, server)) for one in many]
            await until(lambda: census(pool) == (1, 1))

        assert payloads == [b"a"]


# cancellation


class TestCancellation:
    async def test_it_leaves_no_connection_wherever_it_comes(self, pool: Pool) -> None:
        """After each number of the loop's passes, up to the one at which the call has ended by itself."""
        slow = in_pieces(b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\r\n\r\n", b"o", b"k")
        async with served(slow) as server:
            passes, is_whole = 0, False
            while not is_whole:
                call = asyncio.create_task(fetch(pool, server))
                for _ in range(passes):
                    await asyncio.sleep(0)
                call.cancel()
                (result,) = await asyncio.gather(call, return_exceptions=True)
                is_whole = result == b"ok"
                assert is_whole or isinstance(result, asyncio.CancelledError)
                opened, kept = census(pool)
                assert opened == kept <= 1, passes
                passes += 1

        assert passes > 4

    async def test_while_it_waits_for_the_answer(self, pool: Pool) -> None:
        async with served(silence) as server:
            call = asyncio.create_task(ask(pool, server))
            await until(lambda: len(server.requests) == 1)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

            assert census(pool) == (0, 0)
            await asyncio.wait_for(server.gone.wait(), 3)

    async def test_while_a_stream_rests(self, pool: Pool) -> None:
        async with served(CHUNKED + b"9\r\ndata: a\n\n\r\n") as server:
            answer = await ask(pool, server)

            async def read() -> None:
                async for _ in sse_data(answer):
                    await Pace(100).rest(answer, 9)

            reading = asyncio.create_task(read())
            await asyncio.sleep(0.03)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            answer.release()

            assert census(pool) == (0, 0)


class TestClosing:
    async def test_calls_that_run_are_told(self) -> None:
        pool = Pool()
        async with served(CHUNKED + b"1\r\na\r\n") as server:
            answer = await ask(pool, server)
            server.answers[:] = [silence]
            waiting = asyncio.create_task(ask(pool, server))
            await until(lambda: len(server.requests) == 2)
            await pool.close()

            with pytest.raises(Broken):
                await waiting
            assert await answer.read_any() == b"a"
            with pytest.raises(Broken):
                await answer.read_any()
        assert census(pool) == (0, 0)

    async def test_a_call_on_a_kept_connection_is_not_tried_again(self) -> None:
        pool = Pool()
        async with served(OK, silence) as server:
            await fetch(pool, server)
            waiting = asyncio.create_task(ask(pool, server))
            await until(lambda: len(server.requests) == 2)
            await pool.close()

            with pytest.raises(Broken):
                await waiting
        assert (census(pool), server.connections) == ((0, 0), 1)

    async def test_a_call_that_is_just_being_connected_is_told_too(self) -> None:
        pool = Pool()
        async with served(OK) as server:
            call = asyncio.create_task(ask(pool, server))
            await asyncio.sleep(0)
            await pool.close()

            with pytest.raises(Failed):
                await call
        assert census(pool) == (0, 0)

    def test_a_transport_holds_no_loop_that_has_ended(self) -> None:
        transport = Transport()

        async def use() -> weakref.ref[asyncio.AbstractEventLoop]:
            async with served(OK.replace(b"ok", b"{}")) as server:
                await transport.get_json(server.url, {})
            pool = transport._pool()  # pyright: ignore[reportPrivateUsage] - what a user of it cannot leave behind
            await until(lambda: census(pool) == (0, 0))
            return weakref.ref(asyncio.get_running_loop())

        ended = [asyncio.run(use()) for _ in range(3)]
        gc.collect()

        assert [loop() is None for loop in ended] == [True, True, False]
        assert len(transport._pools) == 1  # pyright: ignore[reportPrivateUsage]


# load, on both event loops


def _on(loop: str, work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(work)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
class TestLoad:
    SIZE = 12 * MOST_UNREAD

    def _say(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        pieces = [b"%x\r\n%b\r\n" % (65_536, bytes([n % 251]) * 65_536) for n in range(self.SIZE // 65_536)]
        return in_pieces(CHUNKED, *pieces, b"0\r\n\r\n")(reader, writer)

    def test_an_answer_that_nobody_reads_waits_at_its_server(self, loop: str) -> None:
        async def work() -> None:
            pool = Pool()
            async with served(self._say) as server:
                answer = await ask(pool, server, Patience(connect=1, silence=0.1, total=20))
                await asyncio.sleep(0.3)  # longer than the server may be silent: it is not
                held = answer._unread  # pyright: ignore[reportPrivateUsage] - how much is held is not to be seen otherwise
                data = await answer.read(self.SIZE)
                assert MOST_UNREAD < held < MOST_UNREAD * 2
                assert len(data) == self.SIZE
                assert data[65_536 * 7] == 7
                assert census(pool) == (1, 1)
            await pool.close()

        _on(loop, work())

    def test_resting_between_reads_loses_nothing(self, loop: str) -> None:
        async def work() -> None:
            pool = Pool()
            async with served(self._say) as server:
                answer = await ask(pool, server)
                data = bytearray()
                while piece := await answer.read_any():
                    data += piece
                    if answer.pause():
                        await asyncio.sleep(0.0005)
                        answer.resume()
                assert len(data) == self.SIZE
            await pool.close()

        _on(loop, work())

    def test_the_end_of_a_connection_that_rests_is_told_afterwards(self, loop: str) -> None:
        async def work() -> None:
            pool = Pool()
            async with served(closing(CHUNKED + b"1\r\na\r\n")) as server:
                answer = await ask(pool, server)
                answer.pause()
                await asyncio.sleep(0.03)
                answer.resume()
                assert await answer.read_any() == b"a"
                with pytest.raises(Broken):
                    await answer.read_any()
            assert census(pool) == (0, 0)
            await pool.close()

        _on(loop, work())

    def test_200_calls_at_once(self, loop: str) -> None:
        async def work() -> None:
            pool = Pool()
            pieces = [b"5\r\nhello\r\n"] * 20
            async with served(in_pieces(CHUNKED, *pieces, b"0\r\n\r\n")) as server:
                for _ in range(2):
                    bodies = await asyncio.gather(*(fetch(pool, server) for _ in range(200)))
                    assert bodies == [b"hello" * 20] * 200
                assert server.connections == 200
                assert census(pool) == (200, 200)
            await pool.close()

        _on(loop, work())

    def test_cancelled_in_every_pass(self, loop: str) -> None:
        async def work() -> None:
            pool = Pool()
            async with served(OK) as server:
                for passes in range(12):
                    call = asyncio.create_task(fetch(pool, server))
                    for _ in range(passes):
                        await asyncio.sleep(0)
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                    opened, kept = census(pool)
                    assert opened == kept <= 1, passes
                await until(lambda: server.current <= 1)
            await pool.close()
            assert census(pool) == (0, 0)

        _on(loop, work())


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that it signed itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of models")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls(certificate: Path) -> Iterator[ssl.SSLContext]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    yield context


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
class TestTls:
    def test_a_certificate_that_is_trusted(
        self, loop: str, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async def work() -> None:
            pool = Pool()
            big = b"x" * 3_000_000
            async with served(
                OK, b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + big, closing(CHUNKED + b"1\r\n"), tls=tls
            ) as server:
                assert await fetch(pool, server) == b"ok"
                assert await fetch(pool, server) == big
                assert server.connections == 1
                with pytest.raises(Broken):
                    await fetch(pool, server)
            await pool.close()
            assert census(pool) == (0, 0)

        _on(loop, work())

    def test_one_that_is_not_is_refused_with_what_to_do(self, loop: str, tls: ssl.SSLContext) -> None:
        async def work() -> None:
            pool = Pool()
            async with served(OK, tls=tls) as server:
                with pytest.raises(NotTrusted, match="certificate") as failure:
                    await ask(pool, server)
            error = connection_error(failure.value)
            assert isinstance(error, UpstreamError)
            assert "SSL_CERT_FILE" in error.message
            assert server.requests == []
            assert census(pool) == (0, 0)
            await pool.close()

        _on(loop, work())

    def test_a_server_that_speaks_no_tls(self, loop: str) -> None:
        async def work() -> None:
            pool = Pool()
            async with served(OK) as server:
                server.url = server.url.replace("http:", "https:")
                with pytest.raises(NotConnected) as failure:
                    await ask(pool, server, Patience(connect=0.3, silence=1, total=1))
            assert isinstance(connection_error(failure.value), ModelUnavailable)
            assert census(pool) == (0, 0)
            await pool.close()

        _on(loop, work())
