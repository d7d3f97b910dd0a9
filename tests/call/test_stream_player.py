"""The stream player between an uneven ticker and a stream: what leaves, and when."""

import collections
import random
from typing import Any

import pytest

from dueto.call.stream_player import StreamPlayer
from dueto.wire.media import DIALECTS


class Stream:
    """A media leg that counts."""

    filler_ms = 0

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

    def keep_time(self, now: float) -> None:
        pass


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


class FarEnd(Stream):
    """A switch that plays a frame every 20 ms, and sends one of the caller's then; in ms, and turned by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.beat: Any = None
        self._played = 0
        self._silent_at = 0

    def beats(self, sink: Any) -> Any:
        self.beat = sink
        return lambda: None

    def play(self, at: int) -> None:
        if self._played < self.frames:
            self._played += 1
            self._silent_at = at + 20

    def ahead_ms(self, at: int) -> int:
        """For how long it sounds, if nothing more comes."""
        return max(self._silent_at - at, 0) + 20 * (self.frames - self._played)


FEWEST_MS = {"one by one": 120, "in pairs": 100, "in threes": 80, "in bundles": 100, "some lost": 80}
"In hand, less what the beats come late."
BUNDLE_MS = {"in pairs": 40, "in threes": 60, "in bundles": 100}


@pytest.mark.parametrize("beating", FEWEST_MS)
@pytest.mark.parametrize("tick_ms", [3, 11, 19])
@pytest.mark.parametrize("play_ms", range(1, 21, 3))
async def test_never_more_than_the_lead_is_ahead_of_the_callers_ear(beating: str, tick_ms: int, play_ms: int) -> None:
    now, far, ticks, uneven = [100.0], FarEnd(), Ticks(), random.Random(play_ms)
    dialect = DIALECTS["audio_stream-binary"]
    clock = lambda: now[0]  # noqa: E731
    player = StreamPlayer(8000, dialect, lambda: far, ticks, clock, beats=far.beats)  # type: ignore[arg-type, return-value]
    player.open().add(bytes(16000 * 8))
    ahead, beats = [], collections.Counter[int]()
    for at in range(7500):
        now[0] = 100.0 + at / 1000
        if at and at % 20 == play_ms % 20:
            far.play(at)
            if beating in BUNDLE_MS:
                bundle_ms = BUNDLE_MS[beating]
                beats[at - at % bundle_ms + bundle_ms + play_ms] += 1
            elif beating == "one by one" or uneven.random() > 0.05:
                beats[at + uneven.choice((0, 0, 1, 3))] += 1
        for _ in range(beats[at]):
            far.beat(b"")
        if at % 20 == tick_ms:
            ticks.tick(now[0])
        ahead.append(far.ahead_ms(at))
    assert max(ahead[40:]) <= dialect.lead_ms
    fewest = FEWEST_MS[beating] + 20 * (beating == "one by one" and play_ms >= 3)  # one at the start is not believed
    assert min(ahead[40:]) >= fewest - 3
    assert player.underruns == 0


@pytest.mark.parametrize("begins_at", [1000, 3045])
@pytest.mark.parametrize("stall_ms", [50, 110, 450])
@pytest.mark.parametrize("play_ms", range(1, 21, 3))
async def test_after_a_stall_as_much_is_in_hand_as_before_and_frames_go_by_the_lane_again(
    begins_at: int, stall_ms: int, play_ms: int
) -> None:
    """The gateway reads nothing for `stall_ms`: amid a sentence, or so that one begins before what waits was read."""
    now, far, ticks = [100.0], FarEnd(), Ticks()
    dialect = DIALECTS["audio_stream-binary"]
    clock = lambda: now[0]  # noqa: E731
    player = StreamPlayer(8000, dialect, lambda: far, ticks, clock, beats=far.beats)  # type: ignore[arg-type, return-value]
    lane, ahead, unread, taken = player._ledger.voice_lane, [], 0, 0
    over = 3000 + stall_ms
    for at in range(7500):
        now[0] = 100.0 + at / 1000
        if at == begins_at:
            player.open().add(bytes(16000 * 8))
        if at and at % 20 == play_ms % 20:
            far.play(at)
            unread += 1
        if ticks.tick is not None and (at == over or (at % 20 == 11 and not 3000 <= at < over)):
            ticks.tick(now[0])  # timers come first, then what waits to be read
        if not 3000 <= at < over:
            for _ in range(unread if far.beat is not None else 0):
                far.beat(b"")
            unread = 0
        if at == over + 300:
            taken = lane.taken
        ahead.append(far.ahead_ms(at))
    assert max(ahead) <= dialect.lead_ms
    assert min(ahead[over + 300 :]) >= FEWEST_MS["one by one"] - 3
    assert lane.taken - taken > 0.85 * (7500 - 300 - over) / 20
