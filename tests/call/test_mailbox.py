"""What waits for the agent: in order, bounded, and the hangup always arrives, as the last."""

import asyncio

import pytest

from dueto.call.events import CallEvent, Dtmf, HungUp
from dueto.call.mailbox import MAX_WAITING_EVENTS, Mailbox
from dueto.errors import AgentTooSlow

HANGUP = HungUp("NORMAL_CLEARING", "CHANNEL_HANGUP")


async def read(mailbox: Mailbox, at_hangup: list[CallEvent] | None = None) -> list[CallEvent]:
    events: list[CallEvent] = []
    async for event in mailbox.read(lambda: at_hangup.extend(events) if at_hangup is not None else None):
        events.append(event)
    return events


async def test_an_agent_that_is_too_slow_loses_what_comes_on_top_but_not_the_hangup() -> None:
    mailbox, kept = Mailbox(), [Dtmf("1", number) for number in range(MAX_WAITING_EVENTS)]
    for event in kept:
        mailbox.put(event)
    with pytest.raises(AgentTooSlow):
        mailbox.put(Dtmf("2"))
    mailbox.put(HANGUP)
    assert await read(mailbox) == [*kept, HANGUP]


async def test_the_first_hangup_counts_and_comes_behind_all_that_waits() -> None:
    mailbox, before = Mailbox(), []
    mailbox.put(HANGUP)
    mailbox.put(Dtmf("1"))
    mailbox.put(HungUp(None, "media_close"))
    assert await read(mailbox, before) == [Dtmf("1"), HANGUP]
    assert before == [Dtmf("1")]


async def test_who_waits_reads_all_that_comes_in_one_turn() -> None:
    mailbox = Mailbox()
    reading = asyncio.ensure_future(read(mailbox))
    await asyncio.sleep(0)
    for event in (Dtmf("1"), Dtmf("2"), HANGUP):
        mailbox.put(event)
    async with asyncio.timeout(10):
        assert await reading == [Dtmf("1"), Dtmf("2"), HANGUP]


async def test_a_reader_that_was_cancelled_leaves_what_comes_to_the_next() -> None:
    mailbox = Mailbox()
    reading = asyncio.ensure_future(read(mailbox))
    await asyncio.sleep(0)
    reading.cancel()
    mailbox.put(Dtmf("1"))
    mailbox.put(HANGUP)
    assert await read(mailbox) == [Dtmf("1"), HANGUP]
