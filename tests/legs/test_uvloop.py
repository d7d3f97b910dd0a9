"""Both doors on uvloop, the loop that serves where it is installed: its transports are not asyncio's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.listeners import RememberingDoor, RememberingSink
from tests.support.module_peer import BINARY, CLOSE, RememberingMediaDoor, frame, media_bench
from tests.support.switch_peer import SwitchPeer

from dueto.legs.esl_outbound import ControlServer, OutboundOptions
from dueto.legs.media_server import SEND_BUFFER_BYTES, UNREAD_AUDIO_BYTES

uvloop = pytest.importorskip("uvloop")


def on_uvloop(main: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[SwitchPeer, Any, RememberingSink]]:
    """A control leg that has a sink. All is closed whatever happens: uvloop waits for ever for what is left open."""
    door = RememberingDoor()
    server = ControlServer(door, OutboundOptions())
    peer = await SwitchPeer.dial(await server.start("127.0.0.1", 0))
    try:
        await peer.open()
        yield peer, await door.leg(), door.sink
    finally:
        await peer.aclose()
        await server.aclose()


def test_a_control_leg_opens_hears_and_lets_go() -> None:
    async def run() -> None:
        async with opened() as (peer, leg, sink):
            assert leg.peer == "127.0.0.1"
            peer.send(peer.event("CHANNEL_HANGUP"), peer.event("CHANNEL_HANGUP_COMPLETE"))
            await sink.until("CHANNEL_HANGUP_COMPLETE")
            leg.notify_session_ended("over")
            peer.answer(await peer.command())
            await peer.closed()
            await sink.until("closed")
            assert leg.closed

    on_uvloop(run())


def test_a_closed_control_leg_is_harmless_to_touch() -> None:
    async def run() -> None:
        async with opened() as (_, leg, sink):
            leg.abort()
            leg.pause_reading()
            leg.resume_reading()
            leg.notify_session_ended("over")
            await sink.until("closed")
            leg.pause_reading()
            leg.resume_reading()
            leg.abort()

    on_uvloop(run())


def test_a_stream_carries_audio_both_ways_and_shows_its_backlog() -> None:
    async def run() -> None:
        door = RememberingMediaDoor()
        async with media_bench(door) as bench:
            peer = await bench.stream(receive_buffer_bytes=8192)
            leg: Any = door.legs[0]
            peer.send(frame(BINARY, b"up"))
            await door.until_heard(1)
            leg.send_audio(b"down")
            assert (await peer.frame()).payload == b"down"
            peer.stop_reading()
            for _ in range(8):
                leg.send_audio(b"\0" * 64_000)
            assert leg.backlog_bytes() > 8 * 64_000 - 2 * SEND_BUFFER_BYTES - 250_000
            peer.send(frame(CLOSE, b"\x03\xe8"))
            assert await door.until_ended() == (1000, "")
        assert door.audio == [b"up"]

    on_uvloop(run())


def test_a_switch_that_reads_no_audio_is_cut_off() -> None:
    async def run() -> None:
        door = RememberingMediaDoor()
        async with media_bench(door) as bench:
            peer = await bench.stream()
            leg: Any = door.legs[0]
            peer.stop_reading()
            sent = 0
            while not leg.closed and sent < 16 * UNREAD_AUDIO_BYTES:
                leg.send_audio(b"\0" * 64_000)
                sent += 64_000
                await asyncio.sleep(0)
            assert leg.closed
            assert await door.until_ended() == (1006, "the switch does not read")
        assert leg.backlog_bytes() == 0

    on_uvloop(run())
