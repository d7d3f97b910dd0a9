"""The playout ledger under any order of events, held against a plain model of the far end's player."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dueto.audio.playout import Playout, Utterance
from dueto.audio.turns import EARLY_S

RATE_HZ = 8000
FRAME = 320
FRAME_S = 0.02
LEAD_S = 0.16
MAX_LIVE_MS = 200


@dataclass(eq=False)
class Said:
    """What the test knows of one utterance."""

    utterance: Utterance
    given: int = 0
    "Bytes added."
    taken: int = 0
    "Bytes that came out of `due`, dropped ones counted too."
    heard: list[tuple[float, float, int]] = field(default_factory=list)
    "Start, end and bytes of real audio of each frame at the caller."
    most_heard_ms: int = 0

    @property
    def mark(self) -> int:
        return self.utterance.id

    def stream(self, at: int, size: int) -> bytes:
        """Bytes that tell whose they are and where: words of 8 bits of id and 24 of position."""
        first = at // 4
        words = b"".join((self.mark << 24 | n).to_bytes(4, "big") for n in range(first, (at + size) // 4 + 1))
        return words[at - 4 * first :][:size]

    def heard_ms(self, now: float) -> float:
        played = (min(size / 16, max(0.0, (now - start) * 1000)) for start, _end, size in self.heard)
        return sum(played)


class Ledger(RuleBasedStateMachine):
    """Random callers of the ledger; the far end plays every frame it gets, one after the other, in real time."""

    def __init__(self) -> None:
        super().__init__()
        self.playout = Playout(RATE_HZ, max_live_ms=MAX_LIVE_MS)
        self.now = 100.0
        self.far_end = 0.0
        self.said: list[Said] = []
        self.oldest_allowed = 1
        "No frame of an utterance below this id may come any more."

    def open_ones(self) -> list[Said]:
        return [said for said in self.said if not said.utterance.finished and not said.utterance.cleared]

    @rule(live=st.booleans())
    def open(self, live: bool) -> None:
        if len(self.said) < 200:
            self.said.append(Said(self.playout.open(live=live)))

    @precondition(lambda self: self.open_ones())
    @rule(data=st.data(), size=st.integers(0, 3000))
    def add(self, data: st.DataObject, size: int) -> None:
        said = data.draw(st.sampled_from(self.open_ones()))
        self.put(said, size)

    def put(self, said: Said, size: int) -> None:
        self.playout.add(said.utterance, said.stream(said.given, size))
        said.given += size

    @precondition(lambda self: self.open_ones())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        said = data.draw(st.sampled_from(self.open_ones()))
        if said.given % FRAME % 4 or 0 < said.given % FRAME < 4:  # its last frame must be able to tell whose it is
            self.put(said, 4 + -said.given % 4)
        self.playout.finish(said.utterance)

    @rule(ms=st.one_of(st.integers(0, 60), st.integers(0, 3000)), jitter=st.floats(0, 0.001))
    def wait(self, ms: int, jitter: float) -> None:
        self.now += ms / 1000 + jitter

    @rule()
    def wait_for_next_due(self) -> None:
        due = self.playout.next_due(self.now)
        if due is not None:
            assert due >= self.now
            if due > self.now + 2 * EARLY_S:
                self.now = due - 2 * EARLY_S
                self.take()
            self.now = due
            self.take()

    @rule()
    def take(self) -> None:
        due = self.playout.next_due(self.now)
        frames = self.playout.due(self.now)
        assert frames == [] or (due is not None and due <= self.now + EARLY_S)
        for frame in frames:
            self.receive(frame)
        assert self.far_end <= self.now + LEAD_S + EARLY_S + 1e-6
        assert self.playout.due(self.now) == []

    def receive(self, frame: bytes) -> None:
        """The far end gets one frame; it must be the next of its utterance."""
        assert len(frame) == FRAME
        said = self.said[frame[0] - 1]
        assert said.mark >= self.oldest_allowed
        at = 4 * int.from_bytes(frame[1:4], "big")
        assert at == said.taken or (said.utterance.live and at > said.taken and (at - said.taken) % FRAME == 0)
        size = min(FRAME, said.given - at)
        assert frame == said.stream(at, size) + bytes(FRAME - size)
        said.taken = at + size
        start = max(self.far_end, self.now)
        self.far_end = start + FRAME_S
        said.heard.append((start, self.far_end, size))

    @rule(drops_sent=st.booleans())
    def clear(self, drops_sent: bool) -> None:
        before = self.playout.generation
        wanted = [
            said.utterance
            for said in self.said
            if not said.utterance.cleared
            and (
                not said.utterance.finished
                or said.taken < said.given
                or (drops_sent and said.heard and said.heard[-1][1] > self.now + 1e-9)
            )
        ]
        hit = self.playout.clear(self.now, drops_sent=drops_sent)
        assert self.playout.generation == before + 1
        assert [utterance for utterance, _ in hit] == wanted
        for utterance, heard_ms in hit:
            said = self.said[utterance.id - 1]
            model = said.heard_ms(self.now if drops_sent else float("inf"))
            assert heard_ms == pytest.approx(model, abs=1)
            if drops_sent:
                said.heard = [(start, end, size) for start, end, size in said.heard if start < self.now]
        if drops_sent:
            self.far_end = min(self.far_end, self.now)
        self.oldest_allowed = len(self.said) + 1

    @invariant()
    def the_account_is_right(self) -> None:
        for said in self.said:
            utterance = said.utterance
            heard_ms = self.playout.heard_ms(utterance, self.now)
            assert said.most_heard_ms <= heard_ms <= utterance.sent_ms <= utterance.queued_ms
            said.most_heard_ms = heard_ms
            assert utterance.live or utterance.dropped_ms == 0
            if not utterance.cleared:
                assert heard_ms == pytest.approx(said.heard_ms(self.now), abs=1)
                end = self.playout.heard_at(utterance)
                if end is not None and said.heard:
                    assert end == pytest.approx(said.heard[-1][1])
        waiting_ms = sum(said.utterance.waiting_ms for said in self.said)
        assert self.playout.waiting_ms == pytest.approx(waiting_ms, abs=len(self.said))
        assert self.playout.idle(self.now) <= (self.far_end <= self.now + 1e-6)

    def teardown(self) -> None:
        """Whatever happened before: what is finished is heard to its end, nothing lost."""
        for said in self.open_ones():
            if said.given % FRAME % 4 or 0 < said.given % FRAME < 4:
                self.put(said, 4 + -said.given % 4)
            self.playout.finish(said.utterance)
        ticks = 0
        while (due := self.playout.next_due(self.now)) is not None:
            ticks += 1
            assert ticks < 100_000
            self.now = due
            self.take()
        self.now = max(self.now, self.far_end) + 0.001
        assert self.playout.idle(self.now)
        assert self.playout.waiting_ms == 0
        for said in self.said:
            if not said.utterance.cleared:
                assert said.taken == said.given
                assert self.playout.heard_ms(said.utterance, self.now) == said.utterance.queued_ms
                assert self.playout.heard_at(said.utterance) is not None


TestLedger = Ledger.TestCase
TestLedger.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.lists(st.integers(0, 2000), max_size=5), min_size=1, max_size=6),
    steps=st.lists(st.floats(0, 0.3), max_size=40),
)
def test_finished_utterances_come_whole_and_in_order(sizes: list[list[int]], steps: list[float]) -> None:
    playout = Playout(RATE_HZ)
    wanted = []
    for number, pieces in enumerate(sizes, 1):
        utterance = playout.open()
        for size in pieces:
            playout.add(utterance, bytes([number]) * size)
        playout.finish(utterance)
        whole = bytes([number]) * (sum(pieces) // 2 * 2)
        wanted.append(whole + bytes(-len(whole) % FRAME))
    now, sent = 0.0, []
    for step in steps:
        sent += playout.due(now)
        now += step
    while (due := playout.next_due(now)) is not None:
        now = due
        sent += playout.due(now)
    assert b"".join(sent) == b"".join(wanted)


@settings(deadline=None, max_examples=150)
@given(
    ticks=st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 400)), min_size=1, max_size=60),
    live=st.booleans(),
)
def test_under_any_backlog_the_account_stays_sane(ticks: list[tuple[float, float]], live: bool) -> None:
    playout = Playout(RATE_HZ)
    utterances = [playout.open(live=live), playout.open()]
    for utterance in utterances:
        playout.add(utterance, bytes(160 * 100))
        playout.finish(utterance)
    now = 0.0
    before = [0, 0]
    for step, backlog_ms in ticks:
        backlog_ms = min(backlog_ms, playout.sent_ms)
        playout.due(now, backlog_ms)
        heard = [playout.heard_ms(utterance, now) for utterance in utterances]
        for earlier, later, utterance in zip(before, heard, utterances, strict=True):
            assert earlier <= later <= utterance.sent_ms <= utterance.queued_ms
        ends = [end for utterance in utterances if (end := playout.heard_at(utterance)) is not None]
        assert ends == sorted(ends)
        before = heard
        now += step
    while (due := playout.next_due(now)) is not None:
        now = due
        playout.due(now)
    end = playout.heard_at(utterances[-1])
    assert end is not None
    assert not playout.idle(end - 0.001)
    assert playout.idle(end)
    assert [playout.heard_ms(utterance, end) for utterance in utterances] == [1000, 1000]


@settings(deadline=None, max_examples=100)
@given(backlog_ms=st.integers(1, 160), at_ms=st.integers(0, 160))
def test_the_backlog_is_never_counted_as_heard(backlog_ms: int, at_ms: int) -> None:
    playout = Playout(RATE_HZ)
    utterance = playout.open()
    playout.add(utterance, bytes(16 * 1000))
    playout.finish(utterance)
    playout.due(0.0)
    now = at_ms / 1000
    sent = playout.sent_ms
    playout.due(now, backlog_ms)
    assert playout.heard_ms(utterance, now) == pytest.approx(min(at_ms, sent - backlog_ms), abs=1)
