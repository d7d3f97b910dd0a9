"""What a provider told: in order, whichever way a piece of speech takes."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dueto.agents.ports import CallerBegan, ProviderEvent, Spoke, SpokeLast
from dueto.agents.told import Told
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
