"""A provider's WebSocket: opened in time or refused with a reason, never waited for, closed within a second."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from tests.support.tls import client_context, server_context

from dueto.agents.link import HIGH_WATER_BYTES, MAX_MESSAGE_BYTES, MAX_WAITING_BYTES, Link, http_fault, open_link, plain
from dueto.errors import LocalProtocolError, ProviderFailed

pytestmark = pytest.mark.at_once

KEY = "sk-test-4f0c2f6e"


class Peer(WSListener):
    """The server's end of one connection."""

    def __init__(self) -> None:
        super().__init__()
        self.transport: WSTransport | None = None
        self.texts: list[bytes] = []
        self.pongs: list[bytes] = []
        self.changed = asyncio.Event()
        self.gone = asyncio.Event()
        self.answers_close = True

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.changed.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            if self.answers_close:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
        elif frame.msg_type == WSMsgType.PONG:
            self.pongs.append(frame.get_payload_as_bytes())
            self.changed.set()
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            self.texts.append(frame.get_payload_as_bytes())
            self.changed.set()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.gone.set()

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not met():
                self.changed.clear()
                await self.changed.wait()

    @property
    def wire(self) -> WSTransport:
        assert self.transport is not None
        return self.transport

    def send(self, kind: WSMsgType, data: bytes, **more: Any) -> None:
        self.wire.send(kind, data, **more)


class Asked:
    """What the server was asked."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.headers: dict[str, str] = {}
        self.path = ""
        self.url = ""


@contextlib.asynccontextmanager
async def server(
    refuse: tuple[int, bytes] | None = None, *, tls: bool = False, redirect_to: str = "", **options: Any
) -> AsyncIterator[Asked]:
    asked = Asked()

    def factory(request: WSUpgradeRequest) -> Any:
        asked.headers, asked.path = dict(request.headers), request.path.decode()
        if redirect_to:
            response = WSUpgradeResponse.create_redirect_response(307, redirect_to)
            return WSUpgradeResponseWithListener(response, None)
        if refuse is not None:
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(*refuse), None)
        return asked.peer

    listening = await ws_create_server(factory, "127.0.0.1", 0, ssl=server_context() if tls else None, **options)
    port = listening.sockets[0].getsockname()[1]
    asked.url = f"wss://localhost:{port}/v1/realtime?model=m" if tls else f"ws://127.0.0.1:{port}/v1/realtime?model=m"
    try:
        yield asked
    finally:
        listening.close()
        if asked.peer.transport is not None:
            asked.peer.wire.disconnect(graceful=False)
            async with asyncio.timeout(10):
                await asked.peer.gone.wait()


class Client:
    """What the link told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.failures: list[ProviderFailed] = []
        self.changed = asyncio.Event()

    def message(self, data: bytes) -> None:
        self.messages.append(data)
        self.changed.set()

    def closed(self, failure: ProviderFailed) -> None:
        self.failures.append(failure)
        self.changed.set()

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not met():
                self.changed.clear()
                await self.changed.wait()

    async def open(self, url: str, **options: Any) -> Link:
        return await open_link("Acme", url, self.message, self.closed, **options)


async def refused(url: str, **options: Any) -> ProviderFailed:
    with pytest.raises(ProviderFailed) as caught:
        await Client().open(url, **options)
    assert caught.value.__cause__ is None
    return caught.value


async def test_messages_pass_both_ways_over_tls_with_the_headers_that_were_given() -> None:
    client = Client()
    async with server(tls=True) as asked:
        link = await client.open(
            asked.url, headers={"Authorization": f"Bearer {KEY}"}, secrets=[KEY], ssl_context=client_context()
        )
        assert asked.headers["Authorization"] == f"Bearer {KEY}"
        assert asked.path == "/v1/realtime?model=m"
        link.send(b'{"type":"hello"}')
        link.send_audio(b'{"type":"audio"}')
        await asked.peer.until(lambda: len(asked.peer.texts) == 2)
        asked.peer.send(WSMsgType.TEXT, b"one")
        asked.peer.send(WSMsgType.BINARY, b"two")
        await client.until(lambda: len(client.messages) == 2)
        await link.aclose()
        await asyncio.wait_for(asked.peer.gone.wait(), 10)
    assert asked.peer.texts == [b'{"type":"hello"}', b'{"type":"audio"}']
    assert client.messages == [b"one", b"two"]
    assert client.failures == []


