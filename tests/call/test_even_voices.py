"""A sentence that plays on leaves by the ledger's lane: nobody can tell afterwards, whatever happens on the way."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from hypothesis import event, given
from hypothesis import strategies as st

from dueto.audio.lane import VoiceLane
from dueto.call import stream_player
from dueto.call.stream_player import BACKLOG_EVERY_S, StreamPlayer
from dueto.wire.media import DIALECTS

RATE_HZ = 8000


class Stream:
    """A media leg that keeps what it is sent."""

    filler_ms = 0

    def __init__(self) -> None:
        self.sent: list[bytes | str] = []
        self.backlog = self.asked = 0

    def send_audio(self, frame: bytes) -> None:
        self.sent.append(frame)

    def send_text(self, text: str) -> None:
        self.sent.append(text)

    def backlog_bytes(self) -> int:
        self.asked += 1
        return self.backlog


class Ticks:
    """A ticker that is turned by hand."""

    def __init__(self) -> None:
        self.asked: dict[Callable[[float], bool], None] = {}

    def add(self, tick: Callable[[float], bool]) -> None:
        self.asked[tick] = None

    def keep_time(self, now: float) -> None:
        pass

    def turn(self, now: float) -> None:
        self.asked = {tick: None for tick in self.asked if tick(now)}


class Tape:
    """Keeps what was heard, and when."""

    def __init__(self) -> None:
        self.heard_at: list[tuple[bytes, float]] = []

    def heard(self, pcm: bytes, at: float) -> None:
        self.heard_at.append((pcm, at))

    def cut(self, at: float) -> None:
        self.heard_at.append((b"", at))


class Call:
    """A player in a call whose caller's frames beat the time."""

    def __init__(self, dialect: str, *, lane: bool) -> None:
        self.now = 100.0
        self.stream: Stream | None = Stream()
        self.ticks, self.tape, self.beat = Ticks(), Tape(), _nobody
        ticker: Any = self.ticks
        media: Any = lambda: self.stream  # noqa: E731
        self.player = StreamPlayer(RATE_HZ, DIALECTS[dialect], media, ticker, lambda: self.now, beats=self._beats)
        if not lane:
            self.player._ledger.open_voice_lane = lambda held_s, slack_s: None  # type: ignore[method-assign]
        self.sayings: list[Any] = []
        self.sent: list[Any] = []

    def _beats(self, sink: Callable[[bytes], object]) -> Callable[[], None]:
        self.beat = sink
        return self._quiet

    def _quiet(self) -> None:
        self.beat = _nobody

    def does(self, what: str, value: int, number: int) -> None:
        player = self.player
        match what:
            case "beat":
                self.beat(b"")
            case "tick":
                self.ticks.turn(self.now)
            case "add":
                if not self.sayings or self.sayings[-1].finished:
                    self.sayings.append(player.open(interruptible=value % 2 == 0))
                self.sayings[-1].add(bytes([number % 256, 1]) * 80 * value)
            case "finish" if self.sayings:
                self.sayings[-1].finish()
            case "open":
                self.sayings.append(player.open())
            case "live":
                player.write(bytes(320))
            case "clear":
                player.clear(everything=bool(value % 2))
            case "pause":
                player.pause(bool(value % 2))
            case "backlog" if self.stream is not None:
                self.stream.backlog = 160 * value
            case "tape":
                player.tape = self.tape if value % 2 else None
            case "lost" if self.stream is not None:
                self.sent += self.stream.sent
                self.stream = None
                player.call_changed(True)
                player.stream_lost(stopped=bool(value % 2))
            case "came" if self.stream is None:
                self.stream = Stream()
                player.call_changed(True)
                player.stream_came()

    def told(self) -> tuple[object, ...]:
        """All that can be asked."""
        ledger = self.player._ledger
        return (
            self.player.frames_sent,
            self.player.idle(),
            self.player.underruns,
            ledger.sent_ms,
            ledger.waiting_ms,
            ledger.plays_until,
            self.tape.heard_at,
            [(one.heard_ms, one.queued_ms, one.began_at, one.done, one.interrupted) for one in self.sayings],
            [(one.utterance.sent_ms, one.utterance.waiting_ms, ledger.heard_at(one.utterance)) for one in self.sayings],
        )


def _nobody(frame: bytes) -> None:
    pass


HAPPENS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from([1, 2, 5, 10, 33, 100])),
    st.tuples(st.sampled_from(["finish", "open", "live", "clear", "pause"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["backlog", "tape", "lost", "came"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["ask", "tick", "nothing"]), st.just(0)),
)
LATE = st.sampled_from([0.0, 0.0, 0.0, 0.0003, -0.0007, 0.004, -0.006, 0.013, -0.015, 0.06, 0.25])
"By how much a frame of the caller's comes off its time; the next ones do not mind."


@given(
    st.sampled_from(["audio_stream-binary", "audio_stream-binary", "audio_fork-binary", "unicast"]),
    st.lists(st.tuples(st.integers(1, 12), LATE, HAPPENS), max_size=25),
)
async def test_frames_that_leave_by_the_lane_are_those_that_would_leave_without_it(
    dialect: str, steps: list[tuple[int, float, tuple[str, int]]]
) -> None:
    with patch.object(stream_player, "CALM_S", BACKLOG_EVERY_S):  # to be asked less often is the lane's own
        calls = short, plain = Call(dialect, lane=True), Call(dialect, lane=False)
        due = 100.0
        for number, (frames, late_s, (what, value)) in enumerate([(2, 0.0, ("add", 60)), *steps]):
            for turn in range(frames):
                due += 0.02013
                for call in calls:
                    call.now = max(due + (late_s if turn == 0 else 0.0), call.now)
                    call.does("beat", 0, number)
                    if (turn + number) % 3:
                        call.now += 0.0031
                        call.does("tick", 0, number)
            for call in calls:
                call.does(what, value, number)
            if what == "ask":
                assert short.told() == plain.told()
            assert (short.stream.sent if short.stream else short.sent) == (
                plain.stream.sent if plain.stream else plain.sent
            )
    assert short.told() == plain.told()
    lane: VoiceLane = short.player._ledger.voice_lane
    assert plain.player._ledger.voice_lane.taken == 0
    event(f"{min(lane.taken, 3)} frames or more by the lane")


async def test_the_kernel_is_asked_less_often_while_frames_come_evenly_and_at_once_when_one_is_late() -> None:
    call = Call("audio_stream-binary", lane=True)
    stream = call.stream
    assert stream is not None
    call.does("add", 1000, 0)

    def beats(frames: int, after_s: float = 0.02) -> int:
        before = stream.asked
        for turn in range(frames):
            call.now += after_s if turn == 0 else 0.02
            call.does("beat", 0, 0)
        return stream.asked - before

    beats(20)
    asked = [beats(50), beats(1, 0.11), beats(1, 0.11)]
    assert 3 <= asked[0] <= 5
    assert asked[1:] == [1, 1]
    stream.backlog = 16 * 100
    beats(50)
    assert beats(50) >= 8  # twice as often
