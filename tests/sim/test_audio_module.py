"""The audio module: frames, texts, events, playing, and how a stream ends."""

import asyncio
import base64
import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dueto.audio.pcm import split_stereo
from dueto.sim import Caller, Counters, Line, SimCall, tone
from dueto.sim.downlink import Downlink
from dueto.wire.esl import Execute

from .scenes import Scene, play
from .twins import Server

CUSTOM = b"event plain CUSTOM " + b" ".join(
    b"mod_audio_stream::" + kind for kind in (b"connect", b"disconnect", b"error", b"json", b"play")
)
OPENING = b"connect\n\nlinger 5\n\nmyevents\n\n" + CUSTOM + b"\n\n"
OK, FAILED = "+OK Success\n", "-ERR Operation Failed\n"


async def start(scene: Scene, call: SimCall, words: str = "mono 16k", path: str = "stream") -> None:
    """Have the gateway start a stream and wait until it is open."""
    count = len(scene.server.sides)
    scene.gateway.send(f"api uuid_audio_stream {call.unique_id} start ws://127.0.0.1:8085/{path} {words}")
    await scene.server.side(count)


async def custom(scene: Scene, kind: str, nth: int = 1) -> str:
    """Wait for the nth event of a subclass and return its body."""
    subclass = f"mod_audio_stream::{kind}"

    def found() -> list[str]:
        return [event.body for event in scene.gateway.named("CUSTOM") if event.subclass == subclass]

    await scene.gateway.until(lambda: len(found()) >= nth)
    return found()[nth - 1]


@pytest.mark.parametrize(
    ("words", "variables", "size", "interval_ms"),
    [
        ("mono 8k", (), 320, 20),
        ("mono 16k", (), 640, 20),
        ("mono 24000", (), 960, 20),
        ("stereo 8k", (), 640, 20),
        ("stereo 16k", (), 1280, 20),
        ("mixed 16k", (), 640, 20),
        ("mono 16k", (("STREAM_BUFFER_SIZE", "100"),), 3200, 100),
        ("mono 8k", (("STREAM_BUFFER_SIZE", "200"),), 3200, 200),
        ("mono 8k", (("STREAM_BUFFER_SIZE", "30"),), 320, 20),
    ],
)
def test_frames_have_the_size_and_the_pace_of_the_real_ones(
    words: str, variables: tuple[tuple[str, str], ...], size: int, interval_ms: int
) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(variables=variables))
        if not words.startswith("mono"):
            scene.gateway.send(Execute("playback", "silence_stream://-1").encode())
        await start(scene, call, words)
        await asyncio.sleep(2)
        got = scene.server.sides[0].got[1:]
        assert {len(data) for _, data in got} == {size}
        gaps = {round((b - a) * 1000) for (a, _), (b, _) in pairwise(got)}
        assert gaps == {interval_ms}

    play(act, opening=OPENING)


def test_five_minutes_of_frames_do_not_drift() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, "mono 8k")
        await asyncio.sleep(300)
        got = scene.server.sides[0].got
        assert len(got) - 15_000 in (0, 1, 2)
        assert (got[-1][0] - got[0][0]) == pytest.approx((len(got) - 1) * 0.02, abs=1e-3)

    play(act, record=False)


def test_mixed_and_stereo_are_silent_while_nothing_is_sent_to_the_caller() -> None:
    async def act(scene: Scene) -> None:
        async def script(line: Line) -> None:
            await line.say(tone(8000, 1.0, 400))
            await line.until_hangup()

        call = await scene.call(Caller(script=script))
        await start(scene, call, "stereo 8k")
        await asyncio.sleep(0.3)
        assert scene.server.frames() == []
        scene.gateway.send(Execute("playback", "tone_stream://%(400,0,1000)").encode())
        await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        said, heard = split_stereo(scene.server.frames()[5])
        assert _loudest_hz(said, 8000) == pytest.approx(400, abs=60)
        assert _loudest_hz(heard, 8000) == pytest.approx(1000, abs=60)
        assert len(scene.server.frames()) == 20

    play(act, opening=OPENING)