async def test_a_message_in_pieces_arrives_whole() -> None:
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url)
        asked.peer.send(WSMsgType.TEXT, b"o", fin=False)
        asked.peer.send(WSMsgType.CONTINUATION, b"n", fin=False)
        asked.peer.send(WSMsgType.CONTINUATION, b"e", fin=True)
        asked.peer.send(WSMsgType.TEXT, b"two")
        asked.peer.send(WSMsgType.BINARY, b"th", fin=False)
        asked.peer.send(WSMsgType.PING, b"between")
        asked.peer.send(WSMsgType.CONTINUATION, b"ree", fin=True)
        await client.until(lambda: len(client.messages) == 3)
        await link.aclose()
    assert client.messages == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, "refused"),
        (401, "auth"),
        (403, "auth"),
        (404, "model"),
        (408, "timeout"),
        (429, "quota"),
        (500, "refused"),
        (503, "refused"),
    ],
)
async def test_a_refused_upgrade_names_its_fault(status: int, fault: str) -> None:
    body = b'{"error":{"message":"Incorrect key: %b\\nX-Forged: yes","code":"c"}}' % KEY.encode()
    async with server((status, body)) as asked:
        failure = await refused(asked.url, headers={"Authorization": f"Bearer {KEY}"}, secrets=[KEY])
    assert failure.fault == fault
    assert f"HTTP {status}" in str(failure)
    assert KEY not in str(failure)
    assert str(failure).isprintable()


def test_what_a_provider_says_of_a_refusal_is_told_except_of_a_wrong_key() -> None:
    unknown = http_fault("Acme", 404, b'{"error":{"message":"The model `x` does not exist"}}')
    assert str(unknown) == "Acme knows no such address or model (HTTP 404: The model `x` does not exist)"
    wrong = http_fault("Acme", 401, b'{"error":{"message":"Incorrect API key provided: sk-ab***cd"}}')
    assert str(wrong) == "Acme does not accept the API key (HTTP 401)"
    page = http_fault("Acme", 500, b"<html>sorry</html>")
    assert str(page) == "Acme is out of order (HTTP 500)"
    list_of_it = http_fault("Acme", 499, b'{"detail":[{"message":"sk-1 is no field"}]}', ["sk-1"])
    assert str(list_of_it) == "Acme refuses (HTTP 499: *** is no field)"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":[]}', ""),
        (b"[]", ""),
        (b'{"error":{"more":1}}', ""),
        (b'{"error":{"error":{"error":{"error":"deep"}}}}', ": deep"),
        (b'{"error":{"error":{"error":{"error":{"error":"deeper"}}}}}', ""),
        (b"[" * 100_000, ""),
        (b'{"code":7}', ": 7"),
        (b'{"status":"FULL","code":7}', ": FULL"),
        (b'"sk-1"', ": ***"),
    ],
)
def test_any_body_of_a_refusal_is_told_or_passed_over(body: bytes, said: str) -> None:
    assert str(http_fault("Acme", 499, body, ["sk-1"])) == f"Acme refuses (HTTP 499{said})"


def test_outside_text_becomes_one_short_line_without_secrets() -> None:
    assert plain("a\r\nb\x00 c\u202ed", ["", "c"]) == "a b *** d"
    assert plain("x" * 200) == "x" * 200
    assert len(plain("x" * 201)) == 203


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with server() as elsewhere, server(redirect_to=elsewhere.url) as asked:
        failure = await refused(asked.url, headers={"Authorization": f"Bearer {KEY}"})
    assert failure.fault == "refused"
    assert elsewhere.headers == {}


async def test_a_certificate_that_nobody_trusts_is_refused() -> None:
    async with server(tls=True) as asked:
        failure = await refused(asked.url)
    assert failure.fault == "refused"
    assert "certificate is not trusted" in str(failure)


