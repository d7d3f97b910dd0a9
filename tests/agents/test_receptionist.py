"""Whole conversations: recorded callers speak, the real ear and recogniser understand, the receptionist acts."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from dueto.agents.receptionist import Receptionist
from dueto.agents.speech import SpeechMouth
from dueto.call.events import Unbridged
from dueto.call.ports import TransferResult

from .caller import RINGING, ScriptedCall, Turn
from .conftest import DESTINATIONS

WHICH = "Which department"
BUSY = TransferResult("busy", "USER_BUSY")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receptionist() -> AsyncIterator[Receptionist]:
    """One that gives 50 ms to object and waits 50 ms for an answer: the scripted callers answer at once, or never."""
    one = Receptionist(
        DESTINATIONS, objection_s=0.05, patience_s=0.05, recognisers=1, listeners=1, mouth=SpeechMouth(None)
    )
    await one.start()
    yield one
    await one.aclose()


async def _talk(
    receptionist: Receptionist, *turns: Turn, transfers: Sequence[TransferResult | type[Unbridged]] = ()
) -> ScriptedCall:
    """Run one call to its end; every turn must have come."""
    call = ScriptedCall(*turns, transfers=transfers)
    async with asyncio.timeout(40):
        await receptionist(call.as_call)
    await call.closed()
    assert call.left == []
    return call


async def test_a_spoken_department_is_announced_and_the_call_transferred(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="sales"))
    assert call.said == ["Hello, this is Dueto. Which department would you like?", "Sales, one moment."]
    assert call.transferred == ["sales"]


async def test_a_key_chooses_at_once(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, press="2", cut_in=True))
    assert call.transferred == ["support"]
    assert len(call.cut) == 1


async def test_a_greeting_is_answered_with_the_question_and_then_a_key_chooses(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="hello"), Turn(WHICH, press="2"))
    assert call.said[1] == "Which department would you like?"
    assert call.transferred == ["support"]


async def test_something_foreign_is_asked_again(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="pizza"), Turn("did not understand", say="billing"))
    assert call.transferred == ["billing"]


async def test_after_two_more_misses_come_the_keys_and_then_a_person(receptionist: Receptionist) -> None:
    turns = (Turn(WHICH, say="pizza"), *(Turn("did not understand", say="pizza") for _ in range(3)))
    call = await _talk(receptionist, *turns)
    assert [WHICH in said for said in call.said] == [True, True, True, False, False]
    assert "For sales, press 1. For support, press 2." in call.said[3]
    assert call.said[4] == "I will connect you with somebody who can help."
    assert call.transferred == ["operator"]


async def test_the_keys_can_be_used_when_they_are_offered(receptionist: Receptionist) -> None:
    misses = (Turn(WHICH, say="pizza"), *(Turn("did not understand", say="pizza") for _ in range(2)))
    call = await _talk(receptionist, *misses, Turn("press 1", press="3"))
    assert call.transferred == ["billing"]


@pytest.mark.parametrize("cut_in", [True, False])
async def test_who_says_no_to_the_announcement_is_not_transferred_there(
    receptionist: Receptionist, cut_in: bool
) -> None:
    objection = Turn("Sales, one moment", say="no", cut_in=cut_in)
    call = await _talk(receptionist, Turn(WHICH, say="sales"), objection, Turn("All right.", say="support"))
    assert call.transferred == ["support"]


async def test_a_key_during_the_announcement_chooses_the_other(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="sales"), Turn("Sales, one moment", press="3", cut_in=True))
    assert call.transferred == ["billing"]


async def test_another_department_during_the_announcement_is_announced_instead(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="sales"), Turn("Sales, one moment", say="billing", cut_in=True))
    assert call.said[-1] == "Billing, one moment."
    assert call.transferred == ["billing"]


async def test_who_says_yes_to_the_announcement_is_transferred(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="sales"), Turn("Sales, one moment", say="yes", cut_in=True))
    assert call.transferred == ["sales"]


async def test_speech_cuts_the_prompt_short(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="sales", cut_in=True))
    assert call.cut == ["Hello, this is Dueto. Which department would you like?"]
    assert call.transferred == ["sales"]


async def test_goodbye_ends_the_call(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, Turn(WHICH, say="goodbye"))
    assert call.said[-1] == "Thank you for calling. Goodbye."
    assert call.hung_up_by == "agent"
    assert call.transferred == []


async def test_who_stays_silent_is_asked_once_more_and_let_go(receptionist: Receptionist) -> None:
    call = await _talk(receptionist)
    assert [said.split(".")[0].split("?")[0] for said in call.said] == [
        "Hello, this is Dueto",
        "Are you still there",
        "Thank you for calling",
    ]
    assert call.hung_up_by == "agent"


async def test_a_busy_department_is_told_and_another_offered(receptionist: Receptionist) -> None:
    turns = (Turn(WHICH, say="sales"), Turn("Which department would you like?", press="2"))
    call = await _talk(receptionist, *turns, transfers=[BUSY])
    assert "I am sorry, sales is not free just now." in call.said
    assert call.transferred == ["sales", "support"]


async def test_what_is_pressed_while_it_rings_is_no_answer_to_a_later_question(receptionist: Receptionist) -> None:
    turns = (Turn(WHICH, press="1"), Turn(RINGING, press="3"), Turn(WHICH, press="2"))
    call = await _talk(receptionist, *turns, transfers=[BUSY])
    assert call.transferred == ["sales", "support"]


async def test_a_hangup_while_it_rings_ends_the_conversation(receptionist: Receptionist) -> None:
    before = asyncio.all_tasks()
    call = await _talk(receptionist, Turn(WHICH, press="1"), Turn(RINGING, hang_up=True), transfers=[BUSY])
    assert call.said[-1] == "Sales, one moment."
    assert asyncio.all_tasks() <= before


async def test_three_departments_that_nobody_answers_are_enough(receptionist: Receptionist) -> None:
    call = await _talk(receptionist, *(Turn(WHICH, press="1") for _ in range(3)), transfers=[BUSY] * 3)
    assert call.transferred == ["sales"] * 3
    assert call.said[-1].endswith("Goodbye.")


async def test_a_caller_who_comes_back_is_asked_for_more(receptionist: Receptionist) -> None:
    turns = (Turn(WHICH, press="1"), Turn("anything else", say="no"))
    call = await _talk(receptionist, *turns, transfers=[Unbridged])
    assert call.hung_up_by == "agent"
    assert call.transferred == ["sales"]


@pytest.mark.parametrize("cut_in", [True, False])
async def test_a_hangup_ends_it_at_once_and_gives_the_detector_to_the_next(
    receptionist: Receptionist, cut_in: bool
) -> None:
    before = asyncio.all_tasks()
    call = await _talk(receptionist, Turn(WHICH, say="story", hang_up=True, cut_in=cut_in))
    assert call.said == ["Hello, this is Dueto. Which department would you like?"]
    assert asyncio.all_tasks() <= before
    assert (await _talk(receptionist, Turn(WHICH, say="sales"))).transferred == ["sales"]


async def test_a_cancelled_conversation_leaves_no_task(receptionist: Receptionist) -> None:
    before = asyncio.all_tasks()
    call = ScriptedCall()
    running = asyncio.create_task(receptionist(call.as_call))
    await call.spoke.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() <= before
    await call.closed()


async def test_a_caller_beyond_the_last_detector_is_served_by_keys(receptionist: Receptionist) -> None:
    first = ScriptedCall()
    running = asyncio.create_task(receptionist(first.as_call))
    await first.spoke.wait()
    second = await _talk(receptionist, Turn("For sales, press 1.", press="1"))
    assert second.transferred == ["sales"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await first.closed()