def test_metadata_comes_first_and_texts_are_one_word_unless_quoted() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, 'mono 8k {"hello":"big world"}')
        await custom(scene, "connect")
        for text in ('{"a":"one two"}', '\'{"a":"one two"}\''):
            scene.gateway.send(f"api uuid_audio_stream {call.unique_id} send_text {text}")
        await scene.gateway.answered(7)
        texts = [data for _, data in scene.server.sides[0].got if isinstance(data, str)]
        assert texts == ['{"hello":"big world"}', '{"a":"one', '{"a":"one two"}']
        assert scene.server.sides[0].got[0][1] == texts[0]

    play(act, opening=OPENING)


def test_audio_from_before_the_upgrade_comes_at_once() -> None:
    class SlowServer(Server):
        async def __call__(self, *args: object) -> object:  # type: ignore[override]
            await asyncio.sleep(0.5)
            return await super().__call__(*args)  # type: ignore[arg-type]

    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        assert len(scene.server.frames()) in (24, 25)
        assert len({at for at, _ in scene.server.sides[0].got}) == 1

    play(act, opening=OPENING, server=SlowServer())


def test_a_hold_stops_the_frames_and_ends_in_a_burst() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        scene.gateway.send(f"api uuid_hold {call.unique_id}")
        await scene.gateway.answered(6)
        before = len(scene.server.frames())
        await asyncio.sleep(2)
        assert len(scene.server.frames()) - before <= 1
        before = len(scene.server.frames())
        scene.gateway.send(f"api uuid_hold off {call.unique_id}")
        await asyncio.sleep(1)
        assert 58 <= len(scene.server.frames()) - before <= 61

    play(act, opening=OPENING)


def test_pause_drops_what_is_said_meanwhile() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        for verb in ("pause", "resume"):
            scene.gateway.send(f"api uuid_audio_stream {call.unique_id} {verb}")
            before = len(scene.server.frames())
            await asyncio.sleep(1)
            assert len(scene.server.frames()) - before == (0 if verb == "pause" else 50)

    play(act, opening=OPENING)


def test_stream_audio_becomes_a_file_that_playback_makes_the_caller_hear() -> None:
    spoken = tone(16000, 0.5, 700)

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(rate_hz=16000))
        await start(scene, call)
        data = {
            "audioDataType": "raw",
            "sampleRate": 16000,
            "audioData": base64.b64encode(spoken).decode(),
            "id": "x1",
        }
        scene.server.sides[0].text(json.dumps({"type": "streamAudio", "data": data}))
        body = json.loads(await custom(scene, "play"))
        assert list(body) == ["audioDataType", "sampleRate", "id", "file"]
        assert body["file"].endswith(f"{call.unique_id}_0.tmp.r16")
        scene.gateway.send(Execute("playback", body["file"], event_uuid="p").encode())
        done = await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        assert done.get("Application-Response") == "FILE PLAYED"
        scene.gateway.send(f"api uuid_audio_stream {call.unique_id} stop")
        await scene.gateway.answered(7)
        scene.gateway.send(Execute("playback", body["file"], event_uuid="q").encode())
        gone = await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE", 2)
        assert gone.get("Application-Response") == "FILE NOT FOUND"
        assert call.heard.strip(b"\0") == spoken.strip(b"\0")

    play(act, opening=OPENING, dialect="audio_stream")


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "[1]",
        '{"type":"other"}',
        '{"type":"streamAudio"}',
        '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":11025,"audioData":"AAAA"}}',
        '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":"16000","audioData":"AAAA"}}',
        '{"type":"streamAudio","data":{"audioDataType":"flac","audioData":"AAAA"}}',
        '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":8000}}',
        '{"type":"streamAudio","data":{"audioDataType":"wav","audioData":"no base64!"}}',
        '{"type":"stopAudio"}',
    ],
)
def test_anything_but_a_good_stream_audio_comes_back_byte_for_byte_as_json(text: str) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        scene.server.sides[0].text(text)
        assert await custom(scene, "json") == text

    play(act, opening=OPENING, dialect="audio_stream")


