"""Greeting, dead air, a caller who says nothing, a call without end: on virtual time, by what the caller hears."""

import asyncio
import contextlib
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.agents.scripted import ScriptedProvider
from tests.agents.test_provider import OneTool, Scene
from tests.agents.test_provider import scene as short_scene
from tests.call.test_transfers import loudness

from dueto.agents.fillers import LearntWelcome, Sound, Welcome, read_sound, thinking_tone
from dueto.agents.ports import CallerBegan, CallerStopped, Cut, ToolAsked, Transcribed
from dueto.agents.ports import Line as Said
from dueto.agents.profiles import Surroundings, VoiceProfile
from dueto.agents.provider import Manners
from dueto.agents.voices import voice_agent
from dueto.agents.watch import FILLS, OWED_S, WAITS, Patience, Watch
from dueto.call import Call, Destination
from dueto.call.house import Whereabouts
from dueto.errors import NotCapable, ProviderFailed, SettingsError
from dueto.sim import Endpoint, Line, run_virtual, tone

MODEL_HZ, MOUTH_HZ, MUSIC_HZ = 440.0, 1300.0, 900.0


class Whistle:
    """A mouth with one note, half a second long."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.spoken: list[str] = []

    async def speak(self, text: str, rate_hz: int) -> bytes:
        if self.fails:
            raise NotCapable("no synthesiser")
        self.spoken.append(text)
        return tone(rate_hz, 0.5, MOUTH_HZ)


async def stays(line: Line) -> None:
    await line.until_hangup(timeout=600)


def scene(script: Any, talk: Any = stays, **more: Any) -> Scene:
    return short_scene(script, talk, **more)


def sounds(seen: Scene, hz: float) -> list[float]:
    """The seconds of the call, in tenths, in which `hz` is what is heard."""
    heard = seen.call.heard
    tenths = [heard[at : at + 1600] for at in range(0, len(heard) - 1600, 1600)]
    return [
        number / 10
        for number, part in enumerate(tenths)
        if np.abs(np.frombuffer(part, "<i2")).max() > 300 and loudness(part, hz) > 0.4
    ]


def prompts(seen: Scene) -> list[str]:
    return [entry[1].partition(": ")[2].strip('"') for entry in seen.told if entry[0] == "prompt"]


async def asked(model: ScriptedProvider, times: int) -> None:
    """Wait until the model was asked so often to say something."""
    while sum(entry[0] == "prompt" for entry in model.log) < times:
        model.changed.clear()
        await model.changed.wait()


async def answers_prompts(model: ScriptedProvider, *, times: int = 100) -> None:
    """Say a second for everything that the model is asked to say."""
    for number in range(1, times + 1):
        await asked(model, number)
        await model.says(f"p{number}", 1000)


# -- the greeting


def test_a_greeting_is_heard_at_once_while_the_provider_connects() -> None:
    async def script(model: ScriptedProvider) -> None:
        await asyncio.sleep(1)
        model.end()

    mouth = Whistle()
    seen = scene(script, manners=Manners(welcome=Welcome("Good morning.")), provider={"connect_s": 3.0}, mouth=mouth)
    assert mouth.spoken == ["Good morning."]
    heard = sounds(seen, MOUTH_HZ)
    assert len(heard) == pytest.approx(5, abs=1)
    opening = seen.provider.opening
    assert opening is not None
    assert (opening.greets, opening.said_so_far) == (False, (Said("agent", "Good morning."),))
    assert seen.transcript == [Said("agent", "Good morning.")]
    connected = next(at for at, (_, name, _f) in enumerate(seen.desk.journal) if name == "provider_connected")
    said = next(at for at, (_, name, _f) in enumerate(seen.desk.journal) if name == "said")
    assert said < connected, "it was over before the provider was there"
    assert [entry for entry in seen.told if entry[0] == "truncate"] == []


def test_where_no_mouth_can_say_it_the_model_greets() -> None:
    async def script(model: ScriptedProvider) -> None:
        model.end()

    for mouth in (None, Whistle(fails=True)):
        seen = scene(script, manners=Manners(welcome=Welcome("Good morning.")), mouth=mouth)
        assert seen.provider.opening is not None
        assert (seen.provider.opening.greets, seen.provider.opening.said_so_far) == (True, ())


def test_a_greeting_can_be_a_recording_and_be_interrupted() -> None:
    async def script(model: ScriptedProvider) -> None:
        await asyncio.sleep(0.5)
        model.tell(CallerBegan())
        await asyncio.sleep(3)
        model.end()

    recording = Welcome("one two three four five six seven eight", Sound(tone(16000, 2.0, MUSIC_HZ), 16000))
    seen = scene(script, manners=Manners(welcome=recording))
    assert len(sounds(seen, MUSIC_HZ)) < 10
    assert seen.transcript[0].text.endswith("..."), "the transcript has what was heard"
    assert [entry for entry in seen.told if entry[0] == "truncate"] == [], "the model did not say it"
    protected = scene(script, manners=Manners(welcome=recording, protects_greeting=True))
    assert len(sounds(protected, MUSIC_HZ)) == pytest.approx(20, abs=1)


def test_a_greeting_is_learnt_from_the_model_and_heard_at_once_ever_after() -> None:
    def model(words: str, *, cut: bool = False) -> Any:
        async def script(model: ScriptedProvider) -> None:
            if model.opening is not None and model.opening.greets:
                await model.says("hello", 1000)
                model.tell(Transcribed(Said("agent", words), "hello"))
                if cut:
                    await asyncio.sleep(0.3)
                    model.tell(CallerBegan())
            await asyncio.sleep(2)
            model.end()

        return script

    welcome = LearntWelcome("Acme, good day! How can I help you?")
    manners = Manners(welcome=welcome)
    for words, cut in (("Something else altogether", False), ("Acme, good day! How can I help you?", True)):
        scene(model(words, cut=cut), manners=manners)
        assert not welcome.known, "neither other words, nor half of them"
    first = scene(model("Acme, good day. How can I help you"), manners=manners, provider={"connect_s": 2.0})
    assert welcome.known
    assert min(sounds(first, MODEL_HZ)) >= 2.0
    later = scene(model(""), manners=manners, provider={"connect_s": 2.0})
    assert min(sounds(later, MODEL_HZ)) < 0.3
    assert len(sounds(later, MODEL_HZ)) == pytest.approx(10, abs=1)
    assert later.provider.opening is not None
    assert later.provider.opening.greets is False
    assert later.transcript == [Said("agent", welcome.text)]


def test_a_greeting_that_a_provider_broke_off_when_all_that_had_come_of_it_was_heard_is_not_learnt() -> None:
    welcome = LearntWelcome("Acme, good day!")

    async def script(model: ScriptedProvider) -> None:
        await model.says("hello", 300, last=False)
        model.tell(Transcribed(Said("agent", welcome.text), "hello"))
        await asyncio.sleep(1.0)
        model.tell(Cut("hello"))
        model.end()

    scene(script, manners=Manners(welcome=welcome))
    assert not welcome.known


def test_who_takes_a_call_over_does_not_greet() -> None:
    async def script(model: ScriptedProvider) -> None:
        model.end()

    mouth = Whistle()
    before = [Said("agent", "Good morning."), Said("caller", "Hello")]
    seen = scene(script, transcript=list(before), manners=Manners(welcome=Welcome("Hi.")), mouth=mouth)
    assert mouth.spoken == []
    assert seen.provider.opening is not None
    assert (seen.provider.opening.greets, seen.provider.opening.said_so_far) == (False, tuple(before))


# -- dead air


def thinks(seconds: float) -> Any:
    """A model that answers after so long."""

    async def script(model: ScriptedProvider) -> None:
        await model.caller_says(0.5)
        await asyncio.sleep(seconds)
        await model.says("answer", 1000)
        await asyncio.sleep(1.5)
        model.end()

    return script


def turn_ms(seen: Scene) -> int:
    (turn,) = seen.noted("turn")
    return int(turn["latency_ms"])


def test_a_long_silence_is_filled_with_a_tone_that_the_answer_does_not_wait_for() -> None:
    patience = Patience(dead_air_s=2.0)
    quick = scene(thinks(1.0), manners=Manners(patience=patience, filler=thinking_tone()))
    assert quick.noted("dead_air") == []
    seen = scene(thinks(7.0), manners=Manners(patience=patience, filler=thinking_tone()))
    assert seen.noted("dead_air") == [{"after_s": 2.0}]
    heard = np.abs(np.frombuffer(seen.call.heard, "<i2").reshape(-1, 160)).max(axis=1)
    soft = [at / 50 for at in range(len(heard)) if 300 < heard[at] < 1200]
    assert [round(at, 1) for at in soft[:: max(len(soft) // 3, 1)]][:3] == pytest.approx([2.6, 4.6, 6.6], abs=0.3)
    bare = scene(thinks(7.0))
    assert turn_ms(seen) == pytest.approx(turn_ms(bare), abs=20)


def test_music_is_repeated_until_the_answer_comes() -> None:
    music = Sound(tone(16000, 1.0, MUSIC_HZ), 16000)
    seen = scene(thinks(5.0), manners=Manners(patience=Patience(dead_air_s=2.0), filler=music))
    assert len(sounds(seen, MUSIC_HZ)) == pytest.approx(30, abs=3)
    assert max(sounds(seen, MUSIC_HZ)) < min(sounds(seen, MODEL_HZ)) + 0.2


def test_a_sentence_fills_it_again_and_again_but_not_for_ever() -> None:
    mouth = Whistle()
    manners = Manners(patience=Patience(dead_air_s=2.0), filler="One moment, please.")
    assert scene(thinks(5.0), manners=manners, mouth=mouth).noted("dead_air") == [{"after_s": 2.0}]
    assert mouth.spoken == ["One moment, please."]
    mouth.spoken.clear()
    scene(thinks(25.0), manners=manners, mouth=mouth)
    assert mouth.spoken == ["One moment, please."] * FILLS
    scene(thinks(5.0), manners=manners, mouth=Whistle(fails=True))  # silence, and no failure


def test_a_tool_that_takes_its_time_and_a_provider_that_is_slow_to_connect_are_dead_air_too() -> None:
    async def slow(call: Call, arguments: str, heard: Any) -> str:
        await asyncio.sleep(5)
        return "done"

    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 500)
        model.tell(ToolAsked("t", "look_up", "{}"))
        await model.until("answer")
        await model.says("b", 500)
        await asyncio.sleep(1)
        model.end()

    manners = Manners(patience=Patience(dead_air_s=2.0), filler=thinking_tone())
    seen = scene(script, tools=OneTool(slow), manners=manners)
    assert [note["after_s"] for note in seen.noted("dead_air")] == [pytest.approx(2.0, abs=0.1)]

    async def at_once(model: ScriptedProvider) -> None:
        await model.says("a", 500)
        await asyncio.sleep(1)
        model.end()

    seen = scene(at_once, provider={"connect_s": 5.0}, manners=manners)
    assert seen.noted("dead_air") == [{"after_s": 2.0}]


def test_a_caller_who_hears_it_ring_hears_no_filler() -> None:
    async def run(call: Call, arguments: str, heard: Any) -> str:
        return (await call.transfer("operator")).outcome

    async def script(model: ScriptedProvider) -> None:
        await model.says("a", 500)
        model.tell(ToolAsked("t", "look_up", "{}"))
        assert (await model.until("answer"))[2] == "busy"
        await model.says("b", 500)
        await asyncio.sleep(1)
        model.end()

    seen = scene(
        script,
        tools=OneTool(run),
        manners=Manners(patience=Patience(dead_air_s=2.0), filler=thinking_tone()),
        destinations={"operator": Destination("operator", "user/1001")},
        whereabouts=Whereabouts("127.0.0.1:8022"),
        switch={"endpoints": {"user/1001": Endpoint("busy", answer_after_s=9.0)}},
    )
    assert seen.failures == []
    assert seen.noted("transfer")[0]["outcome"] == "busy"
    assert seen.noted("dead_air") == []


# -- a caller who says nothing

ASKS = Patience(no_input_s=10.0, no_input_times=2)


def test_a_caller_who_says_nothing_is_asked_and_then_bidden_goodbye() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 1000)
        await answers_prompts(model)

    seen = scene(script, stays, manners=Manners(patience=ASKS))
    assert prompts(seen) == ["Are you still there?", "Are you still there?", ASKS.no_input_goodbye]
    assert [note["times"] for note in seen.noted("no_input")] == [1, 2, 3]
    assert seen.call.hangup_cause == "NORMAL_CLEARING"
    assert len(sounds(seen, MODEL_HZ)) == pytest.approx(40, abs=2), "the goodbye was heard to its end"
    starts = [at for at in sounds(seen, MODEL_HZ) if round(at - 0.1, 1) not in sounds(seen, MODEL_HZ)]
    gaps = [round(later - earlier) for earlier, later in pairwise(starts)]
    assert gaps == [11, 11, 11], "ten seconds each, from the end of what was HEARD"


def test_a_caller_who_answers_keeps_the_line_even_in_the_goodbye() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 500)
        await answers_prompts(model, times=2)
        await asked(model, 3)
        await model.says("goodbye", 1000)
        await asyncio.sleep(0.5)
        await model.caller_says(0.5)
        await model.says("welcome back", 500)
        await asyncio.sleep(9)
        model.tell(Transcribed(Said("caller", "still here")))
        await asyncio.sleep(1)
        model.end()

    seen = scene(script, manners=Manners(patience=ASKS))
    assert [note["times"] for note in seen.noted("no_input")] == [1, 2, 3]
    assert seen.transcript == [Said("caller", "still here")]


@pytest.mark.parametrize("sign", ["key", "text", "speech"])
def test_any_sign_of_life_counts(sign: str) -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 500)
        for turn in range(4):
            await asyncio.sleep(8)
            if sign == "text":
                model.tell(Transcribed(Said("caller", "hm")))
            elif sign == "speech":
                model.tell(CallerBegan())
                model.tell(CallerStopped())
            else:
                await model.until("press", str(turn))
            await model.says(f"a{turn}", 500)
        model.end()

    async def talk(line: Line) -> None:
        if sign == "key":
            await line.wait(8)
            for turn in range(4):
                await line.press(str(turn))
                await line.wait(8.5)
        await line.until_hangup()

    seen = scene(script, talk, manners=Manners(patience=ASKS))
    assert seen.noted("no_input") == []


def test_a_model_that_is_told_to_speak_and_does_not_has_failed() -> None:
    async def silent(model: ScriptedProvider) -> None:
        await asyncio.sleep(600)

    seen = scene(silent, manners=Manners(greets=True))
    (failure,) = seen.failures
    assert isinstance(failure, ProviderFailed)
    assert (failure.fault, str(failure)) == ("timeout", "the model was told to speak, and has said nothing for 15 s")

    async def greets_and_no_more(model: ScriptedProvider) -> None:
        await model.says("greeting", 500)
        await asyncio.sleep(600)

    seen = scene(greets_and_no_more, manners=Manners(greets=True, patience=ASKS))
    assert [failure.fault for failure in seen.failures if isinstance(failure, ProviderFailed)] == ["timeout"]
    assert prompts(seen) == ["Are you still there?"]


def test_a_model_that_leaves_a_question_open_is_reminded_once() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 500)
        await model.caller_says(0.5)
        model.tell(Transcribed(Said("caller", "When are you open?")))
        await asked(model, 1)
        await model.says("answer", 500)
        await asyncio.sleep(1)
        model.end()

    seen = scene(script, manners=Manners(patience=ASKS))
    assert [entry[1] for entry in seen.told if entry[0] == "prompt"] == [WAITS]
    assert seen.failures == []


def test_a_model_that_does_not_answer_leaves_the_turn_to_the_caller() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 500)
        await model.caller_says(0.5)  # a cough, and the model knows
        await asyncio.sleep(OWED_S + 11)
        model.end()

    seen = scene(script, manners=Manners(patience=ASKS))
    assert prompts(seen) == ["Are you still there?"]


def test_nobody_is_asked_while_he_talks_to_somebody_else_or_is_on_hold() -> None:
    async def run(call: Call, arguments: str, heard: Any) -> str:
        if arguments:
            await call.hold()
            await asyncio.sleep(30)
            await call.unhold()
        await call.transfer("operator")
        return "bridged"

    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 500)
        await asyncio.sleep(1)
        model.tell(ToolAsked("t", "look_up", "hold"))
        await model.until("answer")
        await asyncio.sleep(50)
        model.end()

    async def talk(line: Line) -> None:
        await line.wait(90)

    impatient = Patience(no_input_s=10.0, max_duration_s=60.0, max_duration_warning_s=0.0, dead_air_s=5.0)
    seen = scene(
        script,
        talk,
        tools=OneTool(run),
        manners=Manners(patience=impatient, filler=thinking_tone()),
        destinations={"operator": Destination("operator", "user/1001")},
        whereabouts=Whereabouts("127.0.0.1:8022"),
        switch={"endpoints": {"user/1001": Endpoint("answers")}},
    )
    assert seen.noted("no_input") == []
    assert seen.noted("max_duration") == []
    assert seen.noted("dead_air") == []


# -- a call without end


def test_a_conversation_is_ended_at_its_time_with_a_warning_before() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 1000)
        await answers_prompts(model)

    patience = Patience(max_duration_s=60.0, max_duration_warning_s=20.0)
    seen = scene(script, manners=Manners(patience=patience))
    assert prompts(seen) == ["We have one minute left.", "I am sorry, our time is up. Goodbye."]
    (note,) = seen.noted("max_duration")
    assert note["after_s"] == pytest.approx(60.0, abs=0.1)
    heard = sounds(seen, MODEL_HZ)
    assert 40 <= heard[10] <= 42
    assert 60 <= heard[20] <= 62
    assert len(heard) == pytest.approx(30, abs=2)
    assert "agent_failed" not in seen.desk.names()


def test_a_model_that_speaks_for_ever_is_cut_when_the_time_is_up() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("sermon", 90_000)
        await asyncio.sleep(100)

    seen = scene(script, manners=Manners(patience=Patience(max_duration_s=30.0)))
    assert max(sounds(seen, MODEL_HZ)) < 41
    assert ("cancel",) in seen.told
    assert len(seen.call.heard) / 16000 < 60


def test_without_patience_nothing_is_ever_due() -> None:
    async def script(model: ScriptedProvider) -> None:
        await model.says("greeting", 500)
        await asyncio.sleep(400)
        model.end()

    seen = scene(script)
    assert prompts(seen) == []


# -- from the configuration


class Voice(VoiceProfile):
    """Any kind with a voice."""


def wav(path: Path, *, rate_hz: int = 16000, channels: int = 1) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(tone(rate_hz, 0.5, MUSIC_HZ) * channels)
    return str(path)


def test_the_keys_of_a_section_become_the_manners_of_its_agent(tmp_path: Path) -> None:
    async def connect(opening: Any) -> Any: ...

    def manners(**keys: Any) -> Manners:
        agent = voice_agent(connect, Voice(use="x", tools=("end_call",), **keys), Surroundings("front"))
        found: Manners = agent.run._manners  # type: ignore[attr-defined]
        return found

    assert manners().welcome is None
    assert manners(greeting="Hi.").welcome is None, "the model says it"
    assert manners(greeting="Hi.", greeting_by="mouth").welcome == Welcome("Hi.")
    assert isinstance(manners(greeting="Hi.", greeting_by="cache").welcome, LearntWelcome)
    recorded = manners(greeting="Hi.", greeting_file=wav(tmp_path / "hi.wav")).welcome
    assert recorded is not None
    assert recorded.sound is not None
    assert isinstance(manners().filler, Sound)
    assert manners(dead_air="One moment.").filler == "One moment."
    assert manners(dead_air=wav(tmp_path / "music.wav")).filler == recorded.sound
    assert manners(no_input_s=7, no_input="¿Hola?").patience.no_input == "¿Hola?"
    with pytest.raises(SettingsError, match=r"\[agents.front\] greeting: missing"):
        manners(greeting_file=wav(tmp_path / "hi.wav"))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [({"rate_hz": 11025}, "at one of"), ({"channels": 2}, "one channel"), (None, "No such file"), ({}, "RIFF|WAV")],
)
def test_a_sound_that_cannot_be_played_is_told_at_start(tmp_path: Path, how: Any, sentence: str) -> None:
    path = tmp_path / "sound.wav"
    if how:
        wav(path, **how)
    elif how is not None:
        path.write_bytes(b"not a sound at all, but long enough to be a header of one")
    with pytest.raises(SettingsError, match=sentence):
        read_sound(str(path), "[agents.front] dead_air")


# -- whatever happens, in whatever order


class Lamp:
    """A filling that only knows whether it is on."""

    def __init__(self, *, goes_on: bool) -> None:
        self.goes_on = goes_on
        self.on = False

    def begin(self) -> bool:
        self.on = True
        return self.goes_on

    def end(self) -> None:
        self.on = False


HAPPENINGS = ("agent_spoke", "agent_silent", "caller_spoke", "caller_silent", "caller_said", "tool", "away", "wait")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.sampled_from([0.0, 0.5, 3.0, 11.0, 40.0])), max_size=40),
    st.booleans(),
)
def test_in_every_order_of_events_silence_is_filled_only_while_it_is_the_agents(
    happenings: list[tuple[str, float]], goes_on: bool
) -> None:
    said_while: list[tuple[bool, bool]] = []
    state = {"speaking": False, "away": False, "tools": 0}

    async def run() -> None:
        lamp = Lamp(goes_on=goes_on)

        async def interrupt() -> None:
            state["speaking"] = False
            watch.agent_silent()

        def say(text: str) -> None:
            said_while.append((bool(state["speaking"]), bool(state["away"])))

        patience = Patience(dead_air_s=2.0, no_input_s=10.0, max_duration_s=200.0)
        watch = Watch(
            patience, lamp, say=say, interrupt=interrupt, hears=lambda: True, note=lambda *args, **fields: None
        )
        running = asyncio.ensure_future(watch.run())
        for name, seconds in happenings:
            if name == "tool":
                (watch.tool_ended if state["tools"] else watch.tool_began)()
                state["tools"] = 1 - int(state["tools"])
            elif name == "away":
                state["away"] = not state["away"]
                watch.away(bool(state["away"]))
            elif name != "wait":
                getattr(watch, name)()
                state["speaking"] = name == "agent_spoke" or (bool(state["speaking"]) and name != "agent_silent")
            if name in ("agent_spoke", "caller_spoke"):
                assert not lamp.on, "somebody speaks"
            await asyncio.sleep(seconds)
            assert not (lamp.on and goes_on and state["speaking"])
            if running.done():
                break
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, ProviderFailed):
            await running
        assert not lamp.on, "and never outlives the conversation"

    run_virtual(run())
    assert not any(speaking or away for speaking, away in said_while), "nobody is talked into, or over"
