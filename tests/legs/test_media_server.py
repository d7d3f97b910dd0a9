"""The media server after the upgrade: frames, their faults, back-pressure, and the end. Real sockets."""

import asyncio
import gc
import socket
import struct
import weakref
from typing import Any

import pytest
from tests.support.module_peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    MediaBench,
    ModulePeer,
    RememberingMediaDoor,
    frame,
    handshake,
    media_bench,
    recorded_frames,
)

from dueto.legs.media_server import MAX_MESSAGE_BYTES, SEND_BUFFER_BYTES, UNREAD_AUDIO_BYTES, UNREAD_TEXT_BYTES
from dueto.legs.ports import DEAF, MediaLeg
from dueto.wire.media import AUDIO_STREAM, AUDIO_STREAM_BASE64, Dialect


def unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """Read masked frames the plain way: opcode and payload."""
    found = []
    while data:
        size, at = data[1] & 0x7F, 2
        if size == 126:
            (size,), at = struct.unpack("!H", data[2:4]), 4
        mask, payload = data[at : at + 4], data[at + 4 : at + 4 + size]
        found.append((data[0] & 0xF, bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))))
        data = data[at + 4 + size :]
    return found


async def started(bench: MediaBench, door: RememberingMediaDoor) -> tuple[ModulePeer, MediaLeg]:
    peer = await bench.stream()
    return peer, door.legs[0]


# -- up


async def test_a_recorded_stream_arrives_whole_its_pings_are_answered_and_its_close_too() -> None:
    door = RememberingMediaDoor()
    sent = unmasked(b"".join(recorded_frames()))
    async with media_bench(door) as bench:
        peer = await bench.stream()
        for data in recorded_frames():
            peer.send(data)
        assert await peer.frame() == Frame(PONG, b"ping")
        assert await peer.frame() == Frame(PONG, b"ping")
        closing = await peer.frame()
        assert (closing.opcode, closing.code) == (CLOSE, 1000)
        assert await peer.ended() == b""
        assert await door.until_ended() == (1000, "Normal closure")
    assert door.audio == [payload for opcode, payload in sent if opcode == BINARY]
    assert len(door.audio) >= 13
    assert {len(message) for message in door.audio} == {320}
    assert door.refusals == []


async def test_frames_may_come_glued_to_the_handshake_and_byte_by_byte() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.connect()
        peer.send(handshake(), frame(BINARY, b"\1\2" * 160), frame(TEXT, b"{}"))
        await peer.response()
        for byte in frame(BINARY, b"\3\4" * 160):
            peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        await door.until_heard(3)
    assert door.heard[:3] == [b"\1\2" * 160, "{}", b"\3\4" * 160]


async def test_fragments_are_one_message_and_control_frames_may_come_between() -> None:
    door = RememberingMediaDoor()
    text = "grüße"
    halves = text.encode()[:3], text.encode()[3:]  # in the middle of a character
    async with media_bench(door) as bench:
        peer = await bench.stream()
        peer.send(frame(BINARY, b"ab", fin=False), frame(0, b"cd", fin=False), frame(0, b"ef"))
        peer.send(frame(TEXT, halves[0], fin=False), frame(PING, b"!"), frame(PONG), frame(0, halves[1]))
        assert (await peer.frame()).payload == b"!"
        await door.until_heard(2)
    assert door.heard[:2] == [b"abcdef", text]


async def test_a_message_of_a_frames_size_is_counted_and_taken_and_any_other_is_a_message() -> None:
    taken: list[bytes] = []

    class Framed(RememberingMediaDoor):
        def take(self, frame: bytes) -> None:
            taken.append(frame)

    door = Framed(frame_bytes=320)
    async with media_bench(door) as bench:
        peer = await bench.stream()
        peer.send(frame(BINARY, b"a" * 320), frame(BINARY, b"b" * 319), frame(BINARY, b"c" * 640))
        peer.send(frame(BINARY, b"d" * 200, fin=False), frame(0, b"d" * 120), frame(BINARY, b"e" * 320), frame(BINARY))
        await door.until_heard(4)
        assert taken == [b"a" * 320, b"e" * 320]
        assert door.frames == 2
        assert door.heard == [b"b" * 319, b"c" * 640, b"d" * 320, b""]


