"""A hold that whoever asked for it did not wait for."""

import asyncio
import contextlib

import pytest
from tests.support.virtual import virtual_desk

from dueto.call import Call
from dueto.sim import Caller, run_virtual


@pytest.mark.parametrize("patience_ms", [1, 10, 19, 21, 40])
def test_a_hold_that_was_given_up_is_taken_back_although_the_switch_tells_of_it_later(patience_ms: int) -> None:
    held: list[bool] = []

    async def agent(call: Call) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_ms / 1000):
                await call.hold()
        await call.unhold()
        await asyncio.sleep(1)
        held.append(call._session.state.held)

    async def scene() -> None:
        async with virtual_desk(agent) as here, here.switch() as switch:
            call = await switch.place(Caller())
            await here.until_noted("agent_finished")
            held.append(call.channel.held)
            call.hang_up()
            await call.done()

    run_virtual(scene())
    assert held == [False, False]
