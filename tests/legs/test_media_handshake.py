"""The media server up to the upgrade, with the module's own bytes: who is let in, and what the others are told."""

import asyncio

import pytest
from tests.support.module_peer import (
    CHANNEL,
    TARGET,
    RememberingMediaDoor,
    accept_of,
    handshake,
    media_bench,
    refusing,
)
from tests.support.switch_peer import eventually

from dueto.legs.media_server import HANDSHAKE_S
from dueto.wire.media import StreamRequest


async def test_the_modules_own_handshake_is_taken_though_its_colons_have_no_space() -> None:
    request = handshake()
    assert b"Host:127" in request
    assert b"Upgrade:websocket" in request
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(request)
        status, headers, _ = await peer.response()
        assert status == 101
        assert headers["sec-websocket-accept"] == accept_of(request)
        assert headers["upgrade"].lower() == "websocket"
        assert headers["connection"].lower() == "upgrade"
        await eventually(lambda: bool(door.legs), door.changed)
        leg = door.legs[0]
        assert leg.request == StreamRequest(CHANNEL, "office", "1001", 8000, "mono", "abc")
        assert leg.peer == "127.0.0.1"
        assert leg.dialect.name == "audio_stream-binary"


async def test_the_handshake_may_come_byte_by_byte() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        for byte in handshake():
            peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await peer.response())[0] == 101


async def test_deflate_is_declined() -> None:
    offer = "Sec-WebSocket-Extensions:permessage-deflate; client_no_context_takeover; client_max_window_bits=9"
    async with media_bench(RememberingMediaDoor()) as bench:
        peer = await bench.connect()
        peer.send(handshake(TARGET, offer))
        status, headers, _ = await peer.response()
        assert status == 101
        assert "sec-websocket-extensions" not in headers


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        ("audio.drachtio.org", "audio.drachtio.org"),
        ("chat, audio.drachtio.org", "audio.drachtio.org"),
        ("chat", None),
        ("not-audio.drachtio.organic", None),
        (None, None),
    ],
)
async def test_the_sub_protocol_is_agreed_to_only_if_offered(offer: str | None, agreed: str | None) -> None:
    async with media_bench(RememberingMediaDoor()) as bench:
        peer = await bench.connect()
        peer.send(handshake(TARGET, *([f"Sec-WebSocket-Protocol: {offer}"] if offer else [])))
        status, headers, _ = await peer.response()
        assert status == 101
        assert headers.get("sec-websocket-protocol") == agreed


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("127.0.0.1:8087", "ws://127.0.0.1:8087"),
        ("media.example.org", "ws://media.example.org"),
        ("evil.example/..;x", ""),
        ("a b", ""),
        ("user@host:80", ""),
        ("[::1]:8085", ""),
    ],
)
async def test_the_switchs_name_for_us_is_kept_only_if_it_is_a_plain_one(host: str, base_url: str) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake(host=host))
        assert (await peer.response())[0] == 101
        await eventually(lambda: bool(door.legs), door.changed)
        assert door.legs[0].base_url == base_url


@pytest.mark.parametrize(
    ("host", "names_port"), [("media.example.org", True), ("media.example.org:1", False), ("a b", False)]
)
async def test_a_module_that_leaves_the_port_out_of_our_name_came_to_this_one(host: str, names_port: bool) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake(TARGET, "Sec-WebSocket-Protocol: audio.drachtio.org", host=host))
        assert (await peer.response())[0] == 101
        await eventually(lambda: bool(door.legs), door.changed)
        plain = f"ws://{host}" if host != "a b" else ""
        assert door.legs[0].base_url == (f"{plain}:{bench.port}" if names_port else plain)


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        ("/", 404, "unknown_path"),
        ("/elsewhere?token=abc", 404, "unknown_path"),
        (f"/stream/office/{CHANNEL}", 404, "unknown_path"),
        (f"/stream/office/{CHANNEL}/1001/more", 404, "unknown_path"),
        (f"/stream/{'x' * 65}/{CHANNEL}/1001", 400, "bad_request"),
        (f"/stream/office/{CHANNEL}/10%0d%0a01", 400, "bad_request"),
        ("/stream/office/%2e%2e%2fetc/1001", 400, "bad_request"),
        (f"/stream/office/{CHANNEL}/1001?rate=11025", 400, "bad_request"),
        (f"/stream/office/{CHANNEL}/1001?rate=%C2%B2", 400, "bad_request"),
        (f"/stream/office/{CHANNEL}/1001?mix=everything", 400, "bad_request"),
        (f"/stream/office/{CHANNEL}/1001?{'a=b&' * 17}", 400, "bad_request"),
        (f"/stream/office/{CHANNEL}/1001?token={'x' * 4096}", 414, "bad_request"),
    ],
)
async def test_a_request_for_something_else_is_refused_before_the_door_is_asked(
    target: str, status: int, reason: str
) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake(target))
        assert (await peer.response())[0] == status
        assert await peer.ended() == b""
    assert (door.asked, door.legs) == ([], [])
    assert door.refusals == [("media", reason)]


