"""Virtual time: it jumps to the next timer, keeps the order, and says so when nothing can come any more."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.sim import VirtualTimeDeadlock, run_virtual


def test_an_hour_passes_at_once() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - before

    began = time.monotonic()
    assert run_virtual(main()) == pytest.approx(3600)
    assert time.monotonic() - began < 60  # far below an hour, on any machine


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_timers_fire_in_the_order_of_their_time_and_exactly_then(delays: list[float]) -> None:
    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        fired: list[tuple[float, float]] = []

        async def wait(delay: float) -> None:
            await asyncio.sleep(delay)
            fired.append((delay, loop.time()))

        await asyncio.gather(*(wait(delay) for delay in delays))
        return fired

    fired = run_virtual(main(), start_s=0.0)
    assert [delay for delay, _ in fired] == sorted(delays)
    assert all(at == pytest.approx(delay, abs=1e-6) for delay, at in fired)


def test_a_timeout_ends_what_never_comes() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main(), start_s=100.0) == pytest.approx(105)


def test_a_deadlock_is_an_error_that_names_who_waits() -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(forgotten(), name="the forgotten one")

    with pytest.raises(VirtualTimeDeadlock, match="the forgotten one"):
        run_virtual(main())


def test_time_stands_still_while_a_thread_works() -> None:
    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        late = loop.call_later(0.5, lambda: None)
        result = await asyncio.to_thread(lambda: "done")
        late.cancel()
        return result, loop.time()

    result, now = run_virtual(main())
    assert result == "done"
    assert now == 1000.0


@pytest.mark.parametrize("what", ["connection", "server"])
def test_a_real_socket_is_refused(what: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if what == "connection":
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
        else:
            await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)

    with pytest.raises(RuntimeError, match="memory pipes"):
        run_virtual(main())
