"""Random verbs against a switch that answers, delays, refuses, hangs up or dies: each ends in time, and typed."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.call.doing import DESTINATIONS, MONDAY, RULES, VERBS, Doing, outcome_of
from tests.support.virtual import virtual_desk

from dueto.call import Call
from dueto.call.house import Whereabouts
from dueto.errors import DuetoError
from dueto.sim import Caller, Endpoint, Faults, PipeFaults, run_virtual

DEADLINES_S = {"announced": 40.0, "attended": 40.0, "bridge": 20.0, "transfer": 20.0}
DEADLINE_S = 16.0
"Of every other verb: 5 s until a control leg is given up on, 5 s for each of two replies, and a little."
OPERATOR = Endpoint("answers", answer_after_s=0.2, hangs_up_after_s=0.5, presses="1", presses_after_s=0.1)

doings = st.lists(
    st.tuples(
        st.sampled_from([*sorted(VERBS), *["tag by api", "tag by job", "tag by execute"] * 4]),
        st.integers(0, 800),  # ms until it begins
        st.sampled_from([None, None, None, 10, 60, 400]),  # ms until whoever asked has lost patience
    ),
    min_size=1,
    max_size=12,
)
troubles = st.builds(
    Faults,
    reply_delay_s=st.sampled_from([0.0, 0.0, 0.04, 0.9]),
    control_reset_after_s=st.sampled_from([None, None, None, 0.8, 2.0]),
    refused=st.frozensets(
        st.sampled_from(["originate", "uuid_bridge", "uuid_hold", "uuid_kill", "uuid_setvar", "uuid_record"]),
        max_size=2,
    ),
    half_open=st.sampled_from([None, None, None, "both"]),
    half_open_after_s=st.sampled_from([0.5, 1.5]),
)


async def ask(call: Call, kind: str, tag: str) -> None:
    """Ask for what nobody else asks for: an answer that reached the wrong waiter is another's tag."""
    with contextlib.suppress(DuetoError):
        if kind == "tag by api":
            assert await call.api("echo", tag) == tag
        elif kind == "tag by job":
            assert await call.bgapi("echo", tag, timeout_s=5.0) == tag
        else:
            completion = await call.execute("set", f"tag={tag}", timeout_s=5.0)
            assert completion.get("Application-Data") == f"tag={tag}"


async def impatient(work: Awaitable[object], patience_ms: int | None) -> None:
    """Wait for `work`, or cancel it."""
    with contextlib.suppress(TimeoutError if patience_ms is not None else ()):
        async with asyncio.timeout(None if patience_ms is None else patience_ms / 1000):
            await work


async def one(call: Call, number: int, name: str, wait_ms: int, patience_ms: int | None) -> None:
    """Do one thing: it ends within its deadline, and what it raises is typed. Who asks for tags asks for several."""
    await asyncio.sleep(wait_ms / 1000)
    try:
        async with asyncio.timeout(DEADLINES_S.get(name, DEADLINE_S)):
            if name in VERBS:
                await impatient(outcome_of(VERBS[name](call)), patience_ms)
            else:
                asked = [ask(call, name, f"{number}-{part}") for part in range(3)]
                await asyncio.gather(impatient(asked[0], patience_ms), *asked[1:])
    except TimeoutError:
        if not (name == "say" and call._session.state.held):  # on hold nothing is heard, and a dead switch ends no hold
            raise


@settings(
    max_examples=int(os.environ.get("DUETO_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    plan=doings,
    together=st.booleans(),
    trouble=troubles,
    hangs_up_s=st.sampled_from([None, None, 0.5, 1.5, 4.0]),
    seed=st.integers(0, 99),
)
@example(
    plan=[("announced", 0, None), ("answer", 42, None), ("hold", 41, None), ("say", 181, None)],
    together=True,
    trouble=Faults(reply_delay_s=0.04, half_open="both", half_open_after_s=0.5),
    hangs_up_s=None,
    seed=0,
)
@example(
    plan=[("attended", 0, None), ("hold", 0, 10)],
    together=True,
    trouble=Faults(),
    hangs_up_s=None,
    seed=0,
)
def test_whatever_the_switch_does_every_verb_ends_typed_and_no_answer_reaches_the_wrong_waiter(
    plan: list[tuple[str, int, int | None]], together: bool, trouble: Faults, hangs_up_s: float | None, seed: int
) -> None:
    async def do(call: Call) -> None:
        if together:
            await asyncio.gather(*[one(call, number, *deed) for number, deed in enumerate(plan)])
        else:
            for number, deed in enumerate(plan):
                await one(call, number, *deed)

    async def run() -> None:
        agent = Doing(do)
        house: dict[str, Any] = {"destinations": DESTINATIONS, "whereabouts": Whereabouts("127.0.0.1:8022")}
        async with virtual_desk(
            agent, rules=RULES, local_time=lambda: MONDAY, pipe_faults=PipeFaults(seed=seed), **house
        ) as virtual:
            async with virtual.switch(endpoints={"user/1001": OPERATOR}, faults=trouble) as switch:
                call = await switch.place(Caller())
                if hangs_up_s is not None:
                    await asyncio.sleep(hangs_up_s)
                    call.hang_up()
                async with asyncio.timeout(600):
                    await agent.done.wait()
                if trouble.half_open is not None:  # nobody tells such a gateway; its own kernel would in the end
                    for session in virtual.desk:
                        session.abort()
                call.hang_up()
                await call.over()
        assert agent.error is None or isinstance(agent.error, asyncio.CancelledError), repr(agent.error)

    run_virtual(run())
