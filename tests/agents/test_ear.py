"""A whole ear on a stream: events in order, at the right times, and nothing after it was closed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dueto.agents.speech import DetectorPool, RecogniserPool, SpeechEar, Understood
from dueto.agents.speech.model import find_model
from dueto.agents.speech.vocabulary import Vocabulary, build_vocabulary
from dueto.audio.pcm import frames
from dueto.call.events import Speech, SpeechStarted
from dueto.errors import NotCapable

from .conftest import DESTINATIONS, over_the_telephone

Told = list[Speech | SpeechStarted]


class ByHand(RecogniserPool):
    """A pool whose answers the test gives, in any order."""

    def __init__(self) -> None:
        super().__init__(Vocabulary(("sales",), ()))
        self.asked: list[asyncio.Future[Understood]] = []

    def submit(self, pcm: bytes) -> asyncio.Future[Understood]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]


@pytest.fixture
async def detectors() -> DetectorPool:
    pool = DetectorPool(1)
    await pool.start()
    return pool


@pytest.fixture
async def recognisers() -> AsyncIterator[RecogniserPool]:
    pool = RecogniserPool(build_vocabulary(DESTINATIONS, find_model().dictionary), size=1)
    await pool.start()
    yield pool
    await pool.aclose()


def _hear(ear: SpeechEar, stream: bytes) -> None:
    for frame in frames(stream, ear.rate_hz):
        ear.hear(frame)


async def _turns() -> None:
    """Let callbacks that are due run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_caller_is_heard_beginning_and_then_understood(
    detectors: DetectorPool, recognisers: RecogniserPool
) -> None:
    ear = SpeechEar(detectors, recognisers)
    told: asyncio.Queue[Speech | SpeechStarted] = asyncio.Queue()
    ear.attach(told.put_nowait)
    _hear(ear, over_the_telephone("sales"))
    began, speech = await told.get(), await told.get()
    assert isinstance(began, SpeechStarted)
    assert isinstance(speech, Speech)
    assert speech.text == "sales"
    assert began.started_ms == speech.started_ms
    assert 300 <= speech.started_ms < 700  # 300 ms of line, then the recording's own silence
    assert speech.ended_ms - speech.started_ms > 700
    await ear.aclose()


async def test_speech_is_told_in_the_order_it_was_said(detectors: DetectorPool) -> None:
    recognisers, told = ByHand(), Told()
    ear = SpeechEar(detectors, recognisers)
    ear.attach(told.append)
    _hear(ear, over_the_telephone("sales") + over_the_telephone("no"))
    first, second = recognisers.asked
    second.set_result(Understood("no", 1.0))
    await _turns()
    assert [type(event) for event in told] == [SpeechStarted, SpeechStarted]
    first.set_result(Understood("sales", 1.0))
    await _turns()
    assert [event.text for event in told if isinstance(event, Speech)] == ["sales", "no"]


async def test_a_caller_who_talks_faster_than_can_be_recognised_is_answered_all_the_same(
    detectors: DetectorPool,
) -> None:
    recognisers, told = ByHand(), Told()
    ear = SpeechEar(detectors, recognisers)
    ear.attach(told.append)
    _hear(ear, over_the_telephone("no") * 6)
    assert len(recognisers.asked) == 4
    for answer in recognisers.asked:
        answer.set_result(Understood("no", 1.0))
    await _turns()
    assert [event.text for event in told if isinstance(event, Speech)] == ["no"] * 4 + [""] * 2


async def test_what_was_begun_in_a_pause_is_dropped_when_the_caller_goes_on(detectors: DetectorPool) -> None:
    recognisers, told = ByHand(), Told()
    ear = SpeechEar(detectors, recognisers)
    ear.attach(told.append)
    word = over_the_telephone("no").strip(b"\0")
    _hear(ear, bytes(4800) + word + bytes(3200) + word + bytes(12800))
    within, at_the_end = recognisers.asked
    assert within.cancelled()
    at_the_end.set_result(Understood("no", 1.0))
    await _turns()
    assert [event.text for event in told if isinstance(event, Speech)] == ["no"]


async def test_nothing_is_told_after_closing_and_the_detector_is_given_back(detectors: DetectorPool) -> None:
    recognisers, told = ByHand(), Told()
    ear = SpeechEar(detectors, recognisers)
    ear.attach(told.append)
    with pytest.raises(NotCapable, match="in use"):
        SpeechEar(detectors, recognisers)
    _hear(ear, over_the_telephone("sales"))
    before = list(told)
    await ear.aclose()
    await ear.aclose()
    assert recognisers.asked[0].cancelled()
    _hear(ear, over_the_telephone("sales"))
    await _turns()
    assert told == before
    assert detectors.idle == 1


async def test_the_next_caller_is_heard_as_if_nobody_had_been_there(detectors: DetectorPool) -> None:
    heard: list[Told] = []
    for _ in range(2):
        ear, told = SpeechEar(detectors, ByHand()), Told()
        ear.attach(told.append)
        _hear(ear, over_the_telephone("hello")[:-8000])  # breaks off in the pause
        heard.append(told)
        await ear.aclose()
    assert heard[0] == heard[1]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 900).map(lambda samples: 2 * samples), min_size=1, max_size=8))
def test_the_cut_of_the_frames_does_not_matter(sizes: list[int]) -> None:
    async def told_for(sizes: list[int]) -> Told:
        detectors, told = DetectorPool(1), Told()
        await detectors.start()
        ear = SpeechEar(detectors, ByHand())
        ear.attach(told.append)
        stream, at, turn = over_the_telephone("no"), 0, 0
        while at < len(stream):
            size = sizes[turn % len(sizes)]
            ear.hear(stream[at : at + size])
            at, turn = at + size, turn + 1
        await ear.aclose()
        return told

    assert asyncio.run(told_for(sizes)) == asyncio.run(told_for([320]))
