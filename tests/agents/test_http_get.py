"""One small request: every way a server may answer it, and every way it may not."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
from tests.support.tls import client_context, server_context

from dueto.agents.http_get import http_get
from dueto.errors import ProviderFailed

KEY = "sk_a-secret"


class Answering:
    """A server that answers each request with the same bytes, and keeps what it was asked."""

    def __init__(self, answer: bytes, *, closes: bool = True) -> None:
        self.asked = b""
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._answer = answer
        self._closes = closes

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            await writer.drain()
            if not self._closes:
                await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def answering(
    answer: bytes, *, closes: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Answering]:
    one = Answering(answer, closes=closes)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(15):
            yield one
    finally:
        server.close()
        for writer in one.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def get(one: Answering, *, deadline_s: float = 5.0, path: str = "/v1/url?agent_id=a%20b") -> bytes:
    url = f"http://127.0.0.1:{one.port}{path}"
    return await http_get("Acme", url, {"xi-api-key": KEY}, secrets=(KEY,), deadline_s=deadline_s)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{'a':1}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{'a\r\n4;x=y\r\n':1}\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{'a':1}",
    ],
)
async def test_a_body_is_read_however_its_length_is_told(answer: bytes) -> None:
    async with answering(answer) as one:
        assert await get(one) == b"{'a':1}"
        first, *headers = one.asked.decode().split("\r\n")
        assert first == "GET /v1/url?agent_id=a%20b HTTP/1.1"
        assert f"Host: 127.0.0.1:{one.port}" in headers
        assert f"xi-api-key: {KEY}" in headers


@pytest.mark.parametrize(
    ("answer", "fault", "text"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nsk_a-secret!", "auth", "HTTP 401"),
        (b'HTTP/1.1 404 Not Found\r\n\r\n{"detail":{"message":"no agent"}}', "model", "no agent"),
        (b'HTTP/1.1 429 Slow\r\n\r\n{"detail":{"message":"sk_a-secret is busy"}}', "quota", "*** is busy"),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "refused", "out of order"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", "refused", "HTTP 302"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "protocol", "did not answer as an HTTP server"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "protocol", "did not answer as an HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "protocol", "did not answer as an HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc", "protocol", "did not answer as an HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "protocol", "did not answer as an HTTP server"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", "protocol", "did not answer as an HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "protocol", "did not answer as an HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "protocol", "did not answer as an HTTP"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 70_000, "protocol", "did not answer as an HTTP"),
        (b"", "protocol", "did not answer as an HTTP"),
    ],
)
async def test_any_other_answer_is_a_failure_in_one_sentence(answer: bytes, fault: str, text: str) -> None:
    async with answering(answer) as one:
        with pytest.raises(ProviderFailed) as caught:
            await get(one)
        assert caught.value.fault == fault
        assert text in str(caught.value)
        assert KEY not in str(caught.value)
        assert "agent_id" not in str(caught.value)


async def test_a_server_that_is_silent_is_not_waited_for() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n", closes=False) as one:
        with pytest.raises(ProviderFailed, match=r"did not answer within 0\.1 s") as caught:
            await get(one, deadline_s=0.1)
        assert caught.value.fault == "timeout"


async def test_nobody_there() -> None:
    one = Answering(b"")
    async with answering(b"") as other:
        one.port = other.port
    with pytest.raises(ProviderFailed, match="can't be reached") as caught:
        await get(one)
    assert caught.value.fault == "refused"


async def test_only_a_certificate_that_is_trusted_will_do() -> None:
    async with answering(b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", tls=server_context()) as one:
        url = f"https://localhost:{one.port}/"
        with pytest.raises(ProviderFailed, match="no TLS with it"):
            await http_get("Acme", url, {})
        with pytest.raises(ProviderFailed, match="HTTP 204"):
            await http_get("Acme", url, {}, ssl_context=client_context())


@pytest.mark.parametrize("path", ["/x\r\nX-Forged: y", "/x y\x00", "/\u00e4"])
async def test_nothing_from_outside_becomes_a_header(path: str) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as one:
        with pytest.raises(ProviderFailed):
            await get(one, path=path)
        assert b"Forged" not in one.asked
