"""One ticker for all calls: on the virtual clock, which a tick may move to play a loop that stalls."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from dueto.legs.ticker import Ticker
from dueto.sim.virtual import VirtualTimeLoop, run_virtual


def loop() -> VirtualTimeLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running


def remembering(times: list[float], count: int, then: Callable[[], None] = lambda: None) -> Callable[[float], bool]:
    """A tick that wants to be called `count` times."""

    def tick(now: float) -> bool:
        times.append(round(now, 6))
        if len(times) == count:
            then()
        return len(times) < count

    return tick


def test_ticks_come_every_period_and_do_not_drift() -> None:
    async def run() -> list[float]:
        times: list[float] = []
        done = asyncio.Event()
        Ticker(clock=loop().time).add(remembering(times, 10_000, done.set))
        await done.wait()
        return times

    times = run_virtual(run(), start_s=0.0)
    assert times == pytest.approx([0.02 * (number + 1) for number in range(10_000)], abs=1e-6)


def test_a_round_that_is_due_need_not_wait_for_all_the_work_of_a_turn() -> None:
    async def run() -> list[float]:
        times: list[float] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)
        ticker.add(remembering(times, 10, done.set))

        def much_work() -> None:
            for _ in range(90):
                loop().jump(0.001)
                ticker.keep_time(loop().time())

        loop().call_later(0.001, much_work)
        await done.wait()
        return times

    assert run_virtual(run(), start_s=0.0) == pytest.approx([0.02 * (number + 1) for number in range(10)])


def test_to_keep_time_within_a_round_begins_no_other() -> None:
    async def run() -> list[float]:
        times: list[float] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)

        def slow(now: float) -> bool:
            loop().jump(0.025)
            ticker.keep_time(loop().time())
            return not done.is_set()

        ticker.add(slow)
        ticker.add(remembering(times, 3, done.set))
        await done.wait()
        return times

    assert run_virtual(run(), start_s=0.0) == pytest.approx([0.02, 0.045, 0.07])


def test_a_slow_tick_does_not_make_the_next_one_late() -> None:
    async def run() -> list[float]:
        times: list[float] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)

        def slow(now: float) -> bool:
            loop().jump(0.007)
            return not done.is_set()

        ticker.add(slow)
        ticker.add(remembering(times, 100, done.set))
        await done.wait()
        return times

    assert run_virtual(run(), start_s=0.0) == pytest.approx([0.02 * (number + 1) for number in range(100)])


def test_after_a_stall_ticks_are_skipped_not_made_up_for() -> None:
    async def run() -> list[float]:
        times: list[float] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)

        def stall_once(now: float) -> bool:
            if len(times) == 3:
                loop().jump(0.113)
            return not done.is_set()

        ticker.add(remembering(times, 10, done.set))
        ticker.add(stall_once)
        await done.wait()
        return times

    times = run_virtual(run(), start_s=0.0)
    gaps = [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 0.02 - 1e-6  # no burst
    assert sorted(gaps)[-1] == pytest.approx(0.113, abs=0.021)
    assert sum(gap > 0.0201 for gap in gaps) == 1


def test_a_timer_that_fires_early_costs_no_tick() -> None:
    class EarlyLoop(VirtualTimeLoop):
        """Its timers fire up to a millisecond early, as uvloop's do."""

        def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
            return super().call_later(max(delay - 0.0007, 0.0), callback, *args, context=context)

    async def run() -> list[float]:
        times: list[float] = []
        done = asyncio.Event()
        Ticker(clock=loop().time).add(remembering(times, 1000, done.set))
        await done.wait()
        return times

    with asyncio.Runner(loop_factory=lambda: EarlyLoop(0.0)) as runner:
        times = runner.run(run())
    assert len(times) == 1000
    assert times[-1] == pytest.approx(20.0, abs=0.001)


def test_a_failing_tick_does_not_stop_the_others_and_is_not_called_again() -> None:
    async def run() -> tuple[list[float], list[dict[str, Any]], int]:
        times: list[float] = []
        failures: list[dict[str, Any]] = []
        failed = 0
        loop().set_exception_handler(lambda _, context: failures.append(context))
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)

        def fails(now: float) -> bool:
            nonlocal failed
            failed += 1
            raise ValueError("broken")

        ticker.add(fails)
        ticker.add(remembering(times, 5, done.set))
        await done.wait()
        return times, failures, failed

    times, failures, failed = run_virtual(run(), start_s=0.0)
    assert len(times) == 5
    assert failed == 1
    assert [str(failure["exception"]) for failure in failures] == ["broken"]


def test_a_tick_may_remove_another_and_itself() -> None:
    async def run() -> list[str]:
        called: list[str] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)

        def second(now: float) -> bool:
            called.append("second")
            return True

        def first(now: float) -> bool:
            called.append("first")
            ticker.remove(second)
            ticker.remove(first)
            return True

        def last(now: float) -> bool:
            called.append("last")
            if called.count("last") == 2:
                done.set()
            return not done.is_set()

        for tick in (first, second, last):
            ticker.add(tick)
        await done.wait()
        return called

    assert run_virtual(run(), start_s=0.0) == ["first", "last", "last"]


def test_what_a_tick_adds_starts_one_period_later_and_nothing_runs_twice() -> None:
    async def run() -> tuple[list[float], list[float]]:
        first: list[float] = []
        second: list[float] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)
        late = remembering(second, 10, done.set)

        def adds(now: float) -> bool:
            first.append(round(now, 6))
            ticker.add(late)
            return len(first) < 5

        ticker.add(adds)
        await done.wait()
        return first, second

    first, second = run_virtual(run(), start_s=0.0)
    assert first == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert second == pytest.approx([0.04 + 0.02 * number for number in range(10)])


def test_adding_twice_is_once() -> None:
    async def run() -> list[float]:
        times: list[float] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)
        tick = remembering(times, 3, done.set)
        ticker.add(tick)
        ticker.add(tick)
        assert len(ticker) == 1
        await done.wait()
        return times

    assert run_virtual(run(), start_s=0.0) == pytest.approx([0.02, 0.04, 0.06])


def test_an_idle_ticker_sets_no_timer_and_starts_anew() -> None:
    async def run() -> tuple[list[float], float]:
        times: list[float] = []
        done = asyncio.Event()
        ticker = Ticker(clock=loop().time)
        ticker.add(remembering(times, 2, done.set))
        await done.wait()
        assert len(ticker) == 0
        await asyncio.sleep(100.005)
        began = loop().time()
        again: list[float] = []
        done.clear()
        ticker.add(remembering(again, 1, done.set))
        await done.wait()
        return times, again[0] - began

    times, first = run_virtual(run(), start_s=0.0)
    assert times == pytest.approx([0.02, 0.04])
    assert first == pytest.approx(0.02)
