"""What sets the builds of the audio modules apart: their buffers, their words, what each of them loses."""

import asyncio
import base64
import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.sim import Caller, Counters, Line, SimCall, tone
from dueto.sim.downlink import GatheredDownlink, WarmedDownlink
from dueto.wire.esl import Execute

from .recordings import CAPTURES
from .scenes import Scene, play

FORK_EVENTS = b" ".join(
    b"mod_audio_fork::" + kind
    for kind in (b"connect", b"connect_failed", b"disconnect", b"play_audio", b"kill_audio", b"buffer_overrun")
)
OPENING = b"connect\n\nlinger 5\n\nmyevents\n\nevent plain CUSTOM " + FORK_EVENTS + b" mod_audio_stream::json\n\n"
FRAME = 320


async def start(scene: Scene, call: SimCall, command: str, words: str = "mono 8k") -> None:
    """Have the gateway start a stream and wait until it is open."""
    count = len(scene.server.sides)
    scene.gateway.send(f"api {command} {call.unique_id} start ws://127.0.0.1:8085/stream {words}")
    await scene.server.side(count)


async def custom(scene: Scene, kind: str) -> str:
    """Wait for an event of mod_audio_fork and return its body."""
    subclass = f"mod_audio_fork::{kind}"
    await scene.gateway.until(lambda: any(event.subclass == subclass for event in scene.gateway.named("CUSTOM")))
    return next(event.body for event in scene.gateway.named("CUSTOM") if event.subclass == subclass)


def stream_audio(pcm: bytes, rate_hz: int = 8000) -> str:
    audio = base64.b64encode(pcm).decode()
    return json.dumps(
        {"type": "streamAudio", "data": {"audioDataType": "raw", "sampleRate": rate_hz, "audioData": audio}}
    )


def audible(heard: bytes) -> tuple[int, int, int]:
    """First and last audible ms, and how many are audible, as the recorder counted: by 20 ms packets."""
    loud = np.flatnonzero(np.abs(np.frombuffer(heard, "<i2").reshape(-1, 160)).max(axis=1) > 500)
    return (int(loud[0]) * 20, int(loud[-1]) * 20 + 20, len(loud) * 20) if len(loud) else (0, 0, 0)


# -- the fork that plays streamAudio itself


def test_the_caller_of_a_base64_fork_hears_what_the_recorded_one_heard() -> None:
    recorded: dict[str, Sequence[int]] = {}
    for line in (CAPTURES / "19-playback-edition" / "esl.txt").read_text().splitlines():
        if found := re.search(r"caller heard in (\d): (.*)", line):
            recorded[found[1]] = [int(ms) for ms in re.findall(r"(\d+) ms", found[2])] or [0, 0, 0]
    heard: dict[str, Sequence[int]] = {}

    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, "uuid_audio_stream")
        side = scene.server.sides[0]

        async def hear(name: str, seconds: float) -> None:
            before = len(call.heard)
            await asyncio.sleep(seconds)
            heard[name] = audible(call.heard[before:])

        for _ in range(5):
            side.text(stream_audio(tone(8000, 0.2, 440)))
        await hear("1", 2.0)
        side.text(stream_audio(tone(8000, 0.2, 440)))
        await hear("2", 1.0)
        side.text(stream_audio(tone(8000, 1.8, 440)))
        asyncio.get_running_loop().call_later(0.5, side.text, '{"type":"stopAudio"}')
        await hear("3", 1.5)
        side.text(stream_audio(tone(16000, 1.0, 440), 16000))
        await hear("4", 2.4)
        side.binary(tone(8000, 0.5, 440))
        await hear("5", 1.0)
        side.text(stream_audio(tone(8000, 5.0, 440)))
        await hear("6", 3.0)
        assert call.counters.lost_ms == 3000

    play(act, opening=OPENING, dialect="audio_stream-base64")
    for name, figures in heard.items():
        assert figures == pytest.approx(recorded[name], abs=41), name


@given(st.lists(st.integers(0, 80).map(lambda frames: frames * FRAME), max_size=12), st.integers(0, 5))
def test_a_warmed_buffer_loses_only_what_is_over_and_never_begins_cold(sizes: list[int], pulls: int) -> None:
    counters = Counters()
    down = WarmedDownlink(8000, counters)
    sent = np.random.default_rng(1).integers(1, 255, sum(sizes), np.uint8).tobytes()
    heard, at, playing = b"", 0, False
    for size in sizes:
        down.feed(sent[at : at + size])
        at += size
        for _ in range(pulls):
            waited_ms = down.waiting_ms
            frame = down.pull()
            assert frame is None or playing or waited_ms >= 400
            playing = frame is not None
            heard += frame or b""
    rest = down.waiting_ms
    assert len(heard) / 16 + rest + counters.lost_ms == sum(sizes) / 16
    if not counters.lost_ms:
        assert sent.startswith(heard)


# -- mod_audio_fork


def test_a_fork_offers_its_sub_protocol_and_says_metadata_first() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, "uuid_audio_fork", 'mono 16k {"m":1}')
        await asyncio.sleep(0.1)
        side = scene.server.sides[0]
        assert dict(side.headers) == {"Origin": "http://127.0.0.1", "Sec-WebSocket-Protocol": "audio.drachtio.org"}
        assert side.got[0][1] == '{"m":1}'
        assert {len(data) for _, data in side.got[1:]} == {640}

    play(act, opening=OPENING, dialect="audio_fork")


