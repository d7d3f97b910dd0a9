"""The agent that runs any provider, on virtual time: what the caller hears is the judge."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tests.agents.scripted import Script, ScriptedProvider
from tests.support.virtual import Virtual, virtual_desk

from dueto.agents.ports import (
    CallerBegan,
    CallerStopped,
    Cut,
    RolledOver,
    Spoke,
    ToolAsked,
    ToolSpec,
    ToolWithdrawn,
    Transcribed,
    Used,
)
from dueto.agents.ports import (
    Line as Said,
)
from dueto.agents.provider import BRIDGED, HELD, NOT_CONNECTED, RESUMED, TAKE_OVER, UNBRIDGED, Manners, ProviderAgent
from dueto.call import Call, CallRules, Destination
from dueto.call.events import Speech, SpeechStarted
from dueto.errors import NotCapable, ProviderFailed
from dueto.sim import Caller, Endpoint, Faults, Line, SimCall, run_virtual, tone
from dueto.wire.media import AUDIO_STREAM, AUDIO_STREAM_BINARY, Dialect

Talk = Callable[[Line], Awaitable[None]]


@dataclass
class Scene:
    """One call, and what there is to look at afterwards."""

    provider: ScriptedProvider
    call: SimCall
    desk: Virtual
    transcript: list[Said]
    failures: list[Exception] = field(default_factory=list)

    def noted(self, name: str) -> list[dict[str, Any]]:
        return [dict(fields) for _, entry, fields in self.desk.journal if entry == name]

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return self.provider.log

    @property
    def audible_ms(self) -> int:
        """How much of a sound the caller heard, in frames of 20 ms."""
        heard = np.frombuffer(self.call.heard, np.int16).reshape(-1, self.call.rate_hz // 50)
        return int((np.abs(heard).max(axis=1) > 500).sum()) * 20


class OneTool:
    """A tool that takes its time."""

    def __init__(self, run: Callable[[Call, str, Callable[[], Awaitable[bool]]], Awaitable[str]]) -> None:
        self._run = run

    def specs(self, call: Call) -> tuple[ToolSpec, ...]:
        return (ToolSpec("look_up", "Looks something up.", {"type": "object"}),)

    async def run(self, call: Call, name: str, arguments: str, heard: Callable[[], Awaitable[bool]]) -> str:
        return await self._run(call, arguments, heard)


async def stays(line: Line) -> None:
    await line.until_hangup()


def scene(
    script: Script,
    talk: Talk = stays,
    *,
    manners: Manners | None = None,
    tools: Any = None,
    transcript: list[Said] | None = None,
    provider: dict[str, Any] | None = None,
    switch: dict[str, Any] | None = None,
    **house: Any,
) -> Scene:
    lines = transcript if transcript is not None else []
    failures: list[Exception] = []

    async def one_call() -> Scene:
        scripted = ScriptedProvider(script, **(provider or {}))
        agent = ProviderAgent(scripted.connect, tools=tools, manners=manners)

        async def run(call: Call) -> None:
            try:
                for line in lines:
                    call.transcript.add(line.who, line.text)
                await agent(call)
            except Exception as error:
                failures.append(error)
                raise
            finally:
                lines[:] = call.transcript

        async with virtual_desk(run, **house) as here, here.switch(record=True, **(switch or {})) as sim:
            call = await sim.place(Caller(script=talk))
            await call.done()
        assert scripted.closed or scripted.opening is None
        return Scene(scripted, call, here, lines, failures)

    return run_virtual(one_call())


async def hears_all(line: Line) -> None:
    await line.hears_speech()
    await line.hears_silence(500)


def test_what_the_model_says_is_heard_and_the_provider_is_told_of_the_call() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 2000)

    seen = scene(script, hears_all)
    assert seen.audible_ms == pytest.approx(2000, abs=40)
    opening = seen.provider.opening
    assert opening is not None
    assert (opening.rate_hz, opening.greets, opening.said_so_far) == (8000, True, ())
    assert opening.facts["caller_number"] == "1001"
    assert [entry for entry in seen.told if entry[0] in ("cancel", "truncate")] == []
    assert not seen.failures


def test_the_caller_is_heard_at_the_providers_rate_from_the_first_word_on() -> None:
    async def script(model: ScriptedProvider) -> None:
        await asyncio.sleep(60)

    async def talk(line: Line) -> None:
        await line.say(tone(8000, 2.0, 300.0))

    seen = scene(script, talk, provider={"connect_s": 1.0, "hears_hz": 24000})
    heard = np.frombuffer(bytes(seen.provider.heard), np.int16)
    assert int((np.abs(heard) > 500).sum()) > 0.8 * 2.0 * 24000 * 0.9


DIALECTS = pytest.mark.parametrize("dialect", [AUDIO_STREAM_BINARY, AUDIO_STREAM], ids=lambda one: one.name)


@DIALECTS
@pytest.mark.parametrize("after_ms", [700, 1500])
def test_an_interrupted_model_is_told_what_the_caller_really_heard(after_ms: int, dialect: Dialect) -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 4000)
        await asyncio.sleep(after_ms / 1000)
        await model.caller_says()
        await model.until("truncate")
        await asyncio.sleep(1)
        model.end()

    seen = scene(script, dialect=dialect, switch={"dialect": dialect.name})
    cancels = [entry for entry in seen.told if entry[0] in ("cancel", "truncate")]
    assert cancels[0] == ("cancel",)
    assert [entry[:2] for entry in cancels[1:]] == [("truncate", "a")]
    assert cancels[1][2] == pytest.approx(seen.audible_ms, abs=45)  # a break takes the switch two frames
    assert after_ms - 300 < cancels[1][2] < after_ms + 300


def test_what_still_comes_of_an_interrupted_item_is_not_heard_and_truncated_once() -> None:
    async def script(model: ScriptedProvider) -> None:
        speaking = asyncio.ensure_future(model.says("a", 4000, pace=0.5))
        await asyncio.sleep(1.0)
        await model.caller_says()
        await speaking
        await model.caller_says()
        await model.says("b", 600)
        await asyncio.sleep(2)
        model.end()

    seen = scene(script)
    truncated = [entry for entry in seen.told if entry[0] == "truncate"]
    assert [entry[1] for entry in truncated] == ["a"]
    assert seen.audible_ms == pytest.approx(truncated[0][2] + 600, abs=60)


def test_what_waits_behind_the_interrupted_item_was_not_heard_at_all() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 2000)
        await model.says("b", 2000)
        await asyncio.sleep(0.8)
        model.tell(CallerBegan())
        await model.until("truncate", "b")
        model.end()

    seen = scene(script)
    truncated = dict(entry[1:] for entry in seen.told if entry[0] == "truncate")
    assert truncated["b"] == 0
    assert truncated["a"] == pytest.approx(seen.audible_ms, abs=25)


class OwnEar:
    """An ear of this machine: what is loud has begun to be speech."""

    rate_hz = 8000

    def __init__(self) -> None:
        self.emit: Callable[[Speech | SpeechStarted], None] | None = None
        self.loud = self.closed = False

    def attach(self, emit: Callable[[Speech | SpeechStarted], None]) -> None:
        self.emit = emit

    def hear(self, frame: bytes) -> None:
        loud = bool(np.abs(np.frombuffer(frame, np.int16).astype(int)).max(initial=0) > 1000)
        if loud and not self.loud and self.emit is not None:
            self.emit(SpeechStarted(0))
        self.loud = loud

    async def aclose(self) -> None:
        self.closed = True


def test_our_own_ear_interrupts_before_the_provider_has_noticed() -> None:
    ears: list[OwnEar] = []

    def ear() -> OwnEar:
        ears.append(OwnEar())
        return ears[-1]

    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 8000)

    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.wait(1.0)
        await line.say(tone(8000, 0.3, 300.0))
        await line.hears_silence(500)

    seen = scene(script, talk, manners=Manners(ear=ear))
    (truncated,) = [entry for entry in seen.told if entry[0] == "truncate"]
    assert truncated[2] == pytest.approx(1200, abs=250)
    assert seen.audible_ms == pytest.approx(truncated[2], abs=60)
    assert [fields["by"] for fields in seen.noted("barge_in")] == ["speech"]
    assert [one.closed for one in ears] == [True]


def test_where_no_ear_is_left_the_provider_alone_hears() -> None:
    def none_left() -> OwnEar:
        raise NotCapable("all speech detectors are in use")

    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 1000)

    seen = scene(script, hears_all, manners=Manners(ear=none_left))
    assert seen.audible_ms == pytest.approx(1000, abs=40)
    assert not seen.failures


def test_a_cough_does_not_interrupt() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 3000)
        await asyncio.sleep(0.5)
        await model.caller_says(0.2)
        await asyncio.sleep(1.0)
        await model.caller_says(0.6)
        await model.until("truncate")
        model.end()

    seen = scene(script, manners=Manners(min_speech_ms=400))
    assert [entry[0] for entry in seen.told if entry[0] != "note"] == ["cancel", "truncate"]
    assert seen.told[1][2] == pytest.approx(500 + 200 + 1000 + 400, abs=300)


def test_the_greeting_is_protected_and_only_the_greeting() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 1500)
        await asyncio.sleep(0.5)
        await model.caller_says(0.3)
        await asyncio.sleep(2.0)
        await model.says("second", 1500)
        await asyncio.sleep(0.5)
        await model.caller_says(0.3)
        await model.until("truncate", "second")
        model.end()

    seen = scene(script, manners=Manners(protects_greeting=True))
    assert [entry[0] for entry in seen.told] == ["cancel", "truncate"]
    assert seen.audible_ms == pytest.approx(1500 + seen.told[1][2], abs=60)


def test_the_first_sounds_of_an_utterance_can_be_protected_from_its_own_echo() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 3000)
        await asyncio.sleep(0.1)
        model.tell(CallerBegan())
        await model.until("truncate")
        model.end()

    seen = scene(script, manners=Manners(protected_ms=800))
    assert seen.told[-1][2] == pytest.approx(800, abs=300)
    assert seen.told[-1][2] >= 780


def test_nobody_interrupts_where_that_is_switched_off() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 1000)
        await model.caller_says()
        await asyncio.sleep(2)
        model.end()

    seen = scene(script, manners=Manners(barge_in=False))
    assert seen.told == []
    assert seen.audible_ms == pytest.approx(1000, abs=40)


def test_a_provider_that_cuts_itself_is_silenced_and_told_nothing() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 4000, last=False)
        await asyncio.sleep(1.0)
        model.tell(Cut("a"))
        await asyncio.sleep(1.0)
        model.end()

    seen = scene(script)
    assert seen.told == []
    assert seen.audible_ms == pytest.approx(1000, abs=300)


def test_what_a_provider_cut_when_all_that_had_come_of_it_was_heard_was_interrupted_all_the_same() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 400, last=False)
        model.tell(Transcribed(Said("agent", "one two"), "a"))
        await asyncio.sleep(1.0)  # slower than its speech
        model.tell(Cut("a"))
        await model.says("b", 400)
        model.tell(Transcribed(Said("agent", "Yes?"), "b"))
        await asyncio.sleep(1.0)
        model.tell(Cut("b"))
        model.end()

    seen = scene(script)
    assert seen.audible_ms == pytest.approx(800, abs=40)
    assert [(fields["text"], fields["heard_ms"], fields["interrupted"]) for fields in seen.noted("transcript")] == [
        ("one two", 400, True),
        ("Yes?", 400, False),
    ]


def test_the_latency_of_a_turn_counts_until_its_first_frame_is_heard() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 300)
        await asyncio.sleep(1)
        model.tell(CallerBegan())
        await asyncio.sleep(0.5)
        model.tell(CallerStopped(ago_ms=300))
        await asyncio.sleep(0.4)
        await model.says("answer", 500, pace=0.5)
        await asyncio.sleep(1)
        model.end()

    seen = scene(script)
    assert len(seen.noted("turn")) == 1
    turn = seen.noted("turn")[0]
    assert turn["model_ms"] == pytest.approx(700, abs=5)
    assert 700 <= turn["latency_ms"] <= 700 + 250


def test_the_transcript_holds_what_was_heard_of_each_sentence() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 1000)
        model.tell(Transcribed(Said("agent", "Hello and welcome."), "a"))
        await asyncio.sleep(2)
        model.tell(Transcribed(Said("caller", "Hi, it's me.")))
        model.tell(Transcribed(Said("agent", "one two three four five six seven eight"), "b"))
        await model.says("b", 4000)  # its words came first: a cascade has them before their sound
        await asyncio.sleep(2.0)
        model.tell(CallerBegan())
        await model.until("truncate")
        await model.says("c", 4000)
        model.tell(CallerBegan())
        await model.until("truncate", "c")
        model.tell(Transcribed(Said("agent", "never heard at all by anybody"), "c"))
        model.tell(Transcribed(Said("agent", "no sound for anybody"), "d"))
        await asyncio.sleep(0.1)
        model.end()

    lines: list[Said] = [Said("caller", "before")]
    seen = scene(script, transcript=lines)
    assert lines[:3] == [Said("caller", "before"), Said("agent", "Hello and welcome."), Said("caller", "Hi, it's me.")]
    assert seen.provider.opening is not None
    assert seen.provider.opening.said_so_far == (Said("caller", "before"),)
    cut = [line.text for line in lines[3:] if line.text.startswith("one")]
    assert cut in (["one two three four ..."], ["one two three four five ..."])
    assert not any("anybody" in line.text for line in lines)
    assert [note["who"] for note in seen.noted("transcript")][:3] == ["caller", "agent", "caller"]


def test_a_tool_is_run_and_its_answer_given_to_the_model() -> None:
    async def run(call: Call, arguments: str, heard: Any) -> str:
        await asyncio.sleep(0.3)
        return json.dumps({"got": json.loads(arguments)["what"]})

    async def script(model: ScriptedProvider) -> None:
        model.tell(ToolAsked("t1", "look_up", '{"what": "x"}'))
        await model.until("answer")
        model.end()

    seen = scene(script, tools=OneTool(run))
    assert seen.told == [("answer", "t1", '{"got": "x"}')]
    assert seen.provider.opening is not None
    assert [spec.name for spec in seen.provider.opening.tools] == ["look_up"]


def test_a_tool_that_waits_for_the_goodbye_runs_when_it_was_heard() -> None:
    waited: list[tuple[bool, float]] = []

    async def run(call: Call, arguments: str, heard: Any) -> str:
        began = asyncio.get_running_loop().time()
        waited.append((await heard(), asyncio.get_running_loop().time() - began))
        await call.hangup()
        return "{}"

    async def script(model: ScriptedProvider) -> None:
        await model.says("goodbye", 1500)
        model.tell(ToolAsked("t1", "look_up", "{}"))
        await asyncio.sleep(60)

    seen = scene(script, tools=OneTool(run))
    assert waited[0][0]
    assert waited[0][1] == pytest.approx(1.5, abs=0.3)
    assert seen.audible_ms == pytest.approx(1500, abs=40)
    assert not seen.failures


def test_a_goodbye_that_was_cut_was_not_heard() -> None:
    outcome: list[bool] = []

    async def run(call: Call, arguments: str, heard: Any) -> str:
        outcome.append(await heard())
        return "{}"

    async def script(model: ScriptedProvider) -> None:
        await model.says("goodbye", 1500)
        model.tell(ToolAsked("t1", "look_up", "{}"))
        await asyncio.sleep(0.5)
        model.tell(CallerBegan())
        await model.until("answer")
        model.end()

    scene(script, tools=OneTool(run))
    assert outcome == [False]


def test_a_tool_that_fails_is_an_answer_too_and_its_text_stays_here() -> None:
    async def run(call: Call, arguments: str, heard: Any) -> str:
        raise ValueError("password=hunter2")

    async def script(model: ScriptedProvider) -> None:
        model.tell(ToolAsked("t1", "look_up", "{}"))
        await model.until("answer", "t1")
        model.end()

    seen = scene(script, tools=OneTool(run))
    assert seen.told == [("answer", "t1", '{"error": "the tool failed"}')]


def test_a_withdrawn_tool_is_broken_off_and_gets_no_answer() -> None:
    ended: list[str] = []

    async def run(call: Call, arguments: str, heard: Any) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "{}"

    async def script(model: ScriptedProvider) -> None:
        model.tell(ToolAsked("t1", "look_up", "{}"))
        await asyncio.sleep(0.1)
        model.tell(ToolWithdrawn("t1"))
        model.tell(ToolWithdrawn("t2"))
        await asyncio.sleep(0.1)
        model.end()

    seen = scene(script, tools=OneTool(run))
    assert ended == ["cancelled"]
    assert seen.told == []


def test_without_tools_and_with_too_many_at_once_the_model_is_told_so() -> None:
    async def run(call: Call, arguments: str, heard: Any) -> str:
        await asyncio.sleep(1)
        return "{}"

    async def script(model: ScriptedProvider) -> None:
        for number in range(9):
            model.tell(ToolAsked(f"t{number}", "look_up", "{}"))
        model.tell(ToolAsked("t0", "look_up", "{}"))
        await asyncio.sleep(2)
        model.end()

    assert len([entry for entry in scene(script).told if "no tools" in entry[2]]) == 10
    seen = scene(script, tools=OneTool(run))
    assert seen.told[0][1] == "t8"
    assert sorted(entry[1] for entry in seen.told) == [f"t{number}" for number in range(9)]


def test_keys_that_belong_together_reach_the_model_together_and_cut_what_is_said() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 5000)
        await model.until("press", "55")
        await asyncio.sleep(0.2)
        model.end()

    async def talk(line: Line) -> None:
        await line.hears_speech()
        await line.press("12#")
        await line.wait(0.5)
        await line.press("55")
        await line.until_hangup()

    seen = scene(script, talk)
    assert [entry for entry in seen.told if entry[0] == "press"] == [("press", "12#"), ("press", "55")]
    assert seen.audible_ms < 1500


def test_nothing_reaches_the_provider_while_the_caller_talks_to_somebody_else() -> None:
    marks: list[int] = []

    async def run(call: Call, arguments: str, heard: Any) -> str:
        result = await call.transfer("sales")
        return json.dumps({"outcome": result.outcome})

    async def script(model: ScriptedProvider) -> None:
        model.tell(ToolAsked("t1", "look_up", "{}"))
        await model.until("note", BRIDGED)
        await asyncio.sleep(0.1)
        marks.append(len(model.heard))
        model.tell(Spoke("late", tone(24000, 0.5, 440.0)))
        await model.until("note", UNBRIDGED)
        await model.until("answer", "t1")
        marks.append(len(model.heard))
        await asyncio.sleep(0.5)
        marks.append(len(model.heard))
        model.end()

    async def talk(line: Line) -> None:
        await line.bridged()
        await line.wait(2)
        await line.until_hangup()

    seen = scene(
        script,
        talk,
        tools=OneTool(run),
        destinations={"sales": Destination("sales", "user/2001")},
        switch={"endpoints": {"user/2001": Endpoint(hangs_up_after_s=3.0)}},
    )
    assert marks[0] == marks[1] < marks[2]
    assert ("truncate", "late", 0) in seen.told
    notes = [entry for entry in seen.told if entry[0] in ("note", "answer", "prompt")]
    assert notes == [("note", BRIDGED), ("note", UNBRIDGED), ("answer", "t1", '{"outcome": "bridged"}')]


def test_a_call_on_hold_is_not_heard_and_the_model_knows() -> None:
    marks: list[int] = []

    async def script(model: ScriptedProvider) -> None:
        await model.until("note", HELD)
        marks.append(len(model.heard))
        await model.until("note", RESUMED)
        marks.append(len(model.heard))
        await asyncio.sleep(0.5)
        marks.append(len(model.heard))
        model.end()

    async def talk(line: Line) -> None:
        await line.wait(0.5)
        line.hold()
        await line.wait(1)
        line.unhold()
        await line.until_hangup()

    scene(script, talk)
    assert marks[0] == marks[1] < marks[2]


def test_the_hangup_ends_it_even_while_the_provider_connects() -> None:
    async def script(model: ScriptedProvider) -> None:
        raise AssertionError("never connected")

    async def talk(line: Line) -> None:
        await line.wait(0.2)

    seen = scene(script, talk, provider={"connect_s": 8.0})
    assert seen.failures == []
    assert seen.noted("agent_failed") == []
    assert seen.noted("call_ended")


def test_a_provider_that_ends_the_conversation_is_heard_to_its_end() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("goodbye", 2000)
        model.end()

    seen = scene(script)
    assert seen.audible_ms == pytest.approx(2000, abs=40)
    assert seen.noted("agent_finished")


@pytest.mark.parametrize("when", ["at once", "in mid-sentence"])
def test_a_failure_is_raised_as_it_is_with_the_transcript_so_far(when: str) -> None:
    failure = ProviderFailed("quota", "Acme refuses for now")

    async def script(model: ScriptedProvider) -> None:
        model.tell(Transcribed(Said("caller", "Hello?")))
        await model.says("a", 1000, last=False)
        await asyncio.sleep(0.4)
        raise failure

    seen = scene(script, provider={"refuses": failure} if when == "at once" else None)
    assert seen.failures == [failure]
    assert seen.noted("provider_failed") == [{"fault": "quota", "error": "Acme refuses for now"}]
    if when != "at once":
        assert seen.transcript[0] == Said("caller", "Hello?")


def test_a_model_that_speaks_for_minutes_on_end_is_cut_where_no_more_can_wait_and_told_so() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 150_000)
        await asyncio.sleep(130)
        model.end()

    async def patient(line: Line) -> None:
        await line.until_hangup(400)

    seen = scene(script, patient)
    told = [entry for entry in seen.told if entry[0] == "truncate"]
    assert [entry[1] for entry in told] == ["a"]
    assert 110_000 < told[0][2] < 130_000


def test_usage_and_roll_overs_are_noted() -> None:
    async def script(model: ScriptedProvider) -> None:
        model.tell(Used({"input_tokens": 10, "output_tokens": 5}))
        model.tell(RolledOver("the session's hour is over"))
        model.tell(Used({"input_tokens": 7}))
        await asyncio.sleep(0.1)
        model.end()

    seen = scene(script)
    assert seen.noted("provider_rolled_over") == [{"reason": "the session's hour is over"}]
    assert seen.noted("provider_ended") == [{"dropped_ms": 0, "input_tokens": 17, "output_tokens": 5}]


def test_the_conversation_goes_on_when_the_stream_is_lost_and_comes_back() -> None:
    async def script(model: ScriptedProvider) -> None:
        await asyncio.sleep(1.0)
        before = len(model.heard)
        await asyncio.sleep(3.0)
        assert len(model.heard) > before + 16000
        await model.says("a", 500)
        await asyncio.sleep(1)
        model.end()

    seen = scene(
        script,
        rules=CallRules(public_url="ws://127.0.0.1:8085"),
        switch={"faults": Faults(media_reset_after_s=1.5)},
    )
    assert not seen.failures
    assert seen.audible_ms == pytest.approx(500, abs=40)
    assert seen.noted("media_resumed")


def test_who_takes_a_conversation_over_goes_on_where_the_caller_was_left() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.until("prompt", TAKE_OVER)
        model.end()

    said = [Said("agent", "Good day."), Said("caller", "Is Bob there?"), Said("agent", "One moment.")]
    seen = scene(script, transcript=list(said))
    assert seen.provider.opening is not None
    assert seen.provider.opening.said_so_far == tuple(said)
    assert not seen.provider.opening.greets


@pytest.mark.parametrize("how", ["fails", "ends"])
@pytest.mark.parametrize("when", ["before it rings", "while it rings"])
@pytest.mark.parametrize("end", ["bridged", "no answer"])
def test_a_transfer_goes_on_without_the_provider_that_wanted_it(how: str, when: str, end: str) -> None:
    lives: list[ScriptedProvider] = []
    failure = ProviderFailed("dropped", "Acme closed the connection")

    async def run(call: Call, arguments: str, heard: Any) -> str:
        await heard()
        return json.dumps({"outcome": (await call.transfer("sales", timeout_s=5.0)).outcome})

    async def script(model: ScriptedProvider) -> None:
        lives.append(model)
        if len(lives) == 1:
            await model.says("a", 1000)
            model.tell(ToolAsked("t1", "transfer_call", "{}"))
            await asyncio.sleep(0.2 if when == "before it rings" else 3.0)
            if how == "fails":
                raise failure
        else:
            await model.until("prompt", UNBRIDGED if end == "bridged" else NOT_CONNECTED)
        model.end()

    endpoint = Endpoint(answer_after_s=4.0, hangs_up_after_s=3.0) if end == "bridged" else Endpoint("no_answer")
    seen = scene(
        script,
        tools=OneTool(run),
        destinations={"sales": Destination("sales", "user/2001")},
        switch={"endpoints": {"user/2001": endpoint}},
    )
    assert [noted["outcome"] for noted in seen.noted("transfer")] == ["bridged" if end == "bridged" else "no_answer"]
    failed = how == "fails" and end == "no answer"
    assert seen.failures == ([failure] if failed else [])
    assert len(lives) == (1 if failed else 2)


@pytest.mark.parametrize("how", ["fails", "ends"])
def test_a_provider_that_goes_while_the_caller_talks_to_somebody_else_is_had_again_when_he_is_back(how: str) -> None:
    lives: list[ScriptedProvider] = []

    async def run(call: Call, arguments: str, heard: Any) -> str:
        return json.dumps({"outcome": (await call.transfer("sales")).outcome})

    async def script(model: ScriptedProvider) -> None:
        lives.append(model)
        if len(lives) == 1:
            await model.says("a", 200)
            model.tell(Transcribed(Said("agent", "I put you through."), "a"))
            model.tell(ToolAsked("t1", "look_up", "{}"))
            await model.until("note", BRIDGED)
            if how == "fails":
                raise ProviderFailed("dropped", "nothing was heard for too long")
            model.end()
            return
        await model.until("prompt", UNBRIDGED)
        await model.says("b", 600)
        await asyncio.sleep(1.0)
        model.end()

    seen = scene(
        script,
        tools=OneTool(run),
        destinations={"sales": Destination("sales", "user/2001")},
        switch={"endpoints": {"user/2001": Endpoint(hangs_up_after_s=3.0)}},
    )
    assert len(lives) == 2
    assert seen.failures == []
    assert seen.audible_ms == pytest.approx(800, abs=60)
    assert seen.provider.opening is not None
    assert not seen.provider.opening.greets
    assert seen.provider.opening.said_so_far == (Said("agent", "I put you through."),)
    assert len(seen.noted("provider_ended")) == 1


def test_nothing_of_a_conversation_outlives_its_call() -> None:
    async def run(call: Call, arguments: str, heard: Any) -> str:
        await heard()
        return "{}"

    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 600)
        model.tell(ToolAsked("t1", "look_up", "{}"))
        await model.until("answer")
        await model.says("b", 4000)
        await model.caller_says()
        await model.says("c", 20_000)

    def alive() -> set[int]:
        gc.collect()
        kinds = ("Call", "Session", "_Conversation", "Said", "Spoken", "Utterance", "Errands", "Keypad", "Watch")
        return {
            id(thing)
            for thing in gc.get_objects()
            if type(thing).__name__ in kinds and str(type(thing).__module__).startswith("dueto.")
        }

    before = alive()
    scene(script, hears_all, tools=OneTool(run))
    assert alive() <= before
