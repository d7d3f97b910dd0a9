"""`pass_on` and the lane are shorter ways to where `add` and `due` lead: nobody can tell which one was taken."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dueto.audio.playout import Playout, Utterance

RATE_HZ = 8000
FRAME = b"\x01\x00" * 160


@dataclass
class Way:
    """A ledger, the live utterance on it, and what was sent."""

    ledger: Playout
    live: Utterance
    sent: list[bytes]

    @classmethod
    def new(cls) -> "Way":
        ledger = Playout(RATE_HZ, lead_ms=60, start_ms=40, max_live_ms=200)
        return cls(ledger, ledger.open(live=True), [])

    def write(self, frame: bytes, now: float, *, passes: bool, lane: bool) -> None:
        """What a player does with a live frame, where there is a short way, and a shorter one."""
        if self.live.cleared or self.live.finished:
            self.live = self.ledger.open(live=True)
        if lane and self.ledger.lane.takes(len(frame), now):
            self.sent.append(frame)
        elif passes and self.ledger.pass_on(self.live, frame, now):
            self.sent.append(frame)
            if lane:
                self.ledger.open_lane()
        else:
            self.ledger.add(self.live, frame)
            self.sent += self.ledger.due(now)

    def told(self, now: float) -> tuple[object, ...]:
        """All that the ledger says at `now`."""
        ledger, live = self.ledger, self.live
        return (
            ledger.next_due(now),
            ledger.heard_ms(live, now),
            ledger.idle(now),
            ledger.sent_ms,
            ledger.waiting_ms,
            ledger.dropped_ms,
            ledger.underruns,
            live.queued_ms,
            live.sent_ms,
            ledger.heard_at(live),
            (ledger.current(now) is live),
        )


FRAMES = st.sampled_from([FRAME, FRAME, FRAME, FRAME[:100], FRAME * 3])
STEPS = st.one_of(
    st.tuples(st.just("write"), FRAMES),
    st.tuples(st.just("write"), st.just(FRAME)),
    st.tuples(st.just("write"), st.just(FRAME)),
    st.tuples(st.just("ask"), st.none()),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("say"), st.sampled_from([FRAME, FRAME * 4])),
    st.tuples(st.just("clear"), st.booleans()),
    st.tuples(st.just("finish"), st.none()),
)
GAPS = st.sampled_from([0.0, 0.005, 0.019, 0.02, 0.021, 0.05, 0.4])


@given(st.lists(st.tuples(GAPS, STEPS), max_size=40))
def test_passing_a_frame_on_is_the_same_as_queueing_and_sending_it(
    steps: list[tuple[float, tuple[str, object]]],
) -> None:
    lane, short, long = Way.new(), Way.new(), Way.new()
    now = 100.0
    for gap, (what, value) in steps:
        now += gap
        for way in (lane, short, long):
            ledger = way.ledger
            if what == "write":
                assert isinstance(value, bytes)
                way.write(value, now, passes=way is not long, lane=way is lane)
            elif what == "tick":
                way.sent += ledger.due(now)
            elif what == "say":
                assert isinstance(value, bytes)
                utterance = ledger.open()
                ledger.add(utterance, value)
                ledger.finish(utterance)
                way.sent += ledger.due(now)
            elif what == "clear":
                ledger.clear(now, drops_sent=bool(value))
            elif what == "finish":
                ledger.finish(way.live)
        assert lane.sent == short.sent == long.sent
        if what == "ask":
            assert lane.told(now) == short.told(now) == long.told(now)
    assert lane.told(now) == short.told(now) == long.told(now)


def test_the_lane_takes_frames_that_come_in_time_and_no_others() -> None:
    ledger = Playout(RATE_HZ, lead_ms=160)
    live = ledger.open(live=True)
    assert not ledger.lane.takes(len(FRAME), 5.0)
    assert ledger.pass_on(live, FRAME, 5.0)
    ledger.open_lane()
    assert ledger.lane.takes(len(FRAME), 5.019)
    assert not ledger.lane.takes(100, 5.019)  # a piece of a frame
    assert not ledger.lane.takes(len(FRAME), 5.041)  # there has been a gap
    assert [ledger.lane.takes(len(FRAME), 5.02) for _ in range(4)] == [True, True, True, False]  # too far ahead
    assert ledger.sent_ms == 100
    assert live.sent_ms == live.queued_ms == 100
    ledger.open()
    assert not ledger.lane.takes(len(FRAME), 5.1)  # something has changed, so it is closed


def test_a_frame_is_passed_on_when_nothing_waits_and_it_fits_within_the_lead() -> None:
    ledger = Playout(RATE_HZ, lead_ms=60)
    live = ledger.open(live=True)
    assert [ledger.pass_on(live, FRAME, 5.0) for _ in range(4)] == [True, True, True, False]
    assert ledger.sent_ms == 60
    assert not ledger.pass_on(live, FRAME[:100], 6.0)  # a piece of a frame waits for the rest


def test_what_waits_is_never_overtaken() -> None:
    ledger = Playout(RATE_HZ, lead_ms=60)
    live = ledger.open(live=True)
    ledger.add(live, b"\x07\x00" * 160)
    assert not ledger.pass_on(live, FRAME, 5.0)
    spoken = ledger.open()
    ledger.add(spoken, FRAME)
    assert not ledger.pass_on(live, FRAME, 5.0)
    assert not ledger.pass_on(spoken, FRAME, 5.0)
