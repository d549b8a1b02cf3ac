"""HTTP/1.1 to models' servers: connections that are kept, answers parsed by httptools, and no more than that.

pool = Pool()
answer = await pool.request("POST", url, headers, body, patience=Patience(connect=5, silence=300, total=600))
while data := await answer.read_any():
    ...
answer.release()

A general client does for each piece of an answer what is needed once for all of it, and a token comes in a piece of its
own.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

from shared.lazy import lazy

if TYPE_CHECKING:
    import ssl

    import httptools
else:
    httptools = lazy("httptools")
    ssl = lazy("ssl")

IDLE_SECONDS = 30.0
"""How long a connection is kept for the next call."""
LONGEST_HEAD = 64 * 1024
MOST_UNREAD = 1024 * 1024
"""Bytes of an answer that wait to be read before its server has to."""
LAST_BYTES_SECONDS = 0.1
"""How long an answer that was read as far as it matters may take to end, for its connection to be kept."""
LATE = 0.1
"""Seconds of its own lateness from which this process does not call a server silent."""


class Failed(Exception):
    """No answer, or not all of it."""


class NotConnected(Failed):
    """The server cannot be reached."""


class NotTrusted(NotConnected):
    """Who answers there cannot show that it is the server."""


class NoAddress(Failed):
    """The URL or a header is none."""


class TimedOut(Failed):
    """The server said nothing for too long, or spoke for too long."""


class Broken(Failed):
    """The connection ended, or said what is not HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds."""

    connect: float
    silence: float
    """Between two pieces of an answer, and before the first."""
    total: float
    """From the call to the end of the answer."""


class Address(NamedTuple):
    host: str
    port: int
    is_tls: bool
    authority: str
    """For the Host header."""
    target: str


@lru_cache(maxsize=256)
def address_of(url: str) -> Address:
    """
    >>> address_of("https://x.example/v1/models?a=b")
    Address(host='x.example', port=443, is_tls=True, authority='x.example', target='/v1/models?a=b')

    Raises:
        NoAddress: it is not a URL that can be asked.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise NoAddress(str(exc)) from None
    is_text = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_text:
        raise NoAddress("The URL is none that can be asked.")  # unnamed: it may hold a password
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_tls = parts.scheme == "https"
    return Address(parts.hostname, port or (443 if is_tls else 80), is_tls, parts.netloc.rpartition("@")[2], target)


class Pool:
    """Connections of one event loop."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int, bool], list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, patience: Patience
    ) -> "Answer":
        """The answer, once its head is there; release it, however far it was read.

        Raises:
            Failed: there is none.
        """
        address = address_of(url)
        message = _message(method, address, headers, body)
        deadline = asyncio.get_running_loop().time() + patience.total
        connection = self._kept(address)
        if connection is not None:
            answer = connection.ask(message, patience, deadline)
            try:
                return await answer.begun()
            except Broken:
                if connection.has_heard or self._is_closed:
                    raise  # else its server had just let go of it: no answer was begun, so ask once more
        connection = await self._connect(address, patience.connect)
        return await connection.ask(message, patience, deadline).begun()

    async def close(self) -> None:
        """End every connection, those in use too, and those that are just being made."""
        self._is_closed = True
        for connection in list(self._open):
            connection.end()
        self._idle.clear()
        await asyncio.sleep(0)  # so that the transports hear of it while the loop still runs

    def add(self, connection: "_Connection") -> None:
        """It has been made."""
        self._open.add(connection)

    def keep(self, connection: "_Connection") -> None:
        """It is free for the next call."""
        self._idle.setdefault(connection.key, []).append(connection)

    def forget(self, connection: "_Connection") -> None:
        """It has ended."""
        self._open.discard(connection)
        kept = self._idle.get(connection.key)
        if kept and connection in kept:
            kept.remove(connection)

    def _kept(self, address: Address) -> "_Connection | None":
        kept = self._idle.get((address.host, address.port, address.is_tls))
        return kept.pop() if kept else None

    async def _connect(self, address: Address, seconds: float) -> "_Connection":
        connection = _Connection(self, (address.host, address.port, address.is_tls))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                await loop.create_connection(
                    lambda: connection, address.host, address.port, ssl=self._context() if address.is_tls else None
                )
        except (OSError, TimeoutError, UnicodeError) as exc:  # TLS errors are OSErrors; a host may be no name at all
            is_distrust = address.is_tls and isinstance(exc, ssl.SSLCertVerificationError)
            raise (NotTrusted if is_distrust else NotConnected)(str(exc) or type(exc).__name__) from exc
        except BaseException:
            connection.end()  # it may have been made in this very moment
            raise
        if self._is_closed:
            connection.end()
        return connection

    def _context(self) -> "ssl.SSLContext":
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _message(method: str, address: Address, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {address.target} HTTP/1.1", f"Host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    head = "".join(lines)
    if not head.isprintable() or not head.isascii():
        raise NoAddress("A header has characters that HTTP does not know.")  # a line break would begin another one
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


class Answer:
    """A server's answer, as far as it has come."""

    __slots__ = (
        "_connection",
        "_deadline",
        "_failure",
        "_last",
        "_loop",
        "_pieces",
        "_silence",
        "_timer",
        "_unread",
        "_waiter",
        "headers",
        "is_whole",
        "status",
    )

    def __init__(self, connection: "_Connection", patience: Patience, deadline: float) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By names in lower case."""
        self.is_whole = False
        self._connection: _Connection | None = connection
        self._silence = patience.silence
        self._pieces: list[bytes] = []
        self._unread = 0
        self._failure: Failed | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._deadline = deadline
        """Of the loop's time, as `_last` is."""
        self._timer = self._loop.call_at(self._due(), self._ring)

    @property
    def has_begun(self) -> bool:
        return self.status != 0

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def begun(self) -> "Answer":
        try:
            while not self.status:
                await self._more()
        except BaseException:
            self.release()
            raise
        return self

    async def read_any(self) -> bytes:
        """What has come since the last read; empty at the end.

        Raises:
            Failed: the rest of it will not come.
        """
        while not self._pieces:
            if self.is_whole:
                return b""
            await self._more()
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._unread > MOST_UNREAD:
            self.resume()
        self._unread = 0
        return data

    async def read(self, most: int) -> bytes:
        """The whole body; Broken when it is longer than that."""
        data = bytearray()
        while piece := await self.read_any():
            data += piece
            if len(data) > most:
                raise Broken(f"The answer is longer than {most} bytes.")
        return bytes(data)

    def pause(self) -> bool:
        """Let what comes wait in the kernel; False: nothing more comes."""
        return self._connection is not None and self._connection.pause()

    def resume(self) -> None:
        self._last = self._loop.time()
        if self._connection is not None:
            self._connection.resume()

    def expect_words_within(self, seconds: float) -> None:
        """From here on the answer counts as cut after so much silence."""
        if self._connection is None:
            return
        self._silence = seconds
        self._timer.cancel()
        self._timer = self._loop.call_at(self._due(), self._ring)

    def release(self, *, is_done: bool = False) -> None:
        """Nobody reads on. `is_done`: what matters was read; when the end comes soon, the connection is kept."""
        connection = self._connection
        if connection is None:
            return
        if is_done and self._failure is None:
            self._silence = LAST_BYTES_SECONDS
            self._deadline = self._loop.time() + LAST_BYTES_SECONDS
            self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._ring)
            connection.resume()
        else:
            connection.end()

    # from the connection

    def take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._unread += len(data)
        if self._unread > MOST_UNREAD and self._connection is not None:
            self._connection.pause()

    def wake(self) -> None:
        """Something has come."""
        self._last = self._loop.time()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self, failure: Failed | None = None) -> None:
        """Nothing more will come."""
        self._timer.cancel()
        self._connection = None
        self._failure = failure
        self.is_whole = failure is None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # how

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._connection is None and not self.is_whole:
            raise Broken("It was released.")
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self._failure is not None and not self._pieces:
            raise self._failure

    def _due(self) -> float:
        return min(self._deadline, self._last + self._silence)

    def _ring(self) -> None:
        """Set anew once in a silence's time, not with every piece."""
        connection, now, due = self._connection, self._loop.time(), self._due()
        if connection is None:
            return
        if now < self._deadline and (now - self._timer.when() > LATE or connection.is_paused):
            # It was this process that did not listen: what it said meanwhile has yet to be heard.
            self._last = now
            due = self._due()
        if due > now + 0.001:
            self._timer = self._loop.call_at(due, self._ring)
        else:
            connection.end(TimedOut("The server was silent for too long, or spoke for too long."))


