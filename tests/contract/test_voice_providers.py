"""What every voice provider promises, whichever it is: one test each, over all of them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.agents.fakes.talking import Talking, talking
from tests.contract.providers import LOOK_UP, RIGS, Rig, Stage

from dueto.agents import elevenlabs, gemini_session
from dueto.agents.ports import (
    CallerBegan,
    CallerStopped,
    Cut,
    Line,
    Opening,
    Spoke,
    SpokeLast,
    ToolAsked,
    ToolSpec,
    Transcribed,
)
from dueto.audio import RATES_HZ
from dueto.errors import ProviderFailed

pytestmark = pytest.mark.at_once

TOOL = ToolSpec("look_up", "Looks something up.", {"type": "object", "properties": {"a": {"type": "string"}}})
OPENING = Opening(8000, tools=(TOOL,), facts={"caller_number": "1001"}, greets=False)

every_rig = pytest.mark.parametrize("rig", RIGS.values(), ids=list(RIGS))


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemini_session, "RESUME_S", 0.3)
        patch.setattr(elevenlabs, "ANSWER_OVER_S", 0.1)
        yield


@contextlib.asynccontextmanager
async def conversation(rig: Rig) -> AsyncIterator[tuple[Stage, Talking]]:
    async with rig("") as stage:
        async with asyncio.timeout(25), talking(await stage.connect(OPENING)) as told, told.listening():
            yield stage, told


async def first_answer(told: Talking) -> None:
    told.speaks(300, quiet_ms=500)
    await told.saw(SpokeLast)


@every_rig
async def test_a_turn_is_told_in_order_with_the_words_of_both(rig: Rig) -> None:
    async with conversation(rig) as (_, told):
        assert {told.provider.hears_hz, told.provider.speaks_hz} <= set(RATES_HZ)
        assert told.provider.dropped_ms == 0
        await first_answer(told)
        await told.until(lambda: len(told.lines) >= 2)
        pcm = told.spoken()
        assert all(len(event.pcm) % 2 == 0 for event in told.all(Spoke))
        assert len(pcm) / 2 / told.provider.speaks_hz == pytest.approx(0.4, abs=0.01)
    assert told.lines[:2] == [Line("caller", "Hello."), Line("agent", "Good morning.")]
    items = {event.item_id for event in told.all(Spoke)}
    assert items == {told.all(SpokeLast)[0].item_id}
    assert {event.item_id for event in told.all(Transcribed) if event.line.who == "agent"} == items
    kinds = [type(event) for event in told.events]
    assert kinds.count(CallerStopped) == 1
    assert kinds.index(CallerStopped) < kinds.index(Spoke) < kinds.index(SpokeLast)


@every_rig
async def test_a_tool_is_asked_for_with_its_arguments_and_its_outcome_reaches_the_model(rig: Rig) -> None:
    async with conversation(rig) as (stage, told):
        await first_answer(told)
        told.speaks(300, quiet_ms=500)
        ask = await told.saw(ToolAsked)
        assert (ask.name, json.loads(ask.arguments)) == ("look_up", LOOK_UP)
        told.provider.answer(ask.ask_id, '{"found": "it"}')
        told.provider.answer(ask.ask_id, "again")
        told.provider.answer("never asked", "x")
        await told.saw(SpokeLast, 2)
    assert len(stage.brought) == 1
    assert "it" in stage.brought[0]
    assert len(told.all(ToolAsked)) == 1


@every_rig
async def test_of_an_interrupted_answer_nothing_more_is_told(rig: Rig) -> None:
    async with conversation(rig) as (_, told):
        await first_answer(told)
        told.speaks(300, quiet_ms=500)
        told.provider.answer((await told.saw(ToolAsked)).ask_id, "{}")
        await told.saw(SpokeLast, 2)
        told.speaks(300, quiet_ms=500)
        before = {event.item_id for event in told.all(Spoke)}
        await told.until(lambda: any(event.item_id not in before for event in told.all(Spoke)))
        story = told.all(Spoke)[-1].item_id
        began = len(told.all(CallerBegan))
        told.speaks(300)
        await told.until(lambda: told.all(Cut) or len(told.all(CallerBegan)) > began)
        told.provider.cancel()
        told.provider.truncate(story, 100)
        told.provider.truncate(story, 50)
        await told.caught_up()  # what had come by then is still told
        at = len(told.all(Spoke))
        told.speaks(100, quiet_ms=500)
        await asyncio.sleep(0.3)
        assert [event for event in told.all(Spoke)[at:] if event.item_id == story] == []
        assert told.failure is None


@every_rig
@pytest.mark.parametrize("moment", ["before the first word", "after a turn"])
async def test_it_takes_whatever_it_is_told_at_any_time(rig: Rig, moment: str) -> None:
    async with conversation(rig) as (_, told):
        if moment == "after a turn":
            await first_answer(told)
        provider = told.provider
        provider.truncate("no such item", 10)
        provider.answer("no such tool", "x")
        provider.note("The caller is on hold.\r\nX: y \U0001f600 \ud800".encode("utf-8", "replace").decode())
        provider.hear(bytes(provider.hears_hz // 25))
        assert told.failure is None
        if moment != "after a turn":
            await first_answer(told)


@every_rig
async def test_a_wrong_key_is_refused_and_never_repeated(rig: Rig) -> None:
    async with rig("key") as stage:
        with pytest.raises(ProviderFailed) as caught:
            async with asyncio.timeout(15):
                await stage.connect(OPENING)
    assert caught.value.fault == "auth"
    assert stage.key not in str(caught.value)
    assert str(caught.value).isprintable()


@every_rig
async def test_who_does_not_answer_is_given_up_in_time(rig: Rig) -> None:
    async with rig("silent") as stage:
        with pytest.raises(ProviderFailed) as caught:
            async with asyncio.timeout(15):
                await stage.connect(OPENING)
    assert caught.value.fault == "timeout"


@every_rig
async def test_a_provider_that_is_gone_is_a_failure_behind_all_that_it_said_and_takes_nothing_more(rig: Rig) -> None:
    async with conversation(rig) as (stage, told):
        await first_answer(told)
        stage.breaks_off()
        await told.until(lambda: told.failure is not None)
        assert told.failure is not None
        assert told.failure.fault in ("dropped", "timeout", "refused")
        assert any(isinstance(event, SpokeLast) for event in told.events)
        provider = told.provider
        provider.hear(bytes(640))
        provider.cancel()
        provider.truncate("one", 0)
        provider.answer("ask", "x")
        provider.press("1")
        provider.note("x")
        provider.prompt("x")


@every_rig
async def test_closing_ends_it_within_a_second_and_again_does_nothing(rig: Rig) -> None:
    async with conversation(rig) as (_, told):
        await first_answer(told)
        began = asyncio.get_running_loop().time()
        await told.provider.aclose()
        await told.provider.aclose()
        assert asyncio.get_running_loop().time() - began < 5
        told.provider.hear(bytes(640))
        told.provider.press("1")


@every_rig
async def test_a_connect_that_is_cancelled_leaves_nothing(rig: Rig) -> None:
    async with rig("silent") as stage:
        opening = asyncio.ensure_future(_quietly(stage))
        await asyncio.sleep(0.05)
        opening.cancel()
        await asyncio.wait({opening})


async def _quietly(stage: Stage) -> None:
    with contextlib.suppress(ProviderFailed):
        await stage.connect(OPENING)