def test_the_community_module_drops_binary_without_a_trace() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        scene.server.sides[0].binary(tone(16000, 0.5, 700))
        await asyncio.sleep(1)
        assert not call.heard.strip(b"\0")
        assert [event.subclass for event in scene.gateway.named("CUSTOM")] == ["mod_audio_stream::connect"]

    play(act, opening=OPENING, dialect="audio_stream")


def test_streamed_audio_is_heard_in_real_time_on_the_callers_time_line() -> None:
    spoken = tone(16000, 2.0, 700)

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(rate_hz=16000))
        await start(scene, call)
        at = asyncio.get_running_loop().time()
        scene.server.sides[0].binary(spoken)  # 2 s at once
        await asyncio.sleep(1)
        heard = call.heard
        begins = len(heard) - len(heard.lstrip(b"\0"))
        assert begins / 32000 == pytest.approx(at - call.placed_at, abs=0.021)
        assert 0.95 < len(heard.lstrip(b"\0")) / 32000 < 1.02
        await asyncio.sleep(2)
        assert call.heard.strip(b"\0") == spoken.strip(b"\0")
        assert len(call.heard) == len(call.said)

    play(act, opening=OPENING)


def test_audio_that_comes_too_late_is_a_gap_and_is_counted() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(rate_hz=16000))
        await start(scene, call)
        for pause_s in (0.18, 0.0, 2.0):
            scene.server.sides[0].binary(tone(16000, 0.1, 700))
            await asyncio.sleep(pause_s)
        scene.server.sides[0].binary(tone(16000, 0.11, 700))
        await asyncio.sleep(1)
        assert call.counters.gaps == 1
        assert call.counters.gap_ms == pytest.approx(80, abs=20)
        assert call.counters.padded_ms == pytest.approx(10)

    play(act, opening=OPENING)


@pytest.mark.parametrize("knows", [True, False])
def test_a_build_that_knows_stop_audio_falls_silent_at_once(knows: bool) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(rate_hz=16000))
        await start(scene, call)
        scene.server.sides[0].binary(tone(16000, 2.0, 700))
        await asyncio.sleep(0.5)
        scene.server.sides[0].text('{"type":"stopAudio"}')
        await asyncio.sleep(2)
        heard_s = len(call.heard.strip(b"\0")) / 32000
        assert heard_s == pytest.approx(0.5 if knows else 2.0, abs=0.03)

    play(act, opening=OPENING, clears=knows)


@given(st.lists(st.integers(1, 4000), max_size=20), st.sampled_from([8000, 16000]))
def test_the_downlink_plays_every_byte_once_and_in_order(sizes: list[int], rate_hz: int) -> None:
    down = Downlink(rate_hz, rate_hz, Counters())
    sent = np.random.default_rng(1).integers(1, 255, sum(sizes), np.uint8).tobytes()
    heard, at = b"", 0
    for size in sizes:
        down.feed(sent[at : at + size])
        at += size
        heard += down.pull() or b""
    while (frame := down.pull()) is not None:
        heard += frame
    assert heard.replace(b"\0", b"") == sent


