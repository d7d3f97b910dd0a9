"""What a saying is told to have been heard is what the caller heard of it, on every kind of stream."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from dueto.call.stream_player import StreamPlayer
from dueto.errors import Interrupted
from dueto.sim.counters import Counters
from dueto.sim.downlink import Downlink, GatheredDownlink, WarmedDownlink
from dueto.wire.media import DIALECTS

RATE_HZ = 8000
STREAMS = ["audio_stream-binary", "audio_stream-base64", "audio_fork-binary"]


class Caller:
    """A media leg, and behind it a module that plays 20 ms in each 20 ms; what it plays is counted."""

    filler_ms = 0

    def __init__(self, dialect: str) -> None:
        self.heard = Counter[int]()
        "How many samples of each value."
        self.tell: Callable[[str], object] = lambda text: None
        self.line = self._line(dialect)

    def _line(self, dialect: str) -> Downlink:
        match dialect:
            case "audio_stream-base64":
                return WarmedDownlink(RATE_HZ, Counters())
            case "audio_fork-binary":
                return GatheredDownlink(RATE_HZ, RATE_HZ, Counters(), self._mark_told)
        return Downlink(RATE_HZ, RATE_HZ, Counters())

    def send_audio(self, frame: bytes) -> None:
        self.line.feed(frame)

    def send_text(self, text: str) -> None:
        message: Any = json.loads(text)
        match message["type"]:
            case "stopAudio" | "killAudio":
                self.line.clear()
            case "mark":
                assert isinstance(self.line, GatheredDownlink)
                self.line.mark(message["data"]["name"])
            case _:
                self.line.feed(base64.b64decode(message["data"]["audioData"]))

    def backlog_bytes(self) -> int:
        return 0

    def play(self) -> None:
        frame = self.line.pull()
        if frame is not None:
            values, counts = np.unique(np.frombuffer(frame, np.int16), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                self.heard[value] += count

    def _mark_told(self, name: str, played: bool) -> None:
        self.tell(json.dumps({"type": "mark", "data": {"name": name, "event": "playout" if played else "cleared"}}))


class Run:
    """A call, ms by ms: the ticker and the far end come every 20 ms, in no step with each other."""

    def __init__(self, dialect: str, tick_ms: int, play_ms: int) -> None:
        self.at = 0
        self.tick_ms, self.play_ms, self.dialect = tick_ms, play_ms, dialect
        self.far: Caller | None = Caller(dialect)
        self.heard = Counter[int]()
        self.ticks: dict[Callable[[float], bool], None] = {}
        ticker: Any = self
        media: Any = lambda: self.far  # noqa: E731
        self.player = StreamPlayer(RATE_HZ, DIALECTS[dialect], media, ticker, lambda: 100.0 + self.at / 1000)
        self.far.tell = self.player.text
        self.sayings: list[Any] = []
        self.ended: dict[int, float] = {}

    def add(self, tick: Callable[[float], bool]) -> None:
        self.ticks[tick] = None

    def keep_time(self, now: float) -> None:
        pass

    def passes(self, ms: int) -> None:
        for _ in range(ms):
            self.at += 1
            if self.at % 20 == self.tick_ms:
                self.ticks = {tick: None for tick in tuple(self.ticks) if tick(100.0 + self.at / 1000)}
            if self.at % 20 == self.play_ms and self.far is not None:
                self.far.play()
            for number, saying in enumerate(self.sayings):
                if number not in self.ended and saying.done:
                    self.ended[number] = self.ms_of(number)

    def ms_of(self, number: int) -> float:
        """How much of a saying the caller has heard."""
        return (self.heard[number + 1] + (self.far.heard[number + 1] if self.far is not None else 0)) * 1000 / RATE_HZ

    def says(self, ms: int) -> None:
        if not self.sayings or self.sayings[-1].finished:
            self.sayings.append(self.player.open())
        self.sayings[-1].add(np.full(ms * RATE_HZ // 1000, len(self.sayings), np.int16).tobytes())

    def finishes(self) -> None:
        if self.sayings:
            self.sayings[-1].finish()

    def is_lost(self) -> None:
        assert self.far is not None
        self.heard += self.far.heard
        self.far = None
        self.player.stream_lost(stopped=True)

    def comes_back(self) -> None:
        self.far = Caller(self.dialect)
        self.far.tell = self.player.text
        self.player.stream_came()


HAPPENS = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 300)),
    st.tuples(st.just("say whole"), st.integers(1, 900)),
    st.tuples(st.just("stop"), st.just(0)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("lose"), st.integers(1, 400)),
)
WAITS = st.one_of(st.integers(0, 100), st.integers(0, 800))


@pytest.mark.parametrize("dialect", STREAMS)
@given(
    st.integers(0, 19),
    st.integers(0, 19),
    st.lists(st.tuples(HAPPENS, WAITS), min_size=1, max_size=10),
)
async def test_what_is_told_of_it_is_what_was_heard(
    dialect: str, tick_ms: int, play_ms: int, steps: list[tuple[tuple[str, int], int]]
) -> None:
    run, again_ms = Run(dialect, tick_ms, play_ms), 0
    for (what, ms), wait_ms in steps:
        match what:
            case "say":
                run.says(ms)
            case "say whole":
                run.says(ms)
                run.finishes()
            case "finish":
                run.finishes()
            case "stop":
                run.player.clear()
            case "lose":
                again_ms += DIALECTS[dialect].frame_ms
                run.is_lost()
                run.passes(ms)
                run.comes_back()
        run.passes(wait_ms)
    run.finishes()
    run.passes(sum(ms for (_, ms), _ in steps) + 3000)
    for number, saying in enumerate(run.sayings):
        assert saying.done
        heard_ms = run.ms_of(number)
        if saying.interrupted:
            most_ms = saying.heard_ms - 60 - (160 if again_ms and dialect == "audio_stream-binary" else 0)
            assert most_ms <= heard_ms <= saying.heard_ms + 60 + again_ms  # a stream took along what could not be cut
            with pytest.raises(Interrupted):
                await saying.heard()
        else:
            assert saying.heard_ms == saying.queued_ms
            assert saying.queued_ms <= heard_ms + 1
            assert heard_ms <= saying.queued_ms + again_ms
            assert run.ended[number] >= saying.queued_ms - 60
    event(f"{len(run.sayings)} sayings")


@pytest.mark.parametrize("dialect", STREAMS)
@pytest.mark.parametrize("after_ms", [150, 190, 300])
async def test_the_silence_behind_a_short_word_that_is_over_does_not_delay_what_is_said_after_a_stop(
    dialect: str, after_ms: int
) -> None:
    run = Run(dialect, 3, 11)
    run.passes(100)
    run.says(100)
    run.finishes()
    run.passes(after_ms)
    run.player.clear()
    run.says(500)
    run.finishes()
    run.passes(2000)
    assert run.ended[1] >= 440


async def test_a_mark_that_a_stream_took_along_does_not_hold_up_the_end_of_what_is_said_again() -> None:
    run = Run("audio_fork-binary", 3, 11)
    run.says(300)
    run.finishes()
    run.passes(100)
    run.is_lost()
    run.passes(50)
    run.comes_back()
    while run.ms_of(0) < 300:
        run.passes(1)
    run.passes(150)
    assert run.sayings[0].done


async def test_what_is_resampled_can_be_finished_even_where_no_more_may_wait() -> None:
    far = Caller("audio_stream-base64")
    ticker: Any = Run("audio_stream-base64", 3, 11)
    media: Any = lambda: far  # noqa: E731
    player = StreamPlayer(16000, DIALECTS["audio_stream-base64"], media, ticker, lambda: 100.0)
    player.pause(True)
    saying: Any = player.open()
    player.open()
    saying.add(bytes(2 * 16000 * 120))
    saying.finish()
    assert saying.finished


async def test_who_waits_for_quiet_does_not_wait_for_a_stream_that_is_gone() -> None:
    run = Run("audio_stream-binary", 3, 11)
    run.says(300)
    run.passes(100)
    run.is_lost()
    waiting = asyncio.ensure_future(run.player.quiet())
    await asyncio.sleep(0)
    run.passes(20)
    async with asyncio.timeout(10):
        await waiting


async def test_a_cut_returns_how_much_of_what_it_cut_was_heard() -> None:
    run = Run("audio_stream-base64", 3, 11)
    run.says(1000)
    run.passes(500)
    assert run.player.clear() == run.sayings[0].heard_ms == pytest.approx(run.ms_of(0), abs=20)
    assert run.player.clear() == 0
