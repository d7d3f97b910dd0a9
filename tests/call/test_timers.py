"""A call's timers: each tells once, in time, and none outlives what it was for."""

import asyncio
from typing import Any

import pytest

from dueto.call import phase
from dueto.call.timers import Timers
from dueto.sim import run_virtual


class Session:
    """What a timer tells."""

    def __init__(self) -> None:
        self.happened: list[tuple[str, float]] = []
        session: Any = self
        self.timers = Timers(session)
        self._began = asyncio.get_running_loop().time()

    def happen(self, event: phase.Event) -> None:
        now = asyncio.get_running_loop().time()
        self.happened.append((type(event).__name__, pytest.approx(now - self._began)))


def test_each_event_happens_once_in_its_time_in_whatever_order_they_are_given() -> None:
    async def run() -> None:
        session = Session()
        session.timers.start("media", (5.0, phase.GiveUpTime()), (2.0, phase.WarnTime()))
        session.timers.start("grace", (3.0, phase.GraceOver()))
        await asyncio.sleep(60)
        assert session.happened == [("WarnTime", 2.0), ("GraceOver", 3.0), ("GiveUpTime", 5.0)]

    run_virtual(run())


def test_what_is_started_again_takes_the_place_of_what_ran_under_its_name() -> None:
    async def run() -> None:
        session = Session()
        session.timers.start("grace", (2.0, phase.GraceOver()))
        await asyncio.sleep(1)
        session.timers.start("grace", (2.0, phase.GraceOver()))
        await asyncio.sleep(60)
        assert session.happened == [("GraceOver", 3.0)]

    run_virtual(run())


def test_what_is_stopped_tells_nothing_and_the_others_go_on() -> None:
    async def run() -> None:
        session = Session()
        timers = session.timers
        timers.start("media", (1.0, phase.WarnTime()), (3.0, phase.GiveUpTime()))
        timers.start("grace", (4.0, phase.GraceOver()))
        timers.start("leaving", (5.0, phase.Left()))
        await asyncio.sleep(2)
        timers.stop("media", "unknown")
        timers.stop_all(but="leaving")
        await asyncio.sleep(60)
        assert session.happened == [("WarnTime", 1.0), ("Left", 5.0)]
        timers.start("leaving", (5.0, phase.Left()))
        timers.stop_all()
        await asyncio.sleep(60)
        assert len(session.happened) == 2

    run_virtual(run())
