"""What a provider told: in order, whichever way a piece of speech takes."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.agents.ports import CallerBegan, ProviderEvent, Spoke, SpokeLast
from dueto.agents.told import MAX_WAITING_BYTES, MAX_WAITING_EVENTS, Told
from dueto.errors import ProviderFailed
from dueto.sim import run_virtual

EVENTS = st.one_of(
    st.builds(Spoke, st.sampled_from("ab"), st.binary(min_size=1, max_size=2)),
    st.builds(SpokeLast, st.sampled_from("ab")),
    st.just(CallerBegan()),
)


@given(st.lists(st.tuples(EVENTS, st.booleans())), st.booleans())
def test_every_event_is_read_once_and_in_order_whether_or_not_its_speech_was_taken(
    happens: list[tuple[ProviderEvent, bool]], begins_late: bool
) -> None:
    read: list[ProviderEvent] = []
    begun: set[str] = set()

    def more(event: Spoke) -> bool:
        if event.item_id in begun:
            read.append(event)
        return event.item_id in begun

    async def listens(told: Told) -> None:
        async for event in told.events(more):
            read.append(event)
            if isinstance(event, Spoke):
                begun.add(event.item_id)

    async def telling() -> None:
        told = Told("Acme")
        listening = asyncio.ensure_future(listens(told))
        if not begins_late:
            await asyncio.sleep(0)
        for event, pauses in happens:
            told.put(event)
            if pauses:
                await asyncio.sleep(0.01)
        told.end()
        await listening

    run_virtual(telling())
    assert read == [event for event, _ in happens]


async def test_more_of_something_is_taken_in_the_turn_in_which_it_came() -> None:
    told, taken = Told("Acme"), []

    def takes(event: Spoke) -> bool:
        taken.append(event)
        return True

    reading = asyncio.ensure_future(anext(told.events(takes)))
    await asyncio.sleep(0)
    told.put(Spoke("a", b"\1\0"))
    assert taken == [Spoke("a", b"\1\0")]
    told.put(CallerBegan())
    told.put(Spoke("a", b"\2\0"))  # something waits before it
    assert len(taken) == 1
    assert await reading == CallerBegan()


async def read_to_the_end(told: Told) -> tuple[int, str]:
    """Return how many events there were, and the failure behind them, if there was one."""
    read = 0
    try:
        async for _ in told.events():
            read += 1
    except ProviderFailed as failure:
        return read, f"{failure.fault}: {failure}"
    return read, ""


async def test_a_provider_that_sends_more_events_than_anybody_can_take_has_failed() -> None:
    told = Told("Acme")
    for _ in range(MAX_WAITING_EVENTS):
        told.put(CallerBegan())
    assert not told.over
    told.put(CallerBegan())
    assert told.over
    told.put(CallerBegan())
    assert await read_to_the_end(told) == (
        MAX_WAITING_EVENTS + 1,
        "protocol: Acme sends more than anybody can take",
    )


@pytest.mark.parametrize("too_much", [False, True])
async def test_only_speech_that_waits_counts_towards_what_may_wait_of_it(too_much: bool) -> None:
    told, half = Told("Acme"), Spoke("a", bytes(MAX_WAITING_BYTES // 2))
    events = told.events()
    for _ in range(3):
        told.put(half)
        assert await anext(events) == half
    told.put(half)
    told.put(half)
    assert not told.over
    if too_much:
        told.put(Spoke("a", b"\0"))
    assert told.over == too_much


async def test_what_waits_is_read_before_the_first_failure_and_nothing_comes_after_it() -> None:
    told = Told("Acme")
    told.put(CallerBegan())
    told.fail(ProviderFailed("dropped", "first"))
    told.fail(ProviderFailed("timeout", "second"))
    told.put(CallerBegan())
    told.end()
    assert await read_to_the_end(told) == (1, "dropped: first")


@pytest.mark.parametrize("failure", [None, ProviderFailed("dropped", "gone")])
async def test_a_reader_that_waits_is_told_of_the_end(failure: ProviderFailed | None) -> None:
    told = Told("Acme")
    reading = asyncio.ensure_future(read_to_the_end(told))
    await asyncio.sleep(0)
    if failure is None:
        told.end()
        told.fail(ProviderFailed("dropped", "too late"))
    else:
        told.fail(failure)
    async with asyncio.timeout(10):
        assert await reading == (0, "" if failure is None else "dropped: gone")
