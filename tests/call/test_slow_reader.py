"""A switch that does not read what it is sent: it has not been heard, whatever the clock says. Real sockets."""

import asyncio
import time

import pytest
from tests.support.module_peer import BINARY, CLOSE, ModulePeer, RememberingMediaDoor, media_bench

from dueto.call.stream_player import StreamPlayer
from dueto.clock import monotonic
from dueto.legs.ticker import Ticker
from dueto.sim import tone
from dueto.wire.media import AUDIO_STREAM_BINARY

RATE_HZ = 48000
SAYS_S = 1.2


async def test_what_the_switch_leaves_unread_does_not_count_as_heard() -> None:
    door = RememberingMediaDoor()
    async with media_bench(door) as bench:
        peer = await bench.stream(receive_buffer_bytes=4096)
        leg = door.legs[0]
        player = StreamPlayer(RATE_HZ, AUDIO_STREAM_BINARY, lambda: leg, Ticker(clock=monotonic), monotonic)
        saying = player.open()
        saying.add(tone(RATE_HZ, SAYS_S, 440.0))
        saying.finish()
        peer.stop_reading()
        began = time.monotonic()
        await asyncio.sleep(0.8)
        stood_ms, passed_ms = saying.heard_ms, (time.monotonic() - began) * 1000
        assert stood_ms < passed_ms - 400  # 96 kB a second: the two kernels hold little of it
        reading = asyncio.ensure_future(_read(peer))
        peer._writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            await saying.heard()
        assert saying.heard_ms == pytest.approx(SAYS_S * 1000, abs=5)
        leg.close()
        messages = await reading
    assert sum(len(data) for data in messages) == pytest.approx(SAYS_S * RATE_HZ * 2, abs=2000)
    assert time.monotonic() - began > SAYS_S + 0.4


async def _read(peer: ModulePeer) -> list[bytes]:
    found = []
    while (frame := await peer.frame()).opcode != CLOSE:
        assert frame.opcode == BINARY
        found.append(frame.payload)
    return found