def test_a_server_that_closes_leaves_the_stream_attached_until_stop() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        scene.server.sides[0].leave(4001, "server done")
        body = json.loads(await custom(scene, "disconnect"))
        assert body == {"status": "disconnected", "message": {"code": 4001, "reason": "server done"}}
        stream = f"api uuid_audio_stream {call.unique_id}"
        scene.gateway.send(f"{stream} start ws://127.0.0.1:8085/x mono 8k\n{stream} stop\n{stream} stop")
        assert (await scene.gateway.answered(8))[5:] == [FAILED, OK, FAILED]
        assert scene.server.sides[0].aborted  # the server had not closed TCP
        await start(scene, call, "mono 8k")

    play(act, opening=OPENING)


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("refused", 6, "WebSocket upgrade failed"),
        ("mute", 10, "Timeout"),
    ],
)
def test_a_failed_start_says_ok_then_tells_the_error_and_detaches(path: str, code: int, text: str) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        at = asyncio.get_running_loop().time()
        scene.gateway.send(f"api uuid_audio_stream {call.unique_id} start ws://127.0.0.1:8085/{path} mono 8k")
        assert (await scene.gateway.answered(5))[4] == OK
        body = json.loads(await custom(scene, "error"))
        assert body == {"status": "error", "message": {"code": code, "error": text}}
        assert asyncio.get_running_loop().time() - at == pytest.approx(1.0 if code == 10 else 0.02, abs=0.05)
        await start(scene, call)

    play(act, opening=OPENING)


def test_a_stream_that_was_open_in_time_is_not_given_up_because_the_process_stood_still() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call, path="told-late")
        await asyncio.sleep(3)
        assert "mod_audio_stream::error" not in [event.subclass for event in scene.gateway.named("CUSTOM")]
        assert call.channel.stream is not None
        call.hang_up()

    play(act, opening=OPENING)


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_ignores_close_delays_the_end_but_not_the_hangup(answers: bool) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        call.hang_up()
        hangup = await _at(scene, "CHANNEL_HANGUP")
        complete = await _at(scene, "CHANNEL_HANGUP_COMPLETE")
        assert hangup - call.hung_up_at < 0.045
        assert complete - hangup == pytest.approx(0.0 if answers else 1.0, abs=0.021)
        assert scene.server.sides[0].closed == (1000, "Normal closure")
        assert scene.server.sides[0].aborted is not answers

    play(act, opening=OPENING, server=Server(answers_close=answers))


def test_the_dialplans_stream_starts_on_the_answer_with_the_tokens_url() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller("1001", secretary="front-desk"))
        assert (await scene.server.side()).url == (
            f"ws://h:1/stream/front-desk/{call.unique_id}/1001?rate=8000&mix=mono&token="
            f"{hashlib.md5(f's3cret:{call.unique_id}:s3cret'.encode()).hexdigest()}"
        )
        await asyncio.sleep(0.1)
        assert len(scene.server.frames()[0]) == 320
        assert call.paired

    play(
        act,
        start="dialplan",
        secret="s3cret",
        media_url="ws://h:1/stream/{secretary}/{uuid}/{caller}?rate=8000&mix=mono&token={token}",
    )


def test_headers_and_heart_beat_are_taken_from_the_channel() -> None:
    async def act(scene: Scene) -> None:
        extra = '{"Authorization":"Bearer abc","n":1}'
        call = await scene.call(Caller(variables=(("STREAM_EXTRA_HEADERS", extra), ("STREAM_HEART_BEAT", "1"))))
        await start(scene, call)
        await asyncio.sleep(3.5)
        assert scene.server.sides[0].headers == [("Authorization", "Bearer abc")]
        assert scene.server.sides[0].pings == [b"ping"] * 3

    play(act, opening=OPENING)


def test_the_stream_survives_a_transfer_and_the_loss_of_the_socket() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        await start(scene, call)
        scene.gateway.send(f"api uuid_transfer {call.unique_id} 'park:' inline\nexit")
        await asyncio.sleep(1)
        assert scene.server.sides[0].closed is None
        before = len(scene.server.frames())
        await asyncio.sleep(1)
        assert len(scene.server.frames()) - before == 50

    play(act, opening=OPENING)


async def _at(scene: Scene, name: str) -> float:
    await scene.gateway.event(name)
    return next(block.at for block in scene.gateway.blocks if block.kind == name)


def _loudest_hz(pcm: bytes, rate_hz: int) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))