@pytest.mark.parametrize(("reason", "status"), [("bad_token", 401), ("call_over", 410), ("full", 503), ("drains", 503)])
async def test_what_the_door_refuses_is_refused_before_the_upgrade(reason: str, status: int) -> None:
    door = refusing(reason, status)
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake())
        answered, headers, body = await peer.response()
        assert answered == status
        assert headers["connection"] == "close"
        assert "sec-websocket-accept" not in headers
        assert body == f"it is {reason}\n".encode()
        assert await peer.ended() == b""
    assert door.refusals == [("media", reason)]
    assert door.legs == []
    assert [request.token for request in door.asked] == ["abc"]


async def test_a_door_that_fails_tells_the_loop_and_not_the_network() -> None:
    door = RememberingMediaDoor(ValueError("the secret is 1234"))
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake())
        status, _, body = await peer.response()
        assert (status, body) == (500, b"internal error\n")
        assert await peer.ended() == b""
    assert failures == ["the secret is 1234"]


async def test_plain_http_is_told_so_and_the_door_is_not_asked() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await peer.response())[0] == 400
        assert await peer.ended() == b""
    assert (door.asked, door.legs) == ([], [])
    assert door.refusals == [("media", "bad_request")]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /stream HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /stream HTTP/1.0\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"connect\r\n\r\n",
        handshake().replace(b"Sec-WebSocket-Version:13", b"Sec-WebSocket-Version:6"),
        handshake().replace(b"Sec-WebSocket-Key:2kIdmd9VdQVEuJI3ANH3NQ==", b"Sec-WebSocket-Key:short"),
    ],
    ids=["post", "http 1.0", "tls", "event socket", "old version", "bad key"],
)
async def test_a_request_that_is_no_handshake_gets_400(request_bytes: bytes) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(request_bytes)
        assert (await peer.response())[0] == 400
        assert await peer.ended() == b""
    assert door.legs == []


async def test_an_oversized_header_ends_the_connection() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake()[:-2] + b"X-Long: " + b"x" * 20_000)  # and no end of it
        assert await peer.ended() == b""
    assert (door.asked, door.legs) == ([], [])


async def test_too_many_headers_are_refused() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake(TARGET, *(f"X-{number}: a" for number in range(130))))
        assert (await peer.response())[0] == 400
    assert door.legs == []


@pytest.mark.parametrize("sent", [b"", handshake()[:40]], ids=["nothing", "half"])
async def test_half_a_handshake_is_given_up_at_the_deadline(sent: bytes) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door, handshake_s=0.05) as bench:
        peer = await bench.connect()
        peer.send(sent)
        async with asyncio.timeout(HANDSHAKE_S - 1):  # not the default one
            assert await peer.ended() == b""
    assert (door.asked, door.legs) == ([], [])


async def test_a_stream_that_is_up_outlives_the_handshakes_deadline_and_the_listening() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door, handshake_s=0.4) as bench:
        peer = await bench.stream()
        late = await bench.connect()  # gives the deadline time to pass, whatever the machine does
        await late.ended()
        await bench.server.stop_listening()
        with pytest.raises(OSError, match=str(bench.port)):
            await bench.connect()
        door.legs[0].send_text("still here")
        assert (await peer.frame()).payload == b"still here"
