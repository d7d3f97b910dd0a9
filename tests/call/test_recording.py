"""Recordings by the gateway: what is in the files, and what becomes of the call when they can't be written."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.running import running

from dueto.audio.pcm import level_at, read_wav, split_stereo
from dueto.call import Call, recording
from dueto.call.events import Dtmf
from dueto.call.recorder import Recorder, RecordingRules, Shelf
from dueto.errors import Interrupted, NotCapable
from dueto.sim import Caller, Line, SimCall, tone
from dueto.wire.media import AUDIO_STREAM, AUDIO_STREAM_BINARY, Dialect

CALLER_HZ, AGENT_HZ = 700.0, 440.0


async def speaks_and_interrupts(line: Line) -> None:
    await line.hears_speech()
    await line.say(tone(8000, 0.3, CALLER_HZ))
    await line.press("1")
    await line.until_hangup()


async def speaks_and_waits(line: Line) -> None:
    await line.say(tone(8000, 0.3, CALLER_HZ))
    await line.until_hangup()


async def one_call(
    agent: Callable[[Call], Awaitable[None]],
    rules: RecordingRules,
    dialect: Dialect = AUDIO_STREAM_BINARY,
    script: Callable[[Line], Awaitable[None]] = speaks_and_waits,
) -> tuple[SimCall, list[str]]:
    """A whole call on real sockets; returns it, and what was journalled."""
    recorder = Recorder(rules)
    failures: list[Exception] = []

    async def seen(call: Call) -> None:
        try:
            await agent(call)
        except Exception as error:
            failures.append(error)

    async with running(seen, dialect=dialect, recorder=recorder) as here, here.switch(dialect=dialect.name) as switch:
        call = await switch.place(Caller(script=script))
        await call.done()
        await here.desk.empty()
    await recorder.aclose()
    for failure in failures:
        raise failure
    return call, here.names(call.unique_id)


def files(directory: Path) -> tuple[list[Path], list[dict[str, Any]]]:
    """The audio files, and the lines of the last one's events."""
    audio = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    lines = audio[-1].with_suffix(".jsonl").read_text(encoding="utf-8").splitlines() if audio else []
    return audio, [json.loads(line) for line in lines]