async def test_nobody_there_is_a_refusal() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failure = await refused(f"ws://127.0.0.1:{taken.getsockname()[1]}/")
    assert failure.fault == "refused"
    assert str(failure) == "Acme can't be reached: Connection refused"
    assert "isn't a valid URL" not in str(await refused(f"http://127.0.0.1/?key={KEY}"))


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@contextlib.asynccontextmanager
async def raw_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server of bytes; at the end every connection to it must be over."""
    over: list[asyncio.Event] = []

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.Event())
        with contextlib.suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        over[-1].set()

    async with await asyncio.start_server(handled, "127.0.0.1", 0) as listening:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(10):
            for one in over:
                await one.wait()


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    async with raw_server(silent) as url:
        failure = await refused(url, connect_s=0.05)
    assert failure.fault == "timeout"
    assert str(failure) == "Acme did not answer within 0.05 s"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Pro"], ids=["nothing", "half"])
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_server_that_hangs_up_before_the_upgrade_is_a_lost_connection(answer: bytes, how: str) -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async with raw_server(hangs_up) as url:
        failure = await refused(url)
    assert (failure.fault, str(failure)) == ("dropped", "the connection to Acme broke")


async def test_an_address_of_a_kind_that_this_machine_has_not_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, client = asyncio.get_running_loop(), Client()
    no_such_family = 63
    async with server() as asked:
        port = int(asked.url.split(":")[2].split("/")[0])

        async def addresses(host: str, port: int, **more: Any) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
            stream = socket.SOCK_STREAM
            return [
                (no_such_family, stream, 6, "", ("::1", port, 0, 0)),
                (socket.AF_INET, stream, 6, "", ("127.0.0.1", port)),
            ]

        monkeypatch.setattr(loop, "getaddrinfo", addresses)
        link = await client.open(f"ws://both.example:{port}/")
        await link.aclose()


async def test_a_server_that_speaks_no_websocket_broke_the_protocol() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail ready\r\n\r\n")
        await silent(reader, writer)

    async with raw_server(other) as url:
        failure = await refused(url)
    assert failure.fault == "protocol"


def upgraded(request: bytes) -> bytes:
    """Answer an upgrade."""
    key = next(line.split(b": ")[1] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


async def test_a_connect_that_is_cancelled_leaves_no_connection() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await cancelled.wait()
        writer.write(upgraded(request))
        await reader.read()

    async with raw_server(slow) as url:
        opening = asyncio.ensure_future(Client().open(url))
        await asyncio.wait_for(asked.wait(), 10)
        opening.cancel()
        await asyncio.wait({opening})
        cancelled.set()


async def test_a_header_that_holds_a_lines_end_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        await Client().open("ws://127.0.0.1:1/", headers={"api-key": f"{KEY}\r\nHost: other"})
    assert KEY not in str(caught.value)


async def test_the_peers_close_is_told_with_its_reason_and_once() -> None:
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url, secrets=[KEY])
        asked.peer.wire.send_close(1008, b"session of %b\nexpired" % KEY.encode())  # type: ignore[arg-type]
        await client.until(lambda: bool(client.failures))
        await asyncio.wait_for(asked.peer.gone.wait(), 10)
        await link.aclose()
        await link.aclose()
        link.send(b"nothing")
        link.send_audio(b"nothing")
    assert [str(one) for one in client.failures] == ["Acme closed the connection (1008: session of *** expired)"]
    assert (link.close_code, link.close_reason, client.failures[0].fault) == (1008, "session of *** expired", "dropped")


def masked_frame(data: bytes) -> tuple[int, bytes, bytes]:
    """Read one short frame of a client: its first byte, its payload, and what comes after it."""
    size, mask = data[1] & 0x7F, data[2:6]
    return data[0], bytes(byte ^ mask[at % 4] for at, byte in enumerate(data[6 : 6 + size])), data[6 + size :]


@pytest.mark.parametrize(
    ("said", "answered", "told"),
    [
        (b"\x03\xf0bye", b"\x03\xf0", "Acme closed the connection (1008: bye)"),
        (b"\x0f\xa0", b"\x0f\xa0", "Acme closed the connection (4000)"),
        (b"", b"\x03\xe8", "Acme closed the connection (1005)"),
    ],
)
@pytest.mark.parametrize("twice", [False, True])
async def test_a_close_is_answered_with_its_code_and_tcp_ends_at_once(
    said: bytes, answered: bytes, told: str, twice: bool
) -> None:
    client = Client()
    answers: list[bytes] = []
    at_once = asyncio.Event()

    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        close = bytes((0x88, len(said))) + said
        after = close if twice else b"\x81\x04late"
        writer.write(upgraded(await reader.readuntil(b"\r\n\r\n")) + b"\x81\x02hi" + close + after)
        answers.append(await reader.read())
        at_once.set()

    async with raw_server(closes) as url:
        link = await client.open(url)
        await client.until(lambda: bool(client.failures))
        link.send(b"nothing")
        link.send_audio(b"nothing")
        await asyncio.wait_for(at_once.wait(), 10)
        await link.aclose()
    assert [str(one) for one in client.failures] == [told]
    assert client.messages == [b"hi"]
    opcode, payload, rest = masked_frame(answers[0])
    assert (opcode, rest) == (0x88, b"")
    assert payload == answered or (twice and payload[:2] == b"\x03\xea")


async def test_a_peer_that_closes_and_does_not_read_is_left_all_the_same() -> None:
    client = Client()
    stopped, over = asyncio.Event(), asyncio.Event()

    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgraded(await reader.readuntil(b"\r\n\r\n")))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stopped.wait()
        writer.write(b"\x88\x02\x03\xe8")
        await over.wait()

    async with raw_server(closes) as url:
        link = await client.open(url)
        for _ in range(64):  # more than the two kernels take
            link.send(b"x" * 16000)
        stopped.set()
        await client.until(lambda: bool(client.failures))
        await asyncio.wait_for(asyncio.shield(link._gone), 10)
        over.set()
    assert str(client.failures[0]) == "Acme closed the connection (1000)"


async def test_closing_leaves_a_peer_that_does_not_read() -> None:
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url)
        await asked.peer.until(lambda: asked.peer.transport is not None)
        asked.peer.wire.underlying_transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):  # more than the two kernels take
            link.send(b"x" * 16000)
        await link.aclose()
        await asyncio.wait_for(asyncio.shield(link._gone), 10)
    assert client.failures == []


async def test_the_first_of_two_failures_is_the_one_that_is_told() -> None:
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url)
        for fault in ("quota", "timeout"):
            link.fail(ProviderFailed(fault, f"of {fault}"))  # type: ignore[arg-type]
        await client.until(lambda: bool(client.failures))
        await link.aclose()
    assert [(one.fault, str(one)) for one in client.failures] == [("quota", "of quota")]


async def test_our_close_says_1000_and_ends_as_soon_as_it_is_answered_with_nothing_heard_meanwhile() -> None:
    client = Client()
    closes: list[bytes] = []

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgraded(await reader.readuntil(b"\r\n\r\n")))
        closes.append(await reader.readexactly(8))
        writer.write(b"\x81\x04late" + b"\x88\x02\x03\xe8")
        closes.append(await reader.read())

    async with raw_server(answers) as url:
        link = await client.open(url)
        await link.aclose()
        assert link._gone.done()  # not given up on
    assert masked_frame(closes[0]) == (0x88, b"\x03\xe8", b"")
    assert closes[1:] == [b""]
    assert (client.messages, client.failures) == ([], [])


async def test_what_a_close_means_is_told_in_the_providers_own_words() -> None:
    def meaning(code: int, reason: str) -> ProviderFailed | None:
        return ProviderFailed("quota", f"no money: {reason}") if code == 4001 else None

    for code, fault, text in (
        (4001, "quota", "no money: pay"),
        (4002, "dropped", "Acme closed the connection (4002: pay)"),
    ):
        client = Client()
        async with server() as asked:
            link = await client.open(asked.url, meaning=meaning)
            asked.peer.wire.send_close(code, b"pay")  # type: ignore[arg-type]
            await client.until(lambda: bool(client.failures))  # noqa: B023
            await link.aclose()
        assert [(one.fault, str(one)) for one in client.failures] == [(fault, text)]


async def test_a_host_without_an_address_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def addresses(host: str, port: int, **more: Any) -> list[Any]:
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
    failure = await refused("ws://nowhere.example/")
    assert (failure.fault, str(failure)) == ("refused", "Acme can't be reached: it has no address")


async def test_a_broken_connection_is_told() -> None:
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url)
        asked.peer.wire.disconnect(graceful=False)
        await client.until(lambda: bool(client.failures))
    assert client.failures[0].fault == "dropped"
    assert (link.closed, link.close_code, link.close_reason) == (True, 0, "")


@pytest.mark.parametrize(
    "pieces",
    [
        [(WSMsgType.CONTINUATION, b"x", {})],
        [(WSMsgType.TEXT, b"x", {"fin": False}), (WSMsgType.TEXT, b"y", {})],
        [(WSMsgType.TEXT, b"x", {"rsv1": True})],
        [(WSMsgType.TEXT, b"x", {"rsv2": True})],
        [(WSMsgType.TEXT, b"x", {"rsv3": True})],
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_cut_off(
    pieces: list[tuple[WSMsgType, bytes, dict[str, Any]]],
) -> None:
    client = Client()
    async with server() as asked:
        await client.open(asked.url)
        for kind, data, more in pieces:
            asked.peer.send(kind, data, **more)
        await client.until(lambda: bool(client.failures))
    assert client.failures[0].fault == "protocol"
    assert client.messages == []


async def test_a_fault_that_picows_finds_is_told_once_and_not_to_the_loop() -> None:
    complaints: list[str] = []
    client = Client()

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgraded(await reader.readuntil(b"\r\n\r\n")) + b"\x83\x00")  # no opcode of RFC 6455
        await reader.read()

    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    try:
        async with raw_server(breaks) as url:
            link = await client.open(url)
            await client.until(lambda: bool(client.failures))
            await link.aclose()
        assert [one.fault for one in client.failures] == ["protocol"]
        del link
        client = Client()
        gc.collect()  # futures complain when they go
    finally:
        loop.set_exception_handler(before)
    assert complaints == []


async def test_pings_are_answered_but_not_kept_for_a_peer_that_does_not_read() -> None:
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url)
        await asked.peer.until(lambda: asked.peer.transport is not None)
        asked.peer.send(WSMsgType.PING, b"one")
        await asked.peer.until(lambda: asked.peer.pongs == [b"one"])
        asked.peer.wire.underlying_transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):  # more than the two kernels take
            link.send(b"x" * 16000)
        for _ in range(2000):
            asked.peer.send(WSMsgType.PING, b"x" * 125)
        asked.peer.send(WSMsgType.TEXT, b"after")
        await client.until(lambda: client.messages == [b"after"])
        assert link._transport is not None
        assert link._transport.underlying_transport.get_write_buffer_size() < HIGH_WATER_BYTES + 50_000
        await link.aclose()


async def test_a_message_in_pieces_may_be_no_longer_than_one_in_one() -> None:
    client, half = Client(), bytes(MAX_MESSAGE_BYTES // 2)
    async with server() as asked:
        await client.open(asked.url)
        for last in (b"", b"x"):
            asked.peer.send(WSMsgType.BINARY, half, fin=False)
            asked.peer.send(WSMsgType.CONTINUATION, half, fin=False)
            asked.peer.send(WSMsgType.CONTINUATION, last)
        await client.until(lambda: bool(client.failures))
    assert [len(message) for message in client.messages] == [MAX_MESSAGE_BYTES]
    assert client.failures[0].fault == "protocol"


async def test_a_peer_that_answers_no_ping_is_given_up() -> None:
    client = Client()
    async with server() as asked:
        await client.open(asked.url, ping_s=0.05)
        await asked.peer.until(lambda: asked.peer.transport is not None)
        asked.peer.wire.underlying_transport.pause_reading()  # type: ignore[attr-defined]
        await client.until(lambda: bool(client.failures))
    assert client.failures[0].fault == "timeout"
    assert str(client.failures[0]) == "Acme answered no ping for 0 s"


async def test_a_callback_that_raises_ends_the_link_as_a_broken_protocol(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()

    def raises(data: bytes) -> None:
        raise ValueError("bug")

    async with server() as asked:
        await open_link("Acme", asked.url, raises, client.closed)
        asked.peer.send(WSMsgType.TEXT, b"x")
        await client.until(lambda: bool(client.failures))
    assert client.failures[0].fault == "protocol"


async def test_closing_takes_no_longer_than_a_second_of_a_peer_that_does_not_answer() -> None:
    client = Client()
    async with server() as asked:
        asked.peer.answers_close = False
        link = await client.open(asked.url)
        async with asyncio.timeout(10):
            closing = asyncio.ensure_future(link.aclose())
            await asyncio.sleep(0)
            link.send(b"nothing after CLOSE")
            link.send_audio(b"nothing after CLOSE")
            await closing
            await asked.peer.gone.wait()
    assert asked.peer.texts == []
    assert client.failures == []


@pytest.mark.parametrize("tls", [False, True])
async def test_a_provider_that_does_not_read_loses_the_oldest_audio_and_nothing_else(tls: bool) -> None:
    client = Client()
    async with server(tls=tls, read_buffer_init_size=2048) as asked:
        link = await client.open(asked.url, ssl_context=client_context(), late_audio_ms=400)
        await asked.peer.until(lambda: asked.peer.transport is not None)
        asked.peer.wire.underlying_transport.pause_reading()  # type: ignore[attr-defined]
        frame = b"A" * 16000
        sent = 0
        while link.dropped_ms < 1000:
            link.send_audio(b"%08d" % sent + frame)
            link.send(b"control %d" % sent)
            sent += 1
            assert sent < 5000
        asked.peer.wire.underlying_transport.resume_reading()  # type: ignore[attr-defined]
        last = b"control %d" % (sent - 1)
        await asked.peer.until(lambda: last in asked.peer.texts)
        await link.aclose()
    controls = [text for text in asked.peer.texts if text.startswith(b"control")]
    audio = [int(text[:8]) for text in asked.peer.texts if not text.startswith(b"control")]
    assert controls == [b"control %d" % number for number in range(sent)]
    assert len(audio) == sent - 50
    assert audio == sorted(audio)
    assert audio[-20:] == list(range(sent - 20, sent))
    assert client.failures == []


async def test_a_provider_that_reads_nothing_at_all_is_given_up() -> None:
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url)
        await asked.peer.until(lambda: asked.peer.transport is not None)
        asked.peer.wire.underlying_transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(2000):
            link.send(b"x" * 16000)
        await client.until(lambda: bool(client.failures))
    assert client.failures[0].fault == "timeout"


class Wire:
    """picows' transport, with room for so many messages."""

    def __init__(self, link: Link) -> None:
        self.sent: list[bytes] = []
        self.room = 0
        self.gone = False
        self.underlying_transport = self
        self._link = link

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def send(self, kind: WSMsgType, message: bytes) -> None:
        self.sent.append(message)
        self.room -= 1
        if not self.room:
            self._link.pause_writing()

    def disconnect(self, graceful: bool = True) -> None:
        self.gone = True


