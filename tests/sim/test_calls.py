"""Whole calls: callers with scripts, bridges, holds, and what is left of a call afterwards."""

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from dueto.audio import write_wav
from dueto.sim import Caller, Endpoint, Line, NoSuchSound, NotHeard, SimCall, tone
from dueto.sim.virtual import VirtualTimeLoop
from dueto.wire.esl import Execute

from .scenes import Scene, play
from .twins import Server

OPENING = b"connect\n\nlinger 5\n\nmyevents\n\nevent plain CHANNEL_HOLD CHANNEL_UNHOLD\n\n"


def names(scene: Scene, *skipped: str) -> list[str]:
    """The names of the events the gateway got, without some."""
    return [kind for kind in scene.gateway.kinds if kind.isupper() and kind not in skipped]


def test_what_is_said_and_what_is_heard_stand_on_one_time_line() -> None:
    async def script(line: Line) -> None:
        await line.wait(0.5)
        await line.say(tone(16000, 1.0, 500))
        await line.wait(0.5)

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=script, rate_hz=16000))
        await call.done()
        assert len(call.said) == len(call.heard)
        assert len(call.said) / 32000 == pytest.approx(2.04, abs=0.06)
        begins = len(call.said) - len(call.said.lstrip(b"\0"))
        assert begins / 32000 == pytest.approx(0.52, abs=0.03)
        shift = call.heard.find(call.said.strip(b"\0")) - begins
        assert 0 <= shift / 32000 <= 0.04  # the echo comes one or two frames later

    play(act, server=Server(echo=True), start="dialplan")


def test_a_wav_is_said_at_the_callers_rate(tmp_path: Path) -> None:
    path = tmp_path / "hello.wav"
    path.write_bytes(write_wav(tone(24000, 0.5, 500), 24000))

    async def script(line: Line) -> None:
        await line.say(path)

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=script))
        await call.done()
        assert len(call.said.strip(b"\0")) / 16000 == pytest.approx(0.5, abs=0.03)

    play(act)


def test_a_script_that_fails_hangs_up_and_done_tells_why(tmp_path: Path) -> None:
    async def script(line: Line) -> None:
        await line.say(tmp_path / "nothing.wav")

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=script))
        with pytest.raises(NoSuchSound):
            await call.done()
        assert call.hangup_cause == "NORMAL_CLEARING"

    play(act)


def test_who_waits_in_vain_is_told() -> None:
    async def script(line: Line) -> None:
        for wait in (line.hears_speech(0.5), line.bridged(0.5), line.until_hangup(0.5)):
            with pytest.raises(NotHeard):
                await wait

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=script))
        await call.done()

    play(act)


def test_who_speaks_when_the_call_ends_is_not_kept_waiting() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        asyncio.get_running_loop().call_later(0.5, call.hang_up)
        began = asyncio.get_running_loop().time()
        await call.line.say(bytes(16000 * 60))
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.5, abs=0.05)
        await call.line.say(bytes(16000 * 60))

    play(act)


def test_silence_is_heard_after_a_sentence_not_in_its_middle() -> None:
    heard: list[float] = []

    async def script(line: Line) -> None:
        loop = asyncio.get_running_loop()
        await line.hears_speech()
        heard.append(loop.time())
        await line.hears_silence(500)
        heard.append(loop.time())

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=script))
        scene.gateway.send(Execute("playback", "tone_stream://L=2;%(400,300,440)").encode())
        await call.done()
        assert heard[1] - heard[0] == pytest.approx(0.4 + 0.3 + 0.4 + 0.5, abs=0.05)

    play(act)


@pytest.mark.parametrize("stalled_ms", [100, 190, 380, 700])
def test_a_switch_that_stood_still_goes_on_with_the_next_file_where_the_one_before_it_ends(stalled_ms: int) -> None:
    """Its threads were late, nothing else: what waits in a channel's queue is played from the next frame on."""

    async def act(scene: Scene) -> None:
        call = await scene.call()
        for _ in range(2):
            scene.gateway.send(Execute("playback", "tone_stream://%(400,0,440)", event_lock=True).encode())
        await scene.gateway.event("CHANNEL_EXECUTE")
        await asyncio.sleep(0.4 - stalled_ms / 2000)  # the first file ends during the stall
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.jump(stalled_ms / 1000)
        await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE", 2)
        assert len(call.heard.strip(b"\0")) / 16 == pytest.approx(800, abs=20 + 1)
        call.hang_up()

    play(act)