def loud_ms(pcm: bytes, rate_hz: int) -> int:
    frames = np.frombuffer(pcm[: len(pcm) - len(pcm) % (rate_hz // 25)], "<i2").reshape(-1, rate_hz // 50)
    return int((np.abs(frames).max(axis=1) > 500).sum()) * 20


@pytest.mark.parametrize("dialect", [AUDIO_STREAM_BINARY, AUDIO_STREAM], ids=lambda dialect: dialect.name)
async def test_the_caller_is_left_and_the_agent_right_as_far_as_he_was_heard(tmp_path: Path, dialect: Dialect) -> None:
    heard: list[int] = []

    async def agent(call: Call) -> None:
        saying = asyncio.ensure_future(call.say(tone(call.rate_hz, 5.0, AGENT_HZ)))
        await call.wait_for(Dtmf)
        await call.stop()
        with pytest.raises(Interrupted) as cut:
            await saying
        heard.append(cut.value.heard_ms)
        await call.say(tone(call.rate_hz, 0.3, AGENT_HZ))

    call, _ = await one_call(agent, RecordingRules(tmp_path, calls="all"), dialect, speaks_and_interrupts)
    (path,), lines = files(tmp_path)
    assert call.unique_id in path.name
    wav = read_wav(path.read_bytes())
    assert (wav.channels, wav.rate_hz) == (2, 16000)
    left, right = split_stereo(wav.pcm)
    assert loud_ms(left, wav.rate_hz) == pytest.approx(300, abs=60)
    assert loud_ms(right, wav.rate_hz) == pytest.approx(heard[0] + 300, abs=120)
    assert level_at(left, wav.rate_hz, CALLER_HZ) > level_at(left, wav.rate_hz, AGENT_HZ) + 20
    assert level_at(right, wav.rate_hz, AGENT_HZ) > level_at(right, wav.rate_hz, CALLER_HZ) + 20
    said = [line for line in lines if line["event"] == "said"]
    assert [line["interrupted"] for line in said] == [True, False]
    assert lines[-1]["event"] == "hungup"
    length_ms = len(wav.pcm) // 64
    assert 0 <= said[0]["at_ms"] <= said[1]["at_ms"] <= lines[-1]["at_ms"] <= length_ms + 20


async def test_what_is_said_during_a_pause_is_silence_and_the_time_goes_on(tmp_path: Path) -> None:
    async def agent(call: Call) -> None:
        recording = call.start_recording()
        with pytest.raises(NotCapable, match="already"):
            call.start_recording()
        for paused in (False, True, False):
            if paused:
                recording.pause()
            else:
                recording.resume()
            await call.say(tone(call.rate_hz, 0.3, AGENT_HZ))
        path = await recording.stop()
        assert path is not None
        assert read_wav(path.read_bytes()).pcm
        assert call.recording is None

    await one_call(agent, RecordingRules(tmp_path))
    (path,), lines = files(tmp_path)
    wav = read_wav(path.read_bytes())
    right = split_stereo(wav.pcm)[1]
    assert loud_ms(right, wav.rate_hz) == pytest.approx(600, abs=100)
    assert len(right) / 2 / wav.rate_hz >= 0.9
    events = [line["event"] for line in lines]
    assert "recording_paused" in events
    assert "recording_resumed" in events
    between = lines[events.index("recording_paused") + 1 : events.index("recording_resumed")]
    assert all(set(line) == {"at_ms", "event"} for line in between)


@pytest.mark.parametrize(("format", "suffix"), [("flac", ".flac"), ("opus", ".ogg")])
async def test_compressed_recordings_can_be_read_back(tmp_path: Path, format: Any, suffix: str) -> None:
    soundfile = pytest.importorskip("soundfile")

    async def agent(call: Call) -> None:
        await call.say(tone(call.rate_hz, 0.3, AGENT_HZ))

    await one_call(agent, RecordingRules(tmp_path, format=format, calls="all"))
    (path,), _ = files(tmp_path)
    assert path.suffix == suffix
    samples, rate_hz = soundfile.read(path, dtype="int16")
    assert samples.shape[1] == 2
    assert level_at(samples[:, 1].tobytes(), rate_hz, AGENT_HZ) > -40


async def test_the_caller_is_told_before_the_agent_speaks(tmp_path: Path) -> None:
    async def agent(call: Call) -> None:
        await call.say(tone(call.rate_hz, 0.3, AGENT_HZ))

    call, _ = await one_call(agent, RecordingRules(tmp_path, calls="all", announce="beep"))
    first = call.heard[: np.flatnonzero(np.frombuffer(call.heard, "<i2"))[0] * 2 + 2 * call.rate_hz // 2]
    assert level_at(first, call.rate_hz, 1400) > -30


@pytest.mark.parametrize(
    ("rules", "recorded"),
    [
        ({"calls": "none"}, False),
        ({"calls": "matching", "numbers": ("55*",)}, True),
        ({"calls": "matching", "numbers": ("*99",)}, False),
        ({"calls": "matching", "numbers": ("1001",)}, True),
    ],
)
def test_the_rules_say_which_calls_are_recorded(tmp_path: Path, rules: dict[str, Any], recorded: bool) -> None:
    assert Recorder(RecordingRules(tmp_path, **rules)).wants("551190", "1001") is recorded


def test_a_number_as_long_as_a_caller_likes_costs_no_time(tmp_path: Path) -> None:
    recorder = Recorder(RecordingRules(tmp_path, calls="matching", numbers=("*1*1*1*1*1*1*2",)))
    assert not recorder.wants(
        "1" * 60_000, ""
    )  # a minute of backtracking, and the test's end, where it is a plain `.*`


async def test_a_directory_that_is_gone_costs_the_recording_and_not_the_call(tmp_path: Path) -> None:
    spoilt = tmp_path / "file"
    spoilt.write_text("not a directory")

    async def agent(call: Call) -> None:
        await call.say(tone(call.rate_hz, 0.3, AGENT_HZ))

    call, names = await one_call(agent, RecordingRules(spoilt, calls="all"))
    assert loud_ms(call.heard, call.rate_hz) >= 280
    assert names.count("recording_failed") == 1
    assert "agent_finished" in names


async def test_a_full_disk_ends_the_recording_and_not_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Shelf.write

    def full(self: Shelf, pcm: bytes, lines: list[dict[str, Any]]) -> None:
        if self.path.stat().st_size > 1000:
            raise OSError(28, "No space left on device")
        written(self, pcm, lines)

    monkeypatch.setattr(Shelf, "write", full)
    monkeypatch.setattr(recording, "EVERY_S", 0.1)
    stopped: list[object] = []

    async def agent(call: Call) -> None:
        started = call.start_recording()
        await call.say(tone(call.rate_hz, 0.8, AGENT_HZ))
        stopped.append(await started.stop())

    call, names = await one_call(agent, RecordingRules(tmp_path))
    assert loud_ms(call.heard, call.rate_hz) >= 700
    assert names.count("recording_failed") == 1
    assert stopped == [None]


async def test_a_disk_that_hangs_ends_the_recording_and_not_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()

    def hang(self: Shelf, pcm: bytes, lines: list[dict[str, Any]]) -> None:
        may_go_on.wait(30)

    monkeypatch.setattr(Shelf, "write", hang)
    monkeypatch.setattr(recording, "PATIENCE_S", 0.2)
    stopped: list[object] = []

    async def agent(call: Call) -> None:
        started = call.start_recording()
        await call.say(tone(call.rate_hz, 0.1, AGENT_HZ))
        stopped.append(await started.stop())
        may_go_on.set()

    _, names = await one_call(agent, RecordingRules(tmp_path))
    assert stopped == [None]
    assert names.count("recording_failed") == 1
    assert "agent_finished" in names


async def test_without_a_directory_it_says_what_to_configure() -> None:
    told: list[str] = []

    async def agent(call: Call) -> None:
        with pytest.raises(NotCapable) as error:
            call.start_recording()
        told.append(str(error.value))

    async with running(agent) as here, here.switch() as switch:
        call = await switch.place(Caller(script=speaks_and_waits))
        await call.done()
    assert "[recording] directory" in told[0]


def test_the_name_of_a_file_holds_nothing_that_a_caller_could_choose(tmp_path: Path) -> None:
    async def main() -> Path:
        recorder = Recorder(RecordingRules(tmp_path))
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        recorder.open("../../etc/passwd\n", 8000, datetime(2026, 1, 2, 3, 4, 5), opened.set_result)
        shelf = await opened
        recorder.close(shelf, lambda result: None)
        await recorder.aclose()
        return Path(shelf.path)

    path = asyncio.run(main())
    assert path.parent == tmp_path / "2026-01-02"
    assert path.name == "030405-______etc_passwd_.wav"


WRITER = """
import pathlib, sys, time
from dueto.audio.pcm import tone
from dueto.call.recorder import Shelf
shelf = Shelf(pathlib.Path(sys.argv[1]), "crash", 16000, sys.argv[2])
for _ in range(10):
    shelf.write(tone(16000, 1000, 440.0), [{"at_ms": 0, "event": "said"}])
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("format", "suffix"), [("wav", "wav"), ("flac", "flac"), ("opus", "ogg")])
def test_a_killed_process_leaves_a_recording_that_can_be_played_up_to_the_last_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, suffix: str
) -> None:
    soundfile = pytest.importorskip("soundfile")
    command = [sys.executable, "-c", WRITER, str(tmp_path), format]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
    # Its wrapper would seek, and can't in a FLAC whose length nobody could write down any more.
    monkeypatch.setattr(soundfile.SoundFile, "seekable", lambda self: False)
    with soundfile.SoundFile(tmp_path / f"crash.{suffix}") as found:
        played_s = found.buffer_read_into(bytearray(4 * 16000 * 10), "int16") / 16000
    assert played_s >= 4.5
    assert len((tmp_path / "crash.jsonl").read_text().splitlines()) == 10
