"""What is known of the end of a call: the first proof names the witness, and a cause once known stays."""

import asyncio
from typing import cast

import pytest
from tests.support.virtual import virtual_desk

from dueto.call import Call
from dueto.call.ending import Ending
from dueto.sim import Caller, Faults, run_virtual


@pytest.mark.parametrize("later", [None, "USER_BUSY"])
def test_the_first_cause_and_the_first_witness_stay(later: str | None) -> None:
    ending = Ending()
    ending.proved("NORMAL_CLEARING", "CHANNEL_HANGUP")
    ending.proved(later, "linger")
    assert (ending.cause, ending.witness) == ("NORMAL_CLEARING", "CHANNEL_HANGUP")


def test_a_later_proof_adds_the_cause_that_the_first_had_not() -> None:
    ending = Ending()
    ending.proved(None, "linger")
    ending.proved("USER_BUSY", "CHANNEL_HANGUP_COMPLETE")
    assert (ending.cause, ending.witness) == ("USER_BUSY", "linger")


def test_the_end_of_a_call_is_noted_once_in_order_with_its_figures() -> None:
    async def agent(call: Call) -> None:
        async for _ in call.events():
            pass

    async def scene() -> None:
        async with virtual_desk(agent) as here, here.switch() as switch:
            call = await switch.place(Caller())
            await asyncio.sleep(2)
            call.hang_up()
            await call.done()
            await here.until_noted("call_ended")
            last = [
                (event, fields)
                for _, event, fields in here.journal
                if event in ("hungup", "hangup_delivered", "call_ended")
            ]
        assert [event for event, _ in last] == ["hungup", "hangup_delivered", "call_ended"]
        assert last[0][1] == {"cause": "NORMAL_CLEARING", "witness": "CHANNEL_HANGUP"}
        assert 0 <= cast(float, last[1][1]["to_agent_ms"]) < 100
        assert cast(float, last[2][1]["duration_s"]) == pytest.approx(2, abs=0.5)
        assert last[2][1]["cause"] == "NORMAL_CLEARING"

    run_virtual(scene(), start_s=1000.0)


def test_a_call_that_ends_before_its_agent_began_is_noted_in_order_too() -> None:
    async def agent(call: Call) -> None:
        raise AssertionError("no stream came")

    async def scene() -> None:
        faults = Faults(media_never=True, control_reset_after_s=1.0)
        async with virtual_desk(agent) as here, here.switch(faults=faults) as switch:
            call = await switch.place(Caller())
            await here.until_noted("call_ended")
            names = [name for name in here.names() if name in ("hungup", "call_ended", "task_failed")]
            call.hang_up()
            await call.done()
        assert names == ["hungup", "call_ended"]

    run_virtual(scene(), start_s=1000.0)
