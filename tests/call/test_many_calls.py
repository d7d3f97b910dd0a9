"""Ten thousand short calls on the virtual clock: nothing is left of any, and memory stays flat."""

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest
from tests.support.virtual import MediaTwin, virtual_desk

from dueto.call import Call
from dueto.legs.esl_outbound import OutboundLeg
from dueto.sim import Caller, Line, run_virtual

CALLS = 10_000
WARM = 1_000


def legs_of_anybody() -> list[object]:
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, OutboundLeg | MediaTwin)]


@pytest.mark.timeout(600)  # half a minute of computing: on a busy machine many times that
def test_ten_thousand_calls_leave_nothing_behind_and_memory_is_flat(caplog: pytest.LogCaptureFixture) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    runs = 0

    async def agent(call: Call) -> None:
        nonlocal runs
        runs += 1
        session = call._session
        for thing in (call, session, session.control, session.media, session.voice.player, asyncio.current_task()):
            if thing is not None:
                alive.add(thing)
        call.audio_to(call.write_now)
        async for _ in call.events():
            pass

    async def script(line: Line) -> None:
        await line.press("1", ms=40)
        await line.wait(0.2)

    async def run() -> list[int]:
        measured = []
        async with virtual_desk(agent, keep_journal=False) as here, here.switch() as switch:
            before = len(asyncio.all_tasks())
            for placed in range(0, CALLS, 50):
                calls = [await switch.place(Caller(script=script)) for _ in range(50)]
                await asyncio.gather(*(call.done() for call in calls))
                await asyncio.gather(*(call.released() for call in calls))
                await here.desk.empty()
                del calls
                if placed + 50 in (WARM, CALLS // 2, CALLS):
                    gc.collect()
                    measured.append(sys.getallocatedblocks())
            assert len(asyncio.all_tasks()) == before
            assert len(here.desk) == 0
        return measured

    before = len(legs_of_anybody())
    warm, half, whole = run_virtual(run(), start_s=1000.0)
    gc.collect()
    assert runs == CALLS
    assert not caplog.records, "pytest keeps what is logged, and an exception in it all that it touched"
    assert not alive
    assert len(legs_of_anybody()) <= before
    print(f"\nallocated blocks after {WARM}, {CALLS // 2}, {CALLS} calls: {warm}, {half}, {whole}")
    assert whole - warm < CALLS // 10  # one block kept per ten calls would already be too many


def test_a_call_that_is_over_is_gone_without_the_garbage_collector() -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    failures = 0

    async def agent(call: Call) -> None:
        nonlocal failures
        await call.joined(5.0)
        session = call._session
        voice = session.voice
        parts = (call, session, voice, voice.hearing, voice.player, session.seat, session.conduct, session.transcript)
        for thing in (*parts, session.control, asyncio.current_task()):
            assert thing is not None
            alive.add(thing)
        call.audio_to(lambda frame: call.write_now(frame))
        call.transcript.add("agent", "Hello.")
        await call.say(b"\0" * 640)
        async for _ in call.events():
            if failures == 2:
                failures += 1
                raise ValueError("a bug of the agent")
            failures += 1

    async def script(line: Line) -> None:
        await line.wait(0.3)
        await line.press("1", ms=40)
        await line.wait(0.2)

    async def run() -> None:
        async with virtual_desk(agent, keep_journal=False) as here, here.switch() as switch:
            for _ in range(5):
                call = await switch.place(Caller(script=script))
                await call.done()
                await call.released()
                await here.desk.empty()
            await asyncio.sleep(1.0)  # the loop forgets its timers

    gc.collect()
    gc.disable()
    try:
        run_virtual(run(), start_s=1000.0)
        assert failures > 3
        assert not [type(thing).__name__ for thing in alive]
    finally:
        gc.enable()
