"""Random calls over `unicast` under random trouble: each ends once, is told once, and leaves no port behind."""

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.call.test_interleavings import VERBS, Witness, seconds, troubles
from tests.support.unicast import RULES, unicast_desk

from dueto.call import Destination
from dueto.call.events import Bridged, HungUp, Unbridged
from dueto.sim import Caller, Endpoint, Line, MemoryNetwork, PipeFaults, SimCall, Switch, run_virtual


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Set aside what was there before, so that looking for leaks costs a millisecond and not ten."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(troubles, st.integers(0, 4)), min_size=3, max_size=3),
    VERBS,
    seconds,
    st.lists(st.floats(0.0, 6.0), max_size=3),
    st.sampled_from(["silence_stream://200", "", "elsewhere"]),
    st.booleans(),
    st.integers(0, 999),
)
def test_under_any_trouble_every_call_over_unicast_ends_once_and_leaves_no_port(
    faults: list[tuple[object, int]],
    verbs: list[str],
    lasts_s: float,
    moments: list[float],
    what: str,
    lossy: bool,
    seed: int,
) -> None:
    witness = Witness(verbs)

    async def script(line: Line) -> None:
        await line.press("1")
        await line.wait(lasts_s)

    async def meddle(switch: Switch, call: SimCall) -> None:
        """Somebody else does something to the channel, over the switch's own socket."""
        for moment in sorted(moments):
            await asyncio.sleep(moment)
            line = f"uuid_broadcast {call.unique_id} {what}"
            if what == "elsewhere":
                line = f"uuid_transfer {call.unique_id} 'playback:silence_stream://3000,hangup:' inline"
            elif not what:
                line = f"uuid_transfer {call.unique_id} 'socket:127.0.0.1:8022 async full' inline"
            if call.channel.up:
                call.channel.core.run_api(call.channel, line)

    async def run() -> None:
        network = MemoryNetwork(lost=(lambda number, _: number * 7919 % 31 == seed % 31) if lossy else None)
        rules = replace(RULES, give_up_after_s=6.0, warn_after_s=2.0)
        async with (
            unicast_desk(
                witness,
                rules=rules,
                network=network,
                pipe_faults=PipeFaults(split=bool(seed % 2), seed=seed),
                destinations={"sales": Destination("sales", "user/1")},
            ) as here,
            here.switch(
                endpoints={"user/1": Endpoint(answer_after_s=0.5, hangs_up_after_s=0.7)},
                dialplan=[("playback", "silence_stream://3000")],
                record=False,
            ) as switch,
        ):
            calls = [
                await switch.place(Caller(script=script), faults=replace(trouble, unicast_busy=busy))  # type: ignore[type-var]
                for trouble, busy in faults
            ]
            async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
                meddlers = [tasks.create_task(meddle(switch, call)) for call in calls]
                for call in calls:
                    await call.over()
                for meddler in meddlers:
                    meddler.cancel()
        for call in calls:
            names = here.desk.names(call.unique_id)
            ended = names.count("call_ended")
            assert witness.runs.get(call.unique_id, 0) <= ended
            assert names.count("hungup") == ended

    run_virtual(run(), start_s=1000.0)
    for told in witness.told:
        assert [at for at, event in enumerate(told) if isinstance(event, HungUp)] == [len(told) - 1], told
        bridges = [type(event) for event in told if isinstance(event, Bridged | Unbridged)]
        assert all(a is not b for a, b in pairwise(bridges)), told
    assert not witness.untyped
    gc.collect()
    assert not witness.alive
