"""Recognisers in processes: they answer, die, hang, and are gone in the end; nobody who waits is forgotten."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dueto.agents.speech.decoder import NOTHING
from dueto.agents.speech.model import find_model
from dueto.agents.speech.pool import RecogniserPool
from dueto.agents.speech.vocabulary import Vocabulary, build_vocabulary
from dueto.errors import NotCapable

from .conftest import DESTINATIONS, Listener, over_the_telephone


@asynccontextmanager
async def _pool(*, size: int = 1, waiting: int = 4, patience_s: float = 20.0) -> AsyncIterator[RecogniserPool]:
    vocabulary = build_vocabulary(DESTINATIONS, find_model().dictionary)
    pool = RecogniserPool(vocabulary, size=size, waiting=waiting, patience_s=patience_s)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.aclose()


@pytest.fixture(scope="module")
def utterance(listener: Listener) -> bytes:
    [one] = listener.utterances(over_the_telephone("sales"))
    return one.pcm


async def test_an_utterance_is_understood_in_another_process(utterance: bytes) -> None:
    async with _pool() as pool:
        understood = await pool.submit(utterance)
        assert understood.text == "sales"
        assert set(pool.process_ids) == {0}
        assert os.getpid() not in pool.process_ids.values()


async def test_a_recogniser_that_dies_is_replaced_and_its_utterance_answered(utterance: bytes) -> None:
    async with _pool() as pool:
        died = pool.process_ids[0]
        os.kill(died, signal.SIGSTOP)  # so that the utterance is surely with it when it dies
        lost = pool.submit(utterance)
        await asyncio.sleep(0)
        os.kill(died, signal.SIGKILL)
        assert await lost == NOTHING
        assert (await pool.submit(utterance)).text == "sales"
        assert pool.process_ids[0] != died
        assert pool.figures.crashed == 1


async def test_a_recogniser_that_hangs_is_killed_and_replaced(utterance: bytes) -> None:
    async with _pool(patience_s=0.05) as pool:
        hung = pool.process_ids[0]
        os.kill(hung, signal.SIGSTOP)
        assert await pool.submit(utterance) == NOTHING
        assert pool.figures.late == 1
        await _gone(hung)


async def test_an_utterance_too_many_is_told_so_at_once(utterance: bytes) -> None:
    async with _pool(waiting=1) as pool:
        os.kill(pool.process_ids[0], signal.SIGSTOP)
        pool.submit(utterance)
        refused = pool.submit(utterance)
        assert refused.done()
        assert refused.result() == NOTHING
        assert pool.figures.refused == 1


async def test_a_cancelled_utterance_does_not_answer_the_next(listener: Listener, utterance: bytes) -> None:
    [other] = listener.utterances(over_the_telephone("no"))
    async with _pool() as pool:
        first = pool.submit(utterance)
        await asyncio.sleep(0)
        second = pool.submit(other.pcm)
        first.cancel()
        assert (await second).text == "no"


async def test_closing_answers_who_waits_and_leaves_no_process(utterance: bytes) -> None:
    async with _pool(size=2) as pool:
        processes = list(pool.process_ids.values())
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        waiting = [pool.submit(utterance) for _ in range(4)]
        await asyncio.sleep(0)
        await pool.aclose()
        assert [one.result() for one in waiting] == [NOTHING] * 4
        assert pool.process_ids == {}
        for process in processes:
            with pytest.raises(ProcessLookupError):
                os.kill(process, 0)
        assert pool.submit(utterance).result() == NOTHING


async def test_a_pool_that_cannot_start_says_why_and_leaves_nothing() -> None:
    pool = RecogniserPool(Vocabulary(("zzyzx",), ()), size=2)
    with pytest.raises(NotCapable, match="recogniser did not start"):
        await pool.start()
    assert pool.process_ids == {}


async def _gone(process_id: int) -> None:
    """Return once the process is reaped."""
    while True:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0)
