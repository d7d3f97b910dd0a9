"""What a call waits for: it is so, it is not, and who waits is woken."""

import asyncio

from dueto.call.latch import Latch


async def test_who_waits_is_woken_once_it_is_so() -> None:
    latch = Latch()
    waiting = [asyncio.ensure_future(latch.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    latch.set()
    await asyncio.gather(*waiting)
    assert latch.is_set()


async def test_nobody_waits_for_what_is_so() -> None:
    latch = Latch()
    latch.set()
    await latch.wait()


async def test_who_waits_while_it_is_cleared_is_woken_by_the_next_time() -> None:
    latch = Latch()
    early = asyncio.ensure_future(latch.wait())
    await asyncio.sleep(0)
    latch.clear()
    late = asyncio.ensure_future(latch.wait())
    await asyncio.sleep(0)
    assert not early.done()
    latch.set()
    await asyncio.gather(early, late)
    latch.clear()
    assert not latch.is_set()
    again = asyncio.ensure_future(latch.wait())
    await asyncio.sleep(0)
    assert not again.done()
    latch.set()
    await again