async def test_what_waits_counts_until_it_is_sent_and_goes_out_as_there_is_room() -> None:
    client = Client()
    link = Link("Acme", client.message, client.closed, late_audio_ms=100)
    wire: Any = Wire(link)
    link.on_ws_connected(wire)
    link.pause_writing()
    frames = [b"%d" % number for number in range(5)]  # 100 ms
    half = b"x" * (MAX_WAITING_BYTES // 2)
    for _ in range(3):  # more in all than may wait at a time
        wire.sent.clear()
        link.send(half)
        for frame in frames:
            link.send_audio(frame)
        wire.room = 4
        link.resume_writing()
        assert wire.sent == [half, *frames[:3]]
        wire.room = 2
        link.resume_writing()
        assert wire.sent == [half, *frames]
    wire.room = 3
    link.resume_writing()
    link.send_audio(b"at once")
    link.send(b"too")
    assert wire.sent[-2:] == [b"at once", b"too"]
    link.pause_writing()
    assert link.dropped_ms == 0
    wire.sent.clear()
    for message in (half, half[5:], *frames):
        (link.send_audio if len(message) == 1 else link.send)(message)
    link.send_audio(b"5")
    assert (link.dropped_ms, link.closed) == (20, False)
    link.send(b"more than may wait")
    assert (link.closed, wire.gone) == (True, True)
    wire.room = 100
    link.resume_writing()
    link.send_audio(b"too late")
    assert wire.sent == []


async def test_no_key_is_logged_even_at_the_lowest_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    logging.getLogger("picows").setLevel(1)
    client = Client()
    async with server() as asked:
        link = await client.open(asked.url, headers={"Authorization": f"Bearer {KEY}"})
        await link.aclose()
    logging.getLogger("picows").setLevel(logging.NOTSET)
    ours = [record for record in caplog.records if record.name.startswith("dueto")]
    assert not [record for record in ours if KEY in record.getMessage()]


def test_the_contexts_verify() -> None:
    from dueto.agents.link import trusted

    assert trusted().verify_mode is ssl.CERT_REQUIRED
    assert trusted().check_hostname
    assert trusted() is trusted()
