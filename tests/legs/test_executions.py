"""Which application completed, and how many the switch has queued: it closes the socket on one too many."""

import asyncio
import gc

import pytest

from dueto.errors import Dropped, LegClosed
from dueto.legs.executions import MAX_WAITING, Execution, Executions
from dueto.wire.esl import Event


def happened(executions: Executions, name: str, execution: Execution) -> Event:
    event = Event.from_content(f"\nEvent-Name: {name}\nApplication-UUID: {execution.event_uuid}\n\n".encode())
    executions.take(name, event)
    return event


async def full(executions: Executions) -> list[Execution]:
    """Take every place, as of applications that were sent."""
    held = [await executions.begin(None) for _ in range(MAX_WAITING)]
    for execution in held:
        execution.sent = True
    return held


async def places(executions: Executions) -> int:
    """Take the places that are free, and tell how many they were."""
    free = 0
    while True:
        asking = asyncio.ensure_future(executions.begin(None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not asking.done():
            asking.cancel()
            return free
        asking.result().sent = True
        free += 1


async def test_an_application_that_begins_makes_one_place_and_its_end_none() -> None:
    executions = Executions()
    held = await full(executions)
    assert await places(executions) == 0
    happened(executions, "CHANNEL_EXECUTE", held[0])
    assert await places(executions) == 1
    completed = happened(executions, "CHANNEL_EXECUTE_COMPLETE", held[0])
    happened(executions, "CHANNEL_EXECUTE_COMPLETE", held[0])
    assert await held[0].done is completed
    executions.forget(held[0])
    assert held[0].event_uuid not in executions._open  # nothing more is expected of it
    executions.fail(LegClosed("the end"))
    assert await held[0].done is completed
    assert await places(executions) == MAX_WAITING


async def test_one_that_is_told_only_of_its_end_makes_its_place_too() -> None:
    executions = Executions()
    held = await full(executions)
    happened(executions, "CHANNEL_EXECUTE_COMPLETE", held[0])
    assert await places(executions) == 1


async def test_giving_up_what_the_switch_has_queued_frees_no_place_until_it_begins() -> None:
    executions = Executions()
    held = await full(executions)
    told: list[str] = []
    held[0].on_start = lambda: told.append("began")
    executions.forget(held[0])
    assert held[0].done.cancelled()
    assert await places(executions) == 0
    happened(executions, "CHANNEL_EXECUTE", held[0])
    assert await places(executions) == 1
    assert held[0].event_uuid not in executions._open  # nothing more is expected of it
    assert told == []


async def test_giving_up_what_was_never_sent_or_has_begun_frees_its_place_once() -> None:
    executions = Executions()
    held = await full(executions)
    held[0].sent = False
    happened(executions, "CHANNEL_EXECUTE", held[1])
    for execution in held[:2] * 2:
        executions.forget(execution)
    assert await places(executions) == 2
    assert not {held[0], held[1]} & set(executions.waiting())


async def test_what_somebody_else_runs_on_the_channel_is_passed_over() -> None:
    executions = Executions()
    execution = await executions.begin(None)
    for name in ("CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE"):
        happened(executions, name, Execution("of a dialplan", execution.done))
    assert executions.waiting() == [execution]
    assert not execution.done.done()


async def test_the_beginning_is_told_once() -> None:
    executions = Executions()
    told: list[str] = []
    execution = await executions.begin(lambda: told.append("began"))
    for _ in range(2):
        happened(executions, "CHANNEL_EXECUTE", execution)
    assert told == ["began"]
    assert not execution.done.done()


async def test_what_the_switch_threw_away_is_dropped_and_what_began_meanwhile_lives_on() -> None:
    executions = Executions()
    held = await full(executions)
    executions.forget(held[2])
    thrown_away = executions.waiting()
    happened(executions, "CHANNEL_EXECUTE", held[0])
    executions.drop(thrown_away)
    executions.drop(thrown_away)
    assert not held[0].done.done()
    with pytest.raises(Dropped):
        await held[1].done
    assert held[2] not in executions.waiting()
    assert await places(executions) == MAX_WAITING


async def test_the_end_is_told_to_all_and_the_loop_hears_no_complaint() -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    executions = Executions()
    held = await full(executions)
    executions.forget(held[0])
    for execution in held[1:]:
        happened(executions, "CHANNEL_EXECUTE", execution)
    executions.fail(LegClosed("the end"))
    with pytest.raises(LegClosed):
        await held[1].done
    assert held[0].done.cancelled()
    assert await places(executions) == MAX_WAITING
    del held, execution, executions
    gc.collect()  # futures complain when they go
    await asyncio.sleep(0)
    assert complaints == []
