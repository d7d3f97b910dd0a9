"""What is made ready while a call's stream is on its way: used by that call, or thrown away. On virtual time."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agents.scripted import ScriptedProvider
from tests.agents.test_warm_links import Acme, talked
from tests.call.test_transfers import virtually
from tests.support.virtual import Virtual, virtual_desk

from dueto.agents.expected import MOST, ConnectAhead, Expected
from dueto.agents.failover import FailOver, Limit, Limited, Post
from dueto.agents.ports import Opening, VoiceProvider
from dueto.agents.provider import ProviderAgent
from dueto.agents.routing import Assignment, Router, Rule, pattern
from dueto.agents.warm_links import PROVES_S, WarmLinks
from dueto.call import Agent, CallRules
from dueto.errors import ProviderFailed
from dueto.sim import Caller, Faults, run_virtual

LATE = Faults(first="control", media_late_s=2.0)
NEVER = Faults(first="control", media_never=True)
RULES = CallRules(rate_hz=8000, warn_after_s=3.0, give_up_after_s=6.0)


async def greets(provider: ScriptedProvider) -> None:
    await provider.says("one", 400)
    await asyncio.sleep(1)
    provider.end()


def agent_over(links: WarmLinks) -> ProviderAgent:
    """An agent whose provider needs a connection of `links`, and nothing else."""

    async def connect(opening: Opening) -> VoiceProvider:
        link = await links.begin(talked, opening.call_id)
        provider = ScriptedProvider(greets)
        await provider.connect(opening)
        provider.log.append(("link", link))
        return provider

    return ProviderAgent(ConnectAhead(connect, links.expected))


async def served(agent: Agent, faults: Sequence[Faults], route: Router | None = None) -> Virtual:
    """Place calls, all at once, and wait for their end."""
    async with virtual_desk(agent, rules=RULES) as virtual:
        if route is not None:
            virtual.desk.house = route.settle(virtual.desk.house)
        async with virtual.switch() as switch:
            for call in [await switch.place(Caller(), faults=fault) for fault in faults]:
                await call.over()
    return virtual


def noted(virtual: Virtual, event: str, field: str) -> Any:
    (value,) = (fields[field] for _, name, fields in virtual.journal if name == event)
    return value


@virtually
async def test_the_connection_is_there_when_the_stream_comes() -> None:
    acme = Acme()  # a connection takes it half a second
    virtual = await served(agent_over(WarmLinks(acme.dial)), [LATE])
    assert noted(virtual, "provider_connected", "took_ms") == 0
    assert len(acme.attempts) == 1
    assert "ready_in_vain" not in virtual.names()


@virtually
async def test_a_connection_that_is_half_open_by_then_is_waited_for() -> None:
    acme = Acme()
    late = Faults(first="control", media_late_s=0.3)
    virtual = await served(agent_over(WarmLinks(acme.dial)), [late])
    assert 0 < noted(virtual, "provider_connected", "took_ms") <= 250
    assert len(acme.attempts) == 1


@virtually
async def test_a_call_whose_stream_never_comes_leaves_no_connection_behind_and_is_counted() -> None:
    acme = Acme()
    virtual = await served(agent_over(WarmLinks(acme.dial)), [NEVER])
    assert len(acme.attempts) == 1
    assert acme.open == []
    assert virtual.names().count("ready_in_vain") == 1
    assert "agent_started" not in virtual.names()


@virtually
async def test_a_call_that_hangs_up_while_its_connection_is_being_opened_leaves_none() -> None:
    acme = Acme()
    async with virtual_desk(agent_over(WarmLinks(acme.dial)), rules=RULES) as virtual, virtual.switch() as switch:
        call = await switch.place(Caller(), faults=NEVER)
        await asyncio.sleep(0.2)
        call.hang_up()
        await call.over()
        await asyncio.sleep(1)
    assert len(acme.attempts) == 1
    assert acme.open == []


@virtually
async def test_a_call_whose_stream_came_first_connects_as_ever() -> None:
    acme = Acme()
    virtual = await served(agent_over(WarmLinks(acme.dial)), [Faults(first="media")])
    assert noted(virtual, "provider_connected", "took_ms") >= 500
    assert len(acme.attempts) == 1


@virtually
async def test_what_failed_meanwhile_is_the_calls_failure_and_not_tried_again() -> None:
    acme = Acme("auth")
    virtual = await served(agent_over(WarmLinks(acme.dial)), [LATE])
    assert len(acme.attempts) == 1
    assert noted(virtual, "provider_failed", "fault") == "auth"


@virtually
async def test_a_connection_that_broke_meanwhile_costs_a_fresh_one_and_no_failure() -> None:
    acme = Acme(lives_s=1.0)
    virtual = await served(agent_over(WarmLinks(acme.dial)), [LATE])
    assert len(acme.attempts) == 2
    assert "provider_failed" not in virtual.names()


@virtually
async def test_a_connection_that_waits_for_any_call_is_taken_for_the_one_that_comes() -> None:
    acme = Acme()
    links = WarmLinks(acme.dial, size=1)
    links.start()
    await asyncio.sleep(1)
    links.expected.expect("a call")
    await asyncio.sleep(1)
    assert (len(acme.attempts), links.ready) == (2, 1), "and another one is in its place"
    assert await links.begin(talked, "a call") is acme.wires[0]
    await links.aclose()


@virtually
async def test_nothing_is_made_ready_for_calls_that_have_no_place() -> None:
    acme = Acme()
    agent = FailOver([Post("voice", agent_over(WarmLinks(acme.dial)), limit=Limit(2))], when_full="busy")
    await served(agent, [NEVER] * 5)
    assert len(acme.attempts) == 2
    await served(Limited(agent, Limit(1), "acme", "busy"), [NEVER] * 5)
    assert len(acme.attempts) == 3, "the places of those that never came are free again"
    assert acme.open == []


@virtually
async def test_it_is_made_ready_for_the_agent_that_the_route_names() -> None:
    one, other, none = Acme(), Acme(), Acme()

    def to(acme: Acme, name: str) -> Assignment:
        return Assignment(name, agent_over(WarmLinks(acme.dial)), {}, RULES)

    rules = [Rule(to(one, "one"), dialled=pattern(["1*"])), Rule(to(other, "other"), dialled=pattern(["du*"]))]
    virtual = await served(
        agent_over(WarmLinks(none.dial)), [LATE], route=Router(rules, to(none, "none"), patience_s=1)
    )
    assert [len(acme.attempts) for acme in (one, other, none)] == [0, 1, 0]
    assert noted(virtual, "provider_connected", "took_ms") == 0


@virtually
async def test_no_more_than_so_many_are_made_ready_at_once() -> None:
    never = asyncio.Event()
    expected: Expected[bool] = Expected(never.wait)
    for call in range(MOST + 10):
        expected.expect(str(call))
    assert len(expected) == MOST
    assert await expected.take(str(MOST + 1)) is None
    await expected.aclose()
    assert len(expected) == 0


@virtually
async def test_one_that_was_opened_for_this_call_may_take_its_time_and_an_old_one_may_not() -> None:
    acme = Acme()
    links = WarmLinks(acme.dial)

    async def slow(dial: Any) -> object:
        link = await talked(dial)
        await asyncio.sleep(PROVES_S + 1)
        return link

    links.expected.expect("young")
    await asyncio.sleep(1)
    assert await links.begin(slow, "young") is acme.wires[0]
    links.expected.expect("old")
    await asyncio.sleep(30)
    assert await links.begin(slow, "old") is acme.wires[2]


@virtually
async def test_a_call_that_is_cancelled_while_it_waits_for_its_connection_opens_none() -> None:
    acme = Acme()
    links = WarmLinks(acme.dial)
    links.expected.expect("a call")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await links.begin(talked, "a call")
    await asyncio.sleep(1)
    assert acme.open == []


@virtually
async def test_a_failure_that_nobody_waits_for_is_forgotten() -> None:
    acme = Acme("quota")
    links = WarmLinks(acme.dial)
    links.expected.expect("a call")
    await asyncio.sleep(1)
    assert links.expected.forget("a call")
    with pytest.raises(ProviderFailed):
        await links.begin(talked, "a call")


STEPS = st.lists(
    st.tuples(st.sampled_from(["expect", "take", "forget", "cancelled take", "wait"]), st.integers(0, 2)), max_size=25
)


@given(STEPS, st.lists(st.sampled_from([0.0, 0.01, 0.1, 5.0, -1.0]), min_size=25, max_size=25))
def test_whatever_is_made_is_taken_by_its_call_or_thrown_away_once(
    steps: list[tuple[str, int]], times: list[float]
) -> None:
    """`times`: how long each takes to be made; below 0: it fails."""
    made: list[int] = []
    taken: list[int] = []
    thrown: list[int] = []

    async def make() -> int:
        number = len(made) + len(failed)
        if times[number] < 0:
            failed.append(number)
            raise ProviderFailed("refused", "not today")
        try:
            await asyncio.sleep(times[number])
        except asyncio.CancelledError:
            failed.append(number)
            raise
        made.append(number)
        return number

    async def story() -> None:
        expected: Expected[int] = Expected(make, thrown.append)
        for step, call in steps:
            match step:
                case "expect":
                    expected.expect(str(call))
                case "forget":
                    expected.forget(str(call))
                case "wait":
                    await asyncio.sleep(0.05)
                case _:
                    with contextlib.suppress(ProviderFailed, TimeoutError):
                        async with asyncio.timeout(0.01 if step == "cancelled take" else None):
                            number = await expected.take(str(call))
                            taken.extend([] if number is None else [number])
        await expected.aclose()
        await asyncio.sleep(0.1)  # what was cancelled has come to its end
        assert len(expected) == 0
        assert len(asyncio.all_tasks()) == 1

    failed: list[int] = []
    run_virtual(story())
    assert sorted(taken + thrown) == sorted(made)


@virtually
async def test_what_is_made_in_the_moment_in_which_its_call_is_cancelled_is_thrown_away() -> None:
    may, thrown = asyncio.Event(), list[bool]()
    expected: Expected[bool] = Expected(may.wait, thrown.append)
    expected.expect("a call")
    taking = asyncio.ensure_future(expected.take("a call"))
    await asyncio.sleep(1)
    may.set()
    await asyncio.sleep(0)  # it is made, and who waits for it has not been told
    taking.cancel()
    await asyncio.wait({taking})
    assert taking.cancelled()
    assert thrown == [True]