class _Connection(asyncio.Protocol):
    """One connection; carries one answer after another."""

    def __init__(self, pool: Pool, key: tuple[str, int, bool]) -> None:
        self.key = key
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        """Of the present answer's body, as parsed and not yet given to it."""
        self.on_body = self._pieces.append  # servers send each token as a chunk of its own
        self._parser: Any = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._head: dict[str, str] = {}
        self._head_bytes = 0
        self.is_paused = False
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def has_heard(self) -> bool:
        """Whether anything of the present answer has come."""
        return self._head_bytes > 0

    def ask(self, message: bytes, patience: Patience, deadline: float) -> Answer:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self._answer = answer = Answer(self, patience, deadline)
        self._head, self._head_bytes = {}, 0
        if self._transport is None or self._transport.is_closing():
            self.end(Broken("The server closed the connection."))
        else:
            self._transport.write(message)
        return answer

    def end(self, failure: Failed | None = None) -> None:
        """Close it, whatever it is at."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close(failure or Broken("It was released."))
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._pool.forget(self)

    def pause(self) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if not self.is_paused:
            self.is_paused = True
            transport.pause_reading()
        return True

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
        self._pool.add(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.end()  # it speaks without having been asked
            return
        if not answer.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._give()
            self.end(Broken(f"It does not speak HTTP: {exc}"))
            return
        if not answer.status and self._head_bytes > LONGEST_HEAD:
            self.end(Broken("The head of the answer is too long."))
            return
        self._give()
        answer.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            ends_so = (
                exc is None
                and answer.has_begun
                and "content-length" not in answer.headers
                and "chunked" not in answer.headers.get("transfer-encoding", "").lower()
            )
            answer.close(None if ends_so else Broken(str(exc or "The server closed the connection.")))
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._transport = None
        self._pool.forget(self)

    def _give(self) -> None:
        """The answer gets what was parsed of its body."""
        if self._pieces:
            if self._answer is not None:
                self._answer.take(b"".join(self._pieces))
            self._pieces.clear()

    # the parser's side; `on_body` is set above

    def on_message_begin(self) -> None:
        if self._answer is None:
            self.end()  # behind the answer comes one that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None or self._answer.has_begun:
            return  # it follows the body
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        self._head[key] = f"{self._head[key]}, {text}" if key in self._head else text

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        if self._answer is not None and status >= 200:
            self._answer.headers = self._head
            self._answer.status = status

    def on_message_complete(self) -> None:
        self._give()
        answer = self._answer
        if answer is None or not answer.has_begun:
            self._head = {}  # 1xx: the answer itself follows
            return
        self._answer = None
        answer.close()
        transport = self._transport
        if transport is None or not self._parser.should_keep_alive() or transport.get_write_buffer_size():
            self.end()
            return
        self.resume()
        self._idle_timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.end)
        self._pool.keep(self)
