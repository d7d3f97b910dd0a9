"""Live frames go straight down, and ask nobody; what the call's state says holds before the next one all the same."""

import pytest

from dueto.call.stream_player import StreamPlayer
from dueto.legs.ticker import Ticker
from dueto.wire.media import DIALECTS, Dialect

RATE_HZ = 8000
FRAME = bytes(320)


class Stream:
    """A media leg that keeps what it is sent."""

    filler_ms = 0

    def __init__(self) -> None:
        self.sent: list[bytes | str] = []

    def send_audio(self, frame: bytes) -> None:
        self.sent.append(frame)

    def send_text(self, text: str) -> None:
        self.sent.append(text)

    def backlog_bytes(self) -> int:
        return 0


class Line:
    """A player whose caller is echoed: a frame each 20 ms."""

    def __init__(self, dialect: Dialect = DIALECTS["audio_stream-binary"]) -> None:
        self.now = 100.0
        self.stream: Stream | None = Stream()
        self.player = StreamPlayer(RATE_HZ, dialect, lambda: self.stream, Ticker(), lambda: self.now)  # type: ignore[arg-type, return-value]

    def frames(self, count: int) -> int:
        """Let so many be written; returns how many were sent."""
        stream = self.stream
        before = len(stream.sent) if stream is not None else 0
        for _ in range(count):
            self.player.write(FRAME)
            self.now += 0.02
        return len(stream.sent) - before if stream is not None else 0


class Tape:
    """Keeps what was heard."""

    def __init__(self) -> None:
        self.pcm = b""

    def heard(self, pcm: bytes, at: float) -> None:
        self.pcm += pcm

    def cut(self, at: float) -> None:
        pass


async def test_frames_that_come_in_time_are_sent_and_counted() -> None:
    line = Line()
    assert line.frames(50) == 50
    assert line.player.frames_sent == 50
    line.now -= 0.001
    assert not line.player.idle()
    line.now += 0.001
    assert line.player.idle()


async def test_nothing_goes_down_while_the_call_is_on_hold() -> None:
    line = Line()
    line.frames(10)
    line.player.pause(True)
    assert line.frames(5) == 0
    line.player.pause(False)
    assert line.frames(1) > 0


async def test_nothing_is_kept_for_later_while_nobody_may_hear_it() -> None:
    line = Line()
    line.frames(10)
    line.player.call_changed(False)
    assert line.frames(10) == 0
    line.player.call_changed(True)
    assert line.frames(10) == 10


async def test_no_frame_goes_down_a_stream_that_is_gone() -> None:
    line = Line()
    line.frames(10)
    gone, line.stream = line.stream, Stream()
    line.player.call_changed(True)
    assert line.frames(10) == 10
    assert gone is not None
    assert len(gone.sent) == 10


async def test_a_recording_that_begins_hears_the_very_next_frame() -> None:
    line, tape = Line(), Tape()
    line.frames(10)
    line.player.tape = tape
    line.frames(5)
    assert tape.pcm == FRAME * 5
    line.player.tape = None
    assert line.frames(5) == 5
    assert len(tape.pcm) == len(FRAME) * 5


async def test_what_is_said_meanwhile_comes_after_the_frames_and_before_later_ones() -> None:
    line = Line()
    line.frames(10)
    word = b"\x07\x00" * 160
    saying = line.player.open()
    saying.add(word)
    saying.finish()
    line.frames(1)
    stream = line.stream
    assert stream is not None
    assert stream.sent[10:12] == [word, FRAME]


@pytest.mark.parametrize("dialect", ["audio_fork-binary", "audio_stream-base64", "unicast"])
async def test_other_ways_of_speaking_lose_no_frame_either(dialect: str) -> None:
    line = Line(DIALECTS[dialect])
    line.frames(100)
    assert line.player.frames_sent in range(90, 101)  # the last may wait for more
    assert line.player.dropped_ms == 0


async def test_live_audio_goes_on_after_a_cut_and_after_what_was_said_over_it() -> None:
    line = Line()
    line.frames(10)
    line.player.clear()
    assert line.frames(10) >= 9  # what was sent before still sounds
    line.player.open().finish()
    assert line.frames(10) >= 9
