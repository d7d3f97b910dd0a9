"""Three hundred calls on real sockets: each is heard, told of its end, and leaves nothing behind."""

import asyncio
import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from tests.support.running import running

from dueto.call import Call, CallEvent
from dueto.call.events import ControlJoined, Dtmf, HungUp
from dueto.call.session import Session
from dueto.legs.esl_outbound import OutboundLeg
from dueto.legs.media_server import PicowsMediaLeg
from dueto.sim import Caller, Line, SimCall, Switch

CALLS = 300
AT_ONCE = 60
CAUSES = ("NORMAL_CLEARING", "USER_BUSY", "CALL_REJECTED")


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("patient_switch")
async def test_three_hundred_calls_on_real_sockets_leave_nothing_behind() -> None:
    told: dict[str, list[CallEvent]] = {}
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    arrived: dict[str, asyncio.Event] = {}
    paired: dict[str, asyncio.Event] = {}

    async def agent(call: Call) -> None:
        session = call._session
        for thing in (call, session, session.control, session.media, asyncio.current_task()):
            if thing is not None:
                alive.add(thing)
        call.audio_to(call.write_now)
        heard = told.setdefault(call.unique_id, [])
        if call.can("api"):
            paired[call.unique_id].set()
        async for event in call.events():
            heard.append(event)
            if isinstance(event, ControlJoined):
                paired[call.unique_id].set()
            if isinstance(event, Dtmf):
                arrived[call.unique_id].set()
            if isinstance(event, HungUp):
                return  # in mid-loop, as agents do

    async def one(switch: Switch, number: int) -> SimCall:
        unique_id = f"00000000-0000-4000-8000-{number:012d}"
        pressed = arrived[unique_id] = asyncio.Event()
        both = paired[unique_id] = asyncio.Event()

        async def script(line: Line) -> None:
            await both.wait()  # the switch tells nobody of a key that is pressed before `myevents`
            await line.press("1", ms=40)
            await line.until_hangup(150)

        call = await switch.place(Caller(unique_id=unique_id, script=script, measure_echo=True))
        await pressed.wait()
        call.hang_up(CAUSES[number % len(CAUSES)])
        await call.done()
        await call.released()
        return call

    async def caller(switch: Switch, numbers: Any) -> list[tuple[int, bool, int]]:
        return [(number, (call := await one(switch, number)).paired, call.counters.frames_down) for number in numbers]

    abandoned: list[str] = []

    def finalizer(generator: Any) -> None:  # asyncio makes a task for each async generator that nobody finished
        abandoned.append(generator.__qualname__)
        finish(generator)

    finish: Any = sys.get_asyncgen_hooks().finalizer  # the loop's; it goes with the loop
    sys.set_asyncgen_hooks(finalizer=finalizer)
    gc.collect()
    kinds = (Session, OutboundLeg, PicowsMediaLeg)
    before = sum(issubclass(kind, kinds) for kind in map(type, gc.get_objects()))  # another test may have kept some
    tasks_before, files_before = len(asyncio.all_tasks()), _open_files()
    async with running(agent) as here:
        async with here.switch(record=False) as switch:
            numbers = iter(range(CALLS))
            async with asyncio.timeout(150):
                rows = await asyncio.gather(*(caller(switch, numbers) for _ in range(AT_ONCE)))
                await here.desk.empty()
        refused = [name for name in here.names() if name in ("refused", "agent_failed", "task_failed")]
    judged = sorted(row for part in rows for row in part)
    assert [number for number, _, _ in judged] == list(range(CALLS))
    assert all(both for _, both, _ in judged)
    assert sum(frames for _, _, frames in judged) > 0  # the echo came down; how much depends on the machine
    assert not refused
    assert len(told) == CALLS
    for number in range(CALLS):
        events = told[f"00000000-0000-4000-8000-{number:012d}"]
        assert [event.digit for event in events if isinstance(event, Dtmf)] == ["1"]
        ends = [event for event in events if isinstance(event, HungUp)]
        assert ends == [events[-1]]
        assert ends[0].cause == CAUSES[number % len(CAUSES)]
    arrived.clear()
    paired.clear()
    gc.collect()
    assert not alive
    assert not abandoned
    assert sum(issubclass(kind, kinds) for kind in map(type, gc.get_objects())) <= before
    assert len(asyncio.all_tasks()) == tasks_before
    assert _open_files() == files_before


def _open_files() -> int:
    """How many files and sockets this process holds open, where the system tells."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.is_dir() else 0
