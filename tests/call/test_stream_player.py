"""The stream player between an uneven ticker and a stream: what leaves, and when."""

import random
from typing import Any

import pytest

from dueto.call.stream_player import StreamPlayer
from dueto.wire.media import DIALECTS


class Stream:
    """A media leg that counts."""

    def __init__(self) -> None:
        self.frames = 0

    def send_audio(self, frame: bytes) -> None:
        self.frames += 1

    def backlog_bytes(self) -> int:
        return 0


class Ticks:
    """A ticker that is turned by hand."""

    def __init__(self) -> None:
        self.tick: Any = None

    def add(self, tick: Any) -> None:
        self.tick = tick


@pytest.mark.parametrize("phase_ms", range(0, 20, 2))
async def test_one_frame_leaves_at_each_turn_of_an_uneven_ticker_while_a_provider_is_ahead(phase_ms: int) -> None:
    now, stream, ticks = [100.0], Stream(), Ticks()
    dialect = DIALECTS["audio_stream-binary"]
    player = StreamPlayer(8000, dialect, lambda: stream, ticks, lambda: now[0])  # type: ignore[arg-type, return-value]
    saying = player.open()
    saying.add(bytes(16000))
    uneven = random.Random(phase_ms)
    sent = []
    for turn in range(1, 200):
        now[0] = 100.0 + turn * 0.02 - phase_ms / 1000 + uneven.uniform(-0.0015, 0.0015)
        before = stream.frames
        ticks.tick(now[0])
        if turn % 5 == 0:
            now[0] += 0.007
            saying.add(bytes(1600))
        sent.append(stream.frames - before)
    assert set(sent[5:]) == {1}