async def test_an_empty_message_is_a_message() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream()
        peer.send(frame(TEXT), frame(BINARY), frame(TEXT, b"after"))
        await door.until_heard(3)
    assert door.heard[:3] == ["", b"", "after"]


# -- faults


LONG = b"x" * 40_000
FAULTS: list[tuple[str, bytes, int]] = [
    ("a continuation of nothing", frame(0, b"x"), 1002),
    ("a new message within one", frame(BINARY, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    ("a whole message within one", frame(TEXT, b"x", fin=False) + frame(BINARY, b"y"), 1002),
    ("reserved bit 1", frame(BINARY, b"x", bits=4), 1002),
    ("reserved bit 2", frame(BINARY, b"x", bits=2), 1002),
    ("reserved bit 3", frame(TEXT, b"x", bits=1), 1002),
    ("text that is no UTF-8", frame(TEXT, b"ab\xff"), 1007),
    ("fragments that are no UTF-8", frame(TEXT, b"\xc3", fin=False) + frame(0, b"x"), 1007),
    ("a message too long, in pieces", frame(BINARY, LONG, fin=False) + frame(0, LONG), 1009),
    ("a message too long, without end", frame(TEXT, LONG, fin=False) + frame(0, LONG, fin=False), 1009),
    ("a frame too long", frame(BINARY, b"x" * (MAX_MESSAGE_BYTES + 1))[:2000], 1009),
    ("an unknown opcode", frame(3, b"x"), 1002),
    ("a frame without a mask", frame(BINARY, b"x" * 20, masked=False), 1002),
    ("a PING in pieces", frame(PING, b"x", fin=False), 1002),
    ("a PING too long", frame(PING, b"x" * 126), 1002),
    ("a CLOSE of one byte", frame(CLOSE, b"\3"), 1002),
    ("a CLOSE with a code that is none", frame(CLOSE, struct.pack("!H", 999)), 1002),
]


@pytest.mark.parametrize(("fault", "code"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
async def test_what_the_protocol_forbids_ends_the_stream_with_its_code(fault: bytes, code: int) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream()
        peer.send(frame(BINARY, b"before"))
        await door.until_heard(1)
        peer.send(fault)
        closing = await peer.frame()
        assert (closing.opcode, closing.code) == (CLOSE, code)
        peer.send(frame(BINARY, b"after"), frame(CLOSE, closing.payload))
        await peer.ended()
        assert (await door.until_ended())[0] == code
    assert door.audio == [b"before"]
    assert len(door.ends) == 1
    assert door.refusals == [("media", "protocol_error")]
    assert door.legs[0].closed


async def test_the_longest_message_still_passes_in_one_piece_and_in_many() -> None:
    door = RememberingMediaDoor()
    message = bytes(range(256)) * (MAX_MESSAGE_BYTES // 256)
    async with media_bench(door) as bench:
        peer = await bench.stream()
        peer.send(frame(BINARY, message), frame(BINARY, message[:1000], fin=False))
        peer.send(*(frame(0, message[at : at + 1000], fin=False) for at in range(1000, len(message), 1000)), frame(0))
        await door.until_heard(2)
    assert door.audio == [message, message]


async def test_a_sink_that_fails_ends_its_stream_and_no_other() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        healthy = await bench.stream()

        class Broken(RememberingMediaDoor):
            def message(self, data: bytes) -> None:
                raise ValueError("a bug")

        broken = Broken()
        leg.attach(broken)
        leg.listener = broken
        peer.send(frame(BINARY, b"x"))
        assert (await peer.frame()).code == 1011
        await peer.ended()
        assert (await broken.until_ended())[0] == 1011
        healthy.send(frame(TEXT, b"well"))
        await door.until_heard(1)
    assert door.heard[0] == "well"
    assert door.refusals == []


# -- the end


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4001])
async def test_close_is_answered_with_its_code_and_tcp_ends_at_once(code: int) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream()
        peer.send(frame(BINARY, b"x"), frame(CLOSE, struct.pack("!H", code) + "schön".encode()), frame(BINARY, b"late"))
        closing = await peer.frame()
        assert (closing.opcode, closing.code) == (CLOSE, code)
        assert await peer.ended() == b""
        assert await door.until_ended() == (code, "schön")
    assert door.heard == [b"x", (code, "schön")]


async def test_an_empty_close_is_answered_with_1000() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream()
        peer.send(frame(CLOSE))
        closing = await peer.frame()
        assert (closing.opcode, closing.payload) == (CLOSE, struct.pack("!H", 1000))
        assert await peer.ended() == b""
        assert await door.until_ended() == (1005, "")


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_connection_lost_without_a_close_is_1006_exactly_once(how: str) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        getattr(peer, how)()
        assert await door.until_ended() == (1006, "connection lost without a CLOSE")
        assert leg.closed
        leg.close()
        leg.send_audio(b"x")
        leg.send_text("x")
        assert leg.backlog_bytes() == 0
    assert len(door.heard) == 1
    assert door.refusals == []


async def test_our_close_tells_code_and_reason_and_waits_for_the_answer() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        leg.close(4001, "server done")
        assert leg.closed
        leg.close(1000, "twice is once")
        leg.send_audio(b"nothing after CLOSE")
        closing = await peer.frame()
        assert (closing.opcode, closing.code, closing.payload[2:]) == (CLOSE, 4001, b"server done")
        peer.send(frame(BINARY, b"x" * 640), frame(TEXT, b"too late"), frame(CLOSE, closing.payload))
        assert await peer.ended() == b""
        assert await door.until_ended() == (4001, "server done")
    assert door.heard == [(4001, "server done")]


async def test_a_switch_that_does_not_answer_our_close_is_left() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        leg.close(1000, "ü" * 200)
        closing = await peer.frame()
        assert closing.code == 1000
        assert closing.payload[2:].decode() == "ü" * 61  # a CLOSE holds 123 bytes of text
        assert await peer.ended() == b""
        assert (await door.until_ended())[0] == 1000


async def test_a_switch_that_does_not_answer_our_close_and_left_audio_unread_is_left_too() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream(receive_buffer_bytes=8192)
        leg = door.legs[0]
        peer.stop_reading()
        for _ in range(10):
            leg.send_audio(b"\0" * 64_000)
        leg.close()
        async with asyncio.timeout(10):
            assert await door.until_ended() == (1000, "closed by us")


async def test_a_door_may_close_the_stream_the_moment_it_comes() -> None:
    class Closing(RememberingMediaDoor):
        def media_came(self, leg: MediaLeg) -> None:
            leg.close(1000, "the call is over")
            self.legs.append(leg)

    door = Closing()
    async with media_bench(door) as bench:
        peer = await bench.stream()
        closing = await peer.frame()
        assert (closing.opcode, closing.payload[2:]) == (CLOSE, b"the call is over")
        peer.send(frame(CLOSE, closing.payload))
        assert await peer.ended() == b""


async def test_a_sink_that_comes_after_the_end_is_told() -> None:
    door = RememberingMediaDoor(attaches=False)
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        peer.send(frame(CLOSE, struct.pack("!H", 1000)))
        await peer.ended()
        leg.attach(door)
        assert await door.until_ended() == (1000, "")


@pytest.mark.parametrize("ours", [False, True])
async def test_a_leg_that_is_over_holds_nothing_of_its_connection(ours: bool) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream()
        leg: Any = door.legs[0]
        connection = weakref.ref(leg._transport.underlying_transport)
        if ours:
            leg.close()
            assert (await peer.frame()).payload == struct.pack("!H", 1000)
        peer.send(frame(CLOSE, struct.pack("!H", 1000)))
        assert await door.until_ended() == (1000, "closed by us" if ours else "")
        assert leg.listener is DEAF
        await asyncio.sleep(0)
        gc.collect()
        assert connection() is None


# -- down


async def test_audio_and_text_go_down_as_they_are() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        for size in (0, 125, 126, 640, 65535, 65536):
            leg.send_audio(b"a" * size)
        leg.send_text("größe")
        got = [await peer.frame() for _ in range(7)]
    assert [(item.opcode, len(item.payload)) for item in got[:6]] == [
        (BINARY, size) for size in (0, 125, 126, 640, 65535, 65536)
    ]
    assert (got[6].opcode, got[6].payload.decode()) == (TEXT, "größe")


async def test_a_slow_reader_shows_in_the_backlog_and_not_only_after_minutes() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream(receive_buffer_bytes=8192)
        leg: Any = door.legs[0]
        leg.send_audio(b"x")
        assert (await peer.frame()).payload == b"x"
        peer.stop_reading()
        second = b"\0" * 32_000
        for _ in range(8):
            leg.send_audio(second)
        ours = leg._transport.underlying_transport
        assert ours.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES
        # What the two kernels can swallow is bounded: 2 x 16 kB here, 16 kB and what was read ahead there.
        assert ours.get_write_buffer_size() > 8 * len(second) - (2 * SEND_BUFFER_BYTES + 100_000)
        assert leg.backlog_bytes() > ours.get_write_buffer_size()  # and what waits in our kernel counts
        assert not leg.closed


async def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        peer.stop_reading()
        sent = 0
        while not leg.closed and sent < 8 * UNREAD_AUDIO_BYTES:
            leg.send_audio(b"\0" * 64_000)
            sent += 64_000
        assert leg.closed
        assert sent > UNREAD_AUDIO_BYTES
        assert await door.until_ended() == (1006, "the switch does not read")


async def test_pings_are_answered_but_not_kept_for_a_switch_that_does_not_read() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream(receive_buffer_bytes=8192)
        leg: Any = door.legs[0]
        leg.dialect = AUDIO_STREAM
        peer.send(frame(PING, b"one"))
        assert await peer.frame() == Frame(PONG, b"one")
        peer.stop_reading()
        leg.send_text("a" * (2 * UNREAD_AUDIO_BYTES))
        held = leg.backlog_bytes()
        for _ in range(1000):
            peer.send(frame(PING, b"x" * 125))
        peer.send(frame(TEXT, b"after"))
        await door.until_heard(1)
        assert leg.backlog_bytes() <= held
        assert not leg.closed


@pytest.mark.parametrize("dialect", [AUDIO_STREAM, AUDIO_STREAM_BASE64])
async def test_whole_utterances_as_text_may_wait_longer_than_audio(dialect: Dialect) -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer, leg = await started(bench, door)
        leg.dialect = dialect
        peer.stop_reading()
        utterance = "a" * (2 * UNREAD_AUDIO_BYTES)
        leg.send_text(utterance)
        leg.send_text(utterance)
        assert not leg.closed
        for _ in range(UNREAD_TEXT_BYTES // len(utterance) + 1):
            leg.send_text(utterance)
        assert leg.closed
        assert await door.until_ended() == (1006, "the switch does not read")


async def test_a_close_from_a_switch_that_left_our_audio_unread_ends_tcp_all_the_same() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream(receive_buffer_bytes=8192)
        leg = door.legs[0]
        peer.stop_reading()
        for _ in range(10):
            leg.send_audio(b"\0" * 64_000)
        assert leg.backlog_bytes() > 100_000
        peer.send(frame(CLOSE, struct.pack("!H", 1000)))
        assert await door.until_ended() == (1000, "")