def test_digits_take_their_time_by_rtp_and_none_by_info() -> None:
    async def script(line: Line) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await line.press("12", ms=200)
        assert loop.time() - began == pytest.approx(0.4, abs=1e-6)
        await line.press("#", source="ENDPOINT")
        assert loop.time() - began == pytest.approx(0.4, abs=1e-6)
        await line.until_hangup()

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=script))
        await scene.gateway.event("DTMF", 3)
        told = [
            (e.get("DTMF-Digit"), e.get("DTMF-Duration"), e.get("DTMF-Source")) for e in scene.gateway.named("DTMF")
        ]
        assert told == [("1", "1600", "RTP"), ("2", "1600", "RTP"), ("#", "1280", "ENDPOINT")]
        call.hang_up()

    play(act)


@pytest.mark.parametrize("terminators", ["", "none", "any", "5"])
def test_a_digit_ends_a_playback_only_as_playback_terminators_say(terminators: str) -> None:
    async def act(scene: Scene) -> None:
        variables = (("playback_terminators", terminators),) if terminators else ()
        call = await scene.call(Caller(variables=variables))
        for digit, ends in (("5", terminators in ("any", "5")), ("*", terminators in ("", "any"))):
            before = len(scene.gateway.named("CHANNEL_EXECUTE_COMPLETE"))
            scene.gateway.send(Execute("playback", "silence_stream://1000").encode())
            await asyncio.sleep(0.3)
            call.channel.press(digit, 1600, "RTP")
            await asyncio.sleep(0.1)
            ended = len(scene.gateway.named("CHANNEL_EXECUTE_COMPLETE")) > before
            assert ended is ends
            await asyncio.sleep(1)

    play(act)


def test_a_bridge_tells_both_legs_and_ends_when_b_hangs_up_and_a_stays() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=_talk))
        scene.gateway.send(Execute("bridge", "{origination_uuid=b-leg}user/1002", event_uuid="b").encode())
        bridged = await scene.gateway.event("CHANNEL_BRIDGE")
        assert bridged.get("Other-Leg-Unique-ID") == "b-leg"
        assert bridged.get("Bridge-A-Unique-ID") == call.unique_id
        assert bridged.get("Bridge-B-Unique-ID") == "b-leg"
        assert bridged.variable("originate_disposition") == "SUCCESS"
        assert call.bridged_to == "b-leg"
        complete = await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        assert complete.get("Application-UUID") == "b"
        assert complete.variable("DIALSTATUS") == "SUCCESS"
        assert names(scene, "CHANNEL_PARK") == [
            "CHANNEL_EXECUTE",
            "CHANNEL_BRIDGE",
            "CHANNEL_UNBRIDGE",
            "CHANNEL_EXECUTE_COMPLETE",
        ]
        assert call.channel.up
        assert call.heard.strip(b"\0") == tone(8000, 1.0, 900).strip(b"\0")
        assert len(call.b_heard.strip(b"\0")) / 16000 == pytest.approx(1.0, abs=0.05)

    async def _talk(line: Line) -> None:
        assert await line.bridged() == "b-leg"
        await line.say(tone(8000, 1.0, 300))
        await line.until_hangup()

    endpoint = Endpoint(answer_after_s=1.0, hangs_up_after_s=3.0, says=tone(8000, 1.0, 900))
    play(act, endpoints={"user/1002": endpoint})


def test_hangup_after_bridge_ends_a_too_and_says_so_before_the_bridge_is_complete() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(variables=(("hangup_after_bridge", "true"),)))
        scene.gateway.send(Execute("bridge", "user/1002").encode())
        await scene.gateway.event("CHANNEL_HANGUP_COMPLETE")
        assert names(scene, "CHANNEL_PARK")[:6] == [
            "CHANNEL_EXECUTE",
            "CHANNEL_BRIDGE",
            "CHANNEL_UNBRIDGE",
            "CHANNEL_HANGUP",
            "CHANNEL_EXECUTE_COMPLETE",
            "CHANNEL_UNPARK",
        ]
        await call.done()

    play(act, endpoints={"user/1002": Endpoint(hangs_up_after_s=1.0)})


def test_a_caller_who_hangs_up_in_a_bridge_is_told_before_the_unbridge() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        scene.gateway.send(Execute("bridge", "user/1002").encode())
        await scene.gateway.event("CHANNEL_BRIDGE")
        call.hang_up()
        await scene.gateway.event("CHANNEL_HANGUP_COMPLETE")
        order = names(scene)
        assert order.index("CHANNEL_HANGUP") < order.index("CHANNEL_UNBRIDGE")
        assert scene.gateway.named("CHANNEL_UNBRIDGE")[0].get("Hangup-Cause") == "NORMAL_CLEARING"

    play(act, endpoints={"user/1002": Endpoint()})