def test_play_audio_becomes_a_file_and_kill_audio_breaks_its_playback() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, "uuid_audio_fork")
        side = scene.server.sides[0]
        audio = base64.b64encode(tone(8000, 2.0, 440)).decode()
        data = {"audioContentType": "raw", "sampleRate": 8000, "audioContent": audio, "textContent": "hi"}
        side.text(json.dumps({"type": "playAudio", "data": data}))
        file = json.loads(await custom(scene, "play_audio"))["file"]
        scene.gateway.send(Execute("playback", file, event_uuid="p").encode())
        await asyncio.sleep(0.5)
        side.text('{"type":"killAudio"}')
        await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        assert await custom(scene, "kill_audio") == ""
        assert audible(call.heard)[2] == pytest.approx(500, abs=60)

    play(act, opening=OPENING, dialect="audio_fork")


def test_frames_that_wait_are_joined_and_two_seconds_of_them_are_thrown_away_once() -> None:
    async def act(scene: Scene) -> None:
        async def script(line: Line) -> None:
            await line.say(tone(8000, 8.0, 440))
            await line.until_hangup()

        call = await scene.call(Caller(script=script))
        await start(scene, call, "uuid_audio_fork")
        side = scene.server.sides[0]
        await asyncio.sleep(0.5)
        count = len(side.got)
        side.unread_bytes = 1
        await asyncio.sleep(0.5)
        assert len(side.got) == count
        side.unread_bytes = 0
        await asyncio.sleep(0.03)
        assert 24 * FRAME <= len(side.got[count][1]) <= 26 * FRAME
        side.unread_bytes = 1
        await asyncio.sleep(5.0)
        side.unread_bytes = 0
        await asyncio.sleep(0.03)
        assert max(len(data) for _, data in side.got) < 101 * FRAME
        told = [event.subclass for event in scene.gateway.named("CUSTOM")]
        assert told.count("mod_audio_fork::buffer_overrun") == 1

    play(act, opening=OPENING, dialect="audio_fork")


def test_the_burst_after_a_hold_is_one_message_of_a_fork() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, "uuid_audio_fork")
        for verb in ("", "off "):
            scene.gateway.send(f"api uuid_hold {verb}{call.unique_id}")
            await asyncio.sleep(1.0)
        assert max(len(data) for data in scene.server.frames()) == 11 * FRAME

    play(act, opening=OPENING, dialect="audio_fork")


def test_a_fork_that_could_not_connect_says_so_and_stays_attached_until_stop() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        fork = f"api uuid_audio_fork {call.unique_id}"
        scene.gateway.send(f"{fork} start ws://127.0.0.1:8999/x mono 8k")
        assert await custom(scene, "connect_failed") == '{"reason":"Unable to connect"}'
        scene.gateway.send(f"{fork} start ws://127.0.0.1:8085/x mono 8k\n{fork} stop")
        assert (await scene.gateway.answered(7))[5:] == ["-ERR Operation Failed\n", "+OK Success\n"]
        await start(scene, call, "uuid_audio_fork")

    play(act, opening=OPENING, dialect="audio_fork")


def test_only_the_loaded_modules_command_is_there() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        scene.gateway.send(
            f"api uuid_audio_stream {call.unique_id} stop\napi module_exists mod_audio_fork\n"
            "api module_exists mod_audio_stream"
        )
        replies = (await scene.gateway.answered(7))[4:]
        assert replies == ["-ERR uuid_audio_stream Command not found!\n", "true", "false"]

    play(act, opening=OPENING, dialect="audio_fork")


# -- its bidirectional build


@pytest.mark.parametrize(("words", "plays"), [("mono 8k audio_fork {} true true 8000", True), ("mono 8k", False)])
def test_binary_is_played_only_where_start_asked_for_it(words: str, plays: bool) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, "uuid_audio_fork", words)
        scene.server.sides[0].binary(tone(8000, 1.0, 440))
        await asyncio.sleep(1.5)
        assert audible(call.heard)[2] == (pytest.approx(1000, abs=20) if plays else 0)

    play(act, opening=OPENING, dialect="audio_fork-binary")


def test_less_than_the_threshold_waits_and_kill_audio_does_not_reach_it() -> None:
    down = GatheredDownlink(8000, 8000, Counters(), lambda name, played: None)
    frame = b"\1\0" * 160
    for count in range(1, 16):
        down.feed(frame)
        assert down.waiting_ms == (0 if count < 8 else count // 4 * 80)
    down.clear()
    down.feed(frame[:2])  # what comes before the next frame is cleared too, where it is not gathered only
    assert down.pull() is None
    assert down.waiting_ms == 0
    down.feed(frame)
    assert down.waiting_ms == pytest.approx(80, abs=1)


def test_a_mark_is_told_when_what_came_before_it_was_played() -> None:
    told: list[tuple[str, bool]] = []
    down = GatheredDownlink(8000, 8000, Counters(), lambda name, played: told.append((name, played)))
    down.feed(b"\1\0" * 1280)
    down.mark("a")
    down.feed(b"\1\0" * 640)
    for pulled in range(1, 13):
        down.pull()
        assert told == ([("a", True)] if pulled >= 9 else [])
    down.pull()  # one sample more: the marker
    down.mark("b")
    down.pull()
    assert told[1:] == [("b", True)]
    down.mark("c")
    down.clear()
    down.pull()
    assert told[2:] == [("c", False)]


def test_a_sample_of_minus_one_is_taken_for_a_mark_while_one_is_out() -> None:
    told: list[str] = []
    down = GatheredDownlink(8000, 8000, Counters(), lambda name, played: told.append(name))
    down.mark("a")
    down.feed(b"\1\0" * 639 + b"\xff\xff" + b"\2\0" * 640)
    down.pull()
    assert told == ["a"]  # the marker itself, in front
    down.mark("b")
    down.feed(b"\3\0" * 640)
    while down.waiting_ms > 80 and len(told) == 1:
        down.pull()
    assert told == ["a", "b"]  # too early: it was the -1
