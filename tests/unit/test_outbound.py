"""Where a user's URL must not lead: by its address, by what its name resolves to, by a redirect."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from shared.errors import InvalidRequest
from shared.outbound import check_url, fetch, is_public


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "168.63.129.16"),
        *("0.0.0.0", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1"),
        *("::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1", "not an address", ""),
    ],
)
def test_no_address_of_a_network_of_ones_own_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://example.com/x", "gopher://example.com", "data:text/plain,x", "//example.com"),
        *("http://127.0.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/metadata", "http://0/"),
        *("http://user:pass@example.com/", "http://example.com:22/", "http://example.com:6379/", "http://"),
        *("http://exa mple.com/", "http://example.com/\r\nx: y", "http://[::1", "http://example.com\\@127.0.0.1/"),
    ],
)
def test_a_url_of_another_kind_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_url(url)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::1"], []])
async def test_a_name_that_resolves_to_ones_own_network_is_refused(addresses: list[str]) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    with pytest.raises(InvalidRequest):
        await fetch("http://rebind.example/", resolve=resolve)


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """A server that gives these answers in turn, and what it was asked."""
    asked: list[bytes] = []
    waiting = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(waiting.pop(0))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()
        await server.wait_closed()


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"] if host.endswith("good.example") else ["10.0.0.1"]


def only_loopback(address: str) -> bool:
    return address == "127.0.0.1"


async def test_a_redirect_is_checked_like_the_first_url() -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://evil.example/secret\r\ncontent-length: 0\r\n\r\n"
    async with answering(moved) as (port, _):
        with pytest.raises(InvalidRequest):
            await fetch(f"http://good.example:{port}/", resolve=loopback, allowed=only_loopback)


async def test_what_is_good_is_fetched_and_secrets_stay_with_their_host() -> None:
    ok = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"
    async with answering(ok) as (other, heard):
        place = f"http://also.good.example:{other}/x".encode()
        moved = b"HTTP/1.1 302 Found\r\nlocation: " + place + b"\r\ncontent-length: 0\r\n\r\n"
        async with answering(moved) as (port, asked):
            fetched = await fetch(
                f"http://good.example:{port}/",
                headers={"authorization": "secret"},
                resolve=loopback,
                allowed=only_loopback,
            )

    assert (fetched.status, fetched.body, fetched.content_type) == (200, b"hi", "text/plain")
    assert b"secret" in asked[0]
    assert b"secret" not in heard[0]


async def test_an_answer_that_never_ends_is_cut_off() -> None:
    long = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000
    async with answering(long) as (port, _):
        with pytest.raises(InvalidRequest, match="larger"):
            await fetch(f"http://good.example:{port}/", max_bytes=1000, resolve=loopback, allowed=only_loopback)


async def test_redirects_have_an_end() -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"
    async with answering(*[moved] * 9) as (port, asked):
        with pytest.raises(InvalidRequest, match="redirects"):
            await fetch(f"http://good.example:{port}/", resolve=loopback, allowed=only_loopback)

    assert len(asked) == 6