@pytest.mark.parametrize(
    ("endpoint", "disposition", "dialstatus"),
    [
        (Endpoint("busy"), "USER_BUSY", "BUSY"),
        (Endpoint("rejects"), "CALL_REJECTED", "CALL_REJECTED"),
        (Endpoint("no_answer"), "NO_ANSWER", "NOANSWER"),
        (Endpoint("unreachable"), "NORMAL_TEMPORARY_FAILURE", "NORMAL_TEMPORARY_FAILURE"),
        (None, "NORMAL_TEMPORARY_FAILURE", "NORMAL_TEMPORARY_FAILURE"),
    ],
)
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_bridge_that_fails_says_why_and_hangs_up_unless_told_not_to(
    endpoint: Endpoint | None, disposition: str, dialstatus: str, goes_on: bool
) -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(variables=(("call_timeout", "3"), ("continue_on_fail", str(goes_on).lower()))))
        scene.gateway.send(Execute("bridge", "user/1002").encode())
        complete = await scene.gateway.event("CHANNEL_EXECUTE_COMPLETE")
        assert complete.variable("originate_disposition") == disposition
        assert complete.variable("DIALSTATUS") == dialstatus
        assert "CHANNEL_BRIDGE" not in names(scene)
        assert call.channel.up is goes_on
        assert call.hangup_cause == ("" if goes_on else disposition)

    play(act, endpoints={"user/1002": endpoint} if endpoint else {})


def test_a_hold_by_the_caller_is_told_and_silences_what_it_hears() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        scene.gateway.send(Execute("playback", "tone_stream://L=-1;%(1000,0,440)").encode())
        await scene.gateway.event("CHANNEL_EXECUTE")
        call.line.hold()
        held = await scene.gateway.event("CHANNEL_HOLD")
        assert held.get("Channel-Call-State") == "HELD"
        before = len(call.heard)
        await asyncio.sleep(1)
        assert not call.heard[before + 640 :].strip(b"\0")
        call.line.unhold()
        await scene.gateway.event("CHANNEL_UNHOLD")
        await asyncio.sleep(0.1)
        assert call.heard[-320:].strip(b"\0")

    play(act, opening=OPENING)


def test_a_call_that_is_not_answered_is_cancelled() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call()
        call.hang_up()
        event = await scene.gateway.event("CHANNEL_HANGUP_COMPLETE")
        assert (event.get("Hangup-Cause"), event.variable("billsec")) == ("ORIGINATOR_CANCEL", "0")

    play(act, answer=False)


def test_the_time_line_tells_what_happened_on_every_leg() -> None:
    async def script(line: Line) -> None:
        await line.say(tone(8000, 0.2, 300))
        await line.press("1")

    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=script))
        await call.done()
        told = [(happening.leg, happening.name) for happening in call.events]
        for entry in (
            ("switch", "dialplan"),
            ("control", "open"),
            ("media", "open"),
            ("caller", "say"),
            ("caller", "press"),
            ("control", "DTMF"),
            ("caller", "hangup"),
            ("control", "CHANNEL_HANGUP"),
        ):
            assert entry in told
        assert [happening.at for happening in call.events] == sorted(happening.at for happening in call.events)

    play(act, start="dialplan")


def test_leaving_the_switch_closes_everything_that_is_open() -> None:
    async def act(scene: Scene) -> None:
        call = await scene.call(Caller(script=_forever))
        await asyncio.sleep(0.5)
        await scene.switch.aclose()
        await asyncio.sleep(0.1)
        assert isinstance(scene.gateway.lost[0], ConnectionResetError)
        assert scene.server.sides[0].aborted
        assert scene.switch.calls == {}
        await call.released()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert others == set()

    async def _forever(line: Line) -> None:
        await line.until_hangup(1e9)

    play(act, start="dialplan")


def test_three_hundred_calls_leave_nothing_behind() -> None:
    remembered: list[weakref.ref[SimCall]] = []

    async def script(line: Line) -> None:
        await line.press("1")
        await line.wait(0.5)

    async def act(scene: Scene) -> None:
        for _ in range(15):
            calls = [await scene.switch.place(Caller(script=script)) for _ in range(20)]
            remembered.extend(weakref.ref(call) for call in calls)
            for call in calls:
                await call.done()
                await call.released()
            scene.gateways.clear()
            scene.server.sides.clear()
            del calls, call
        await asyncio.sleep(0.1)
        assert scene.switch.calls == {}
        assert len(asyncio.all_tasks()) == 1
        gc.collect()
        assert sum(ref() is not None for ref in remembered) == 0

    play(act, start="dialplan", opening=b"connect\n\nmyevents\n\n", record=False)
    assert len(remembered) == 300
