"""Sentences into speech, by programs that work, fail, hang, or are not there."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from dueto.agents.sentences import Sentences
from dueto.agents.speech import SpeechMouth, installed, mouth
from dueto.agents.speech.mouth import ESPEAK, FLITE, Synthesiser
from dueto.agents.speech.prompts import recordings
from dueto.audio.pcm import duration_ms, rms_dbfs
from dueto.errors import NotCapable

from .conftest import DESTINATIONS

TALK = """
import sys, wave
text = sys.argv[1] if sys.argv[1:2] and sys.argv[1] != "--stdin" else sys.stdin.read()
with wave.open(sys.argv[-1], "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(16000)
    file.writeframes(b"\\x00\\x10" * (16 * len(text)))
open(sys.argv[-2], "a").write(text + "\\n")
"""


def _program(tmp_path: Path, code: str, *, stdin: bool = False) -> Synthesiser:
    script = tmp_path / "speak.py"
    script.write_text(code)
    text = "--stdin" if stdin else "{text}"
    return Synthesiser(sys.executable, (str(script), text, str(tmp_path / "said.txt"), "{out}"), text_on_stdin=stdin)


@pytest.mark.parametrize("stdin", [False, True])
@pytest.mark.parametrize("text", ["Hello.", "-o nothing", "; rm -rf $HOME `id`", 'say "%s" \\ é'])
async def test_a_text_reaches_the_program_as_it_is(tmp_path: Path, text: str, stdin: bool) -> None:
    spoken = await SpeechMouth(_program(tmp_path, TALK, stdin=stdin)).speak(text, 16000)
    assert (tmp_path / "said.txt").read_text() == f"{text}\n"
    assert len(spoken) == 32 * len(text)


async def test_what_was_spoken_once_is_kept_and_the_least_used_goes_first(tmp_path: Path) -> None:
    speaker = SpeechMouth(_program(tmp_path, TALK), cache_bytes=1000)
    for letter in "abcadab":  # 320 bytes each: three fit
        await speaker.speak(10 * letter, 16000)
    said = (tmp_path / "said.txt").read_text().split()
    assert said == [10 * letter for letter in "abcdb"]


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
async def test_it_speaks_at_the_rate_of_the_call(tmp_path: Path, rate_hz: int) -> None:
    spoken = await SpeechMouth(_program(tmp_path, TALK)).speak("x" * 100, rate_hz)
    assert duration_ms(spoken, rate_hz) == pytest.approx(100.0, abs=1.0)


async def test_a_program_that_fails_or_writes_nonsense_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(NotCapable, match="exit code 3"):
        await SpeechMouth(_program(tmp_path, "raise SystemExit(3)")).speak("Hello.", 8000)
    with pytest.raises(NotCapable, match="spoke nothing"):
        await SpeechMouth(_program(tmp_path, "import sys; open(sys.argv[-1], 'w').write('x')")).speak("Hello.", 8000)
    with pytest.raises(NotCapable, match="can't be started"):
        await SpeechMouth(Synthesiser("/nonexistent/speak", ("{text}",))).speak("Hello.", 8000)


HANG = "import os, sys, time; open(sys.argv[-2], 'w').write(str(os.getpid())); print(flush=True); time.sleep(600)"


async def test_a_program_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mouth, "DEADLINE_S", 0.01)
    with pytest.raises(NotCapable, match="took longer"):
        await SpeechMouth(_program(tmp_path, "import time; time.sleep(600)")).speak("Hello.", 8000)


async def test_a_cancelled_sentence_leaves_no_process(tmp_path: Path) -> None:
    pipe = tmp_path / "said.txt"
    os.mkfifo(pipe)  # opening it waits for the program: then it surely runs
    speaking = asyncio.create_task(SpeechMouth(_program(tmp_path, HANG)).speak("Hello.", 8000))
    process_id = int(await asyncio.to_thread(pipe.read_text))
    speaking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await speaking
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


@pytest.mark.parametrize(("text", "rate_hz"), [("x" * 2001, 16000), ("Hello.", 11025)])
async def test_what_is_too_long_or_of_an_odd_rate_is_refused(tmp_path: Path, text: str, rate_hz: int) -> None:
    with pytest.raises(NotCapable):
        await SpeechMouth(_program(tmp_path, TALK)).speak(text, rate_hz)


async def test_every_standard_sentence_is_recorded() -> None:
    speaker = SpeechMouth(None)
    for sentence in Sentences(DESTINATIONS).all():
        spoken = await speaker.speak(sentence, 8000)
        assert duration_ms(spoken, 8000) > 400
        assert -40 < rms_dbfs(spoken) < -6


async def test_what_was_never_recorded_says_what_to_install() -> None:
    with pytest.raises(NotCapable, match="install flite or espeak-ng"):
        await SpeechMouth(None).speak("Hello, this is Dueto. The moon is made of cheese.", 8000)


def test_the_recordings_are_small_and_all_of_them_are_used() -> None:
    folder = Path(mouth.__file__).parent / "prompts"
    files = {file.name: file.stat().st_size for file in folder.glob("*.wav")}
    assert set(recordings().values()) == set(files)
    assert sum(files.values()) < 1_800_000


@pytest.mark.parametrize("synthesiser", [FLITE, ESPEAK], ids=["flite", "espeak-ng"])
async def test_a_real_synthesiser_speaks_even_what_looks_like_an_option(synthesiser: Synthesiser) -> None:
    if shutil.which(synthesiser.program) is None:
        pytest.skip(f"{synthesiser.program} is not installed")
    speaker = SpeechMouth(synthesiser)
    for text in ("Sales, one moment.", "-h is an option", "--version"):
        spoken = await speaker.speak(text, 16000)
        assert 300 < duration_ms(spoken, 16000) < 6000
        assert -45 < rms_dbfs(spoken) < -3


def test_the_best_installed_synthesiser_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: program if program == "espeak-ng" else None)
    assert installed() is ESPEAK
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert installed() is None
