"""Far ends that begin to play only once they hold enough, and far ends that are lost before they have played."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.audio.playout import Playout

RATE_HZ = 8000
TICK_S = 0.02


@dataclass
class FarEnd:
    """Plays in real time; from silence only with `warm_up` bytes in hand. Keeps at most `most`, the newest."""

    warm_up: int
    most: int = 32_000
    waiting: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    playing: bool = False
    lost: int = 0

    def feed(self, data: bytes) -> None:
        self.waiting += data
        over = max(len(self.waiting) - self.most, 0)
        del self.waiting[:over]
        self.lost += over

    def tick(self) -> None:
        """20 ms pass."""
        self.playing = bool(self.waiting) and (self.playing or len(self.waiting) >= self.warm_up)
        if self.playing:
            self.heard += self.waiting[:320]
            del self.waiting[:320]


@dataclass
class Run:
    """A ledger and its far end, tick by tick."""

    ledger: Playout
    far: FarEnd
    now: float = 100.0

    def tick(self, late_ms: int = 0) -> None:
        self.now += TICK_S
        for frame in self.ledger.due(self.now + late_ms / 1000):
            self.far.feed(frame)
        self.far.tick()

    def ticks(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.tick()


def run(**more: float) -> Run:
    return Run(Playout(RATE_HZ, lead_ms=480, warm_up_ms=400, max_live_ms=400, **more), FarEnd(400 * 16))  # type: ignore[arg-type]


def numbered(first: int, ms: int) -> bytes:
    """Audio whose samples count up, none of them zero."""
    return b"".join((1 + (first + n) % 30_000).to_bytes(2, "little") for n in range(ms * 8))


@given(
    st.lists(
        st.tuples(st.integers(20, 900), st.booleans(), st.integers(0, 1500)),
        min_size=1,
        max_size=6,
    )
)
def test_everything_that_is_said_is_heard_once_and_in_order(said: list[tuple[int, bool, int]]) -> None:
    """Utterances of any length, some in two pieces, with any pause between them."""
    here = run()
    given_, samples = b"", 0
    for ms, in_pieces, pause_ms in said:
        utterance, pcm = here.ledger.open(), numbered(samples, ms)
        samples += ms * 8
        given_ += pcm
        half = len(pcm) // 4 * 2 if in_pieces else len(pcm)
        here.ledger.add(utterance, pcm[:half])
        here.ticks(0.1 if in_pieces else 0.0)
        here.ledger.add(utterance, pcm[half:])
        here.ledger.finish(utterance)
        here.ticks(pause_ms / 1000)
    here.ticks(8.0)
    heard = bytes(here.far.heard)
    words = [heard[at : at + 2] for at in range(0, len(heard), 2)]
    assert b"".join(word for word in words if word != b"\0\0") == given_
    assert here.far.lost == 0
    assert here.ledger.idle(here.now)


def test_a_short_word_is_heard_at_once_and_is_over_when_it_is_over() -> None:
    here = run()
    word = here.ledger.open()
    here.ledger.add(word, numbered(0, 100))
    here.ledger.finish(word)
    here.tick()
    began = here.now
    assert bytes(here.far.heard) == numbered(0, 20)
    assert here.ledger.heard_at(word) == pytest.approx(began + 0.1)
    here.ticks(0.1)
    assert here.ledger.idle(here.now)  # what is left is silence


def test_a_short_word_does_not_wait_for_the_next_one_that_is_still_being_gathered() -> None:
    here = run()
    word, following = here.ledger.open(), here.ledger.open()
    here.ledger.add(word, numbered(0, 100))
    here.ledger.finish(word)
    here.ledger.add(following, numbered(4000, 40))
    here.ticks(0.1)
    assert bytes(here.far.heard) == numbered(0, 100)
    assert here.ledger.heard_ms(word, here.now + 0.02) == 100


def test_the_silence_that_makes_up_for_a_warm_up_is_the_last_to_leave_and_no_part_of_the_word() -> None:
    here = run()
    word = here.ledger.open()
    here.ledger.add(word, numbered(0, 100))
    here.ledger.finish(word)
    assert len(here.ledger.due(here.now)) == 20
    here.ledger.due(here.now + 0.1, 350)  # 50 ms have left: half of the word
    assert here.ledger.heard_ms(word, here.now + 0.1) == 50
    assert here.ledger.heard_at(word) == pytest.approx(here.now + 0.15)
    assert here.ledger.sounds_until == pytest.approx(here.now + 0.15)
    assert here.ledger.plays_until == pytest.approx(here.now + 0.45)


def test_what_was_lost_before_a_sound_of_it_was_heard_begins_when_it_is_sent_again() -> None:
    here = Run(Playout(RATE_HZ), FarEnd(0))
    first, second = here.ledger.open(), here.ledger.open()
    for utterance in (first, second):
        here.ledger.add(utterance, numbered(0, 60))
        here.ledger.finish(utterance)
    here.ledger.due(100.0)
    assert (first.began_at, second.began_at) == (100.0, pytest.approx(100.06))
    here.ledger.far_end_lost(100.01)
    assert (first.began_at, second.began_at) == (100.0, None)
    here.ledger.due(100.5)
    assert (first.began_at, second.began_at) == (100.0, pytest.approx(100.56))


def test_live_audio_that_was_heard_before_the_far_end_was_lost_stays_heard() -> None:
    here = Run(Playout(RATE_HZ), FarEnd(0))
    live = here.ledger.open(live=True)
    here.ledger.add(live, numbered(0, 60))
    here.ledger.due(100.0)
    here.ledger.far_end_lost(100.03)
    assert here.ledger.heard_ms(live, 101.0) == 30
    here.ledger.add(live, numbered(0, 20))
    here.ledger.due(102.0)
    assert here.ledger.heard_ms(live, 103.0) == 50


def test_a_far_end_that_ran_dry_unseen_plays_the_last_of_it_all_the_same() -> None:
    here = run()
    said = here.ledger.open()
    here.ledger.add(said, numbered(0, 500))
    here.ticks(0.48)
    here.far.waiting.clear()  # it was a little ahead of us
    here.far.tick()
    here.far.heard.clear()
    here.ledger.add(said, numbered(4000, 20))
    here.tick()
    assert not here.far.heard  # it may be near silence, and wait for more
    here.ticks(0.1)
    assert bytes(here.far.heard).startswith(numbered(4000, 20))


def test_live_audio_is_gathered_first_and_then_stands_no_further_ahead() -> None:
    here = run()
    live = here.ledger.open(live=True)
    for count in range(500):
        frame = numbered(count * 160, 20)
        if not here.ledger.pass_on(live, frame, here.now):
            assert not here.ledger.catches_up(live, frame, here.now)
            here.ledger.add(live, frame)
        else:
            here.far.feed(frame)
        here.tick()
    assert here.ledger.dropped_ms == 0
    assert bytes(here.far.heard) == numbered(0, len(here.far.heard) // 16)
    assert len(here.far.heard) // 16 >= 10_000 - 460


def test_what_a_lost_far_end_had_not_played_is_sent_again() -> None:
    here = run()
    said = here.ledger.open()
    here.ledger.add(said, numbered(0, 3000))
    here.ledger.finish(said)
    here.ticks(1.5)
    first = bytes(here.far.heard)
    here.ledger.far_end_lost(here.now)
    heard_ms = here.ledger.heard_ms(said, here.now)
    here.now += 0.3
    here.far.waiting.clear()
    here.far.heard.clear()
    here.ticks(3.0)
    rest = bytes(here.far.heard)
    assert heard_ms == pytest.approx(len(first) // 16, abs=20)
    at = numbered(0, 3000).find(rest[:320])
    assert at // 16 == pytest.approx(len(first) // 16, abs=20)
    assert numbered(0, 3000).endswith(rest.rstrip(b"\0"))
    assert here.ledger.heard_ms(said, here.now) == 3000


@given(st.lists(st.integers(20, 700), min_size=1, max_size=4), st.integers(0, 1200), st.integers(0, 300))
def test_a_loss_costs_nobody_a_frame_and_repeats_at_most_one(lengths: list[int], lost_ms: int, away_ms: int) -> None:
    here = Run(Playout(RATE_HZ), FarEnd(0))
    given_ = numbered(0, sum(lengths))
    at, sayings = 0, []
    for ms in lengths:
        utterance = here.ledger.open()
        here.ledger.add(utterance, given_[at * 16 : (at + ms) * 16])
        here.ledger.finish(utterance)
        sayings.append((utterance, ms))
        at += ms
    here.ticks(lost_ms / 1000)
    before = bytes(here.far.heard)
    here.far.waiting.clear()
    here.ledger.far_end_lost(here.now)
    here.now += away_ms / 1000
    here.ticks(4.0)
    after = bytes(here.far.heard)[len(before) :]

    def words(data: bytes) -> list[bytes]:
        return [data[n : n + 2] for n in range(0, len(data), 2) if data[n : n + 2] != b"\0\0"]

    heard, rest, whole = words(before), words(after), words(given_)
    repeated = len(heard) + len(rest) - len(whole)
    assert 0 <= repeated <= 160
    assert heard + rest[repeated:] == whole
    for utterance, ms in sayings:
        assert here.ledger.heard_ms(utterance, here.now) == ms
    assert here.ledger.idle(here.now)
