"""The community module's way down, as the caller hears it: streamAudio -> file -> ::play -> playback."""

import asyncio

import numpy as np
import pytest
from tests.support.virtual import Virtual, virtual_desk

from dueto.call import Call, CallRules, Destination
from dueto.errors import Interrupted, NotCapable
from dueto.sim import Caller, Endpoint, Faults, Line, SimCall, run_virtual, tone
from dueto.sim.listening import compare, sweep
from dueto.wire.media import AUDIO_STREAM

RATE_HZ = 8000


def sound(seconds: float) -> bytes:
    return tone(RATE_HZ, seconds, 440.0)


def audible_ms(call: SimCall) -> int:
    """How long the caller heard anything."""
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    return int((np.abs(heard).max(axis=1) > 500).sum()) * 20


def gaps_ms(call: SimCall) -> list[int]:
    """The silences between the first and the last sound the caller heard."""
    heard = np.abs(np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)).max(axis=1) > 500
    loud = np.flatnonzero(heard)
    return [int(step - 1) * 20 for step in np.diff(loud) if step > 1]


async def until_hangup(line: Line) -> None:
    await line.until_hangup()


async def one_call(agent: object, *, faults: Faults | None = None) -> tuple[SimCall, Virtual]:
    async with (
        virtual_desk(agent, dialect=AUDIO_STREAM) as here,  # type: ignore[arg-type]
        here.switch(dialect="audio_stream", record=True, faults=faults or Faults()) as switch,
    ):
        call = await switch.place(Caller(script=until_hangup))
        await call.done()
    return call, here


def test_say_returns_when_the_caller_has_heard_the_whole_file() -> None:
    took: list[float] = []

    async def agent(call: Call) -> None:
        began = asyncio.get_running_loop().time()
        await call.say(sound(2.0))
        took.append(asyncio.get_running_loop().time() - began)

    call, _ = run_virtual(one_call(agent), start_s=1000.0)
    assert audible_ms(call) == pytest.approx(2000, abs=40)
    assert 2.0 <= took[0] < 2.3


def test_two_sentences_in_a_row_are_heard_in_order_and_whole() -> None:
    async def agent(call: Call) -> None:
        await asyncio.gather(call.say(sound(1.0)), call.say(sound(0.6)))

    call, _ = run_virtual(one_call(agent), start_s=1000.0)
    assert audible_ms(call) == pytest.approx(1600, abs=60)
    assert all(gap <= 60 for gap in gaps_ms(call))


def test_a_long_text_is_played_in_pieces_without_a_gap_over_60_ms() -> None:
    async def agent(call: Call) -> None:
        await call.say(sound(25.0))

    call, _ = run_virtual(one_call(agent), start_s=1000.0)
    assert audible_ms(call) == pytest.approx(25000, abs=100)
    assert all(gap <= 60 for gap in gaps_ms(call))


def test_the_first_sound_comes_early_and_files_end_where_it_is_quiet() -> None:
    words = b"".join(sound(0.5) + bytes(1600) for _ in range(20))  # 500 ms of sound, 100 ms of none
    sizes: list[int] = []

    async def agent(call: Call) -> None:
        player = call._session.voice.player
        hand_over = player._send  # type: ignore[union-attr]

        def noted(pcm: bytes, saying: object) -> object:
            sizes.append(len(pcm) // 16)
            return hand_over(pcm, saying)

        player._send = noted  # type: ignore[union-attr, method-assign]
        await call.say(words)

    call, _ = run_virtual(one_call(agent), start_s=1000.0)
    assert sizes[0] < 900 < sizes[1] <= 10_000
    ends_ms = np.cumsum(sizes)[:-1]
    assert all(end % 600 >= 500 for end in ends_ms)
    assert max(gaps_ms(call)) <= 100 + 60
    assert audible_ms(call) == pytest.approx(10_000, abs=250)


def test_files_that_a_lost_stream_took_along_are_handed_over_again_in_order() -> None:
    text = sweep(RATE_HZ, 24.0)

    async def agent(call: Call) -> None:
        await call.say(text)

    async def run() -> tuple[SimCall, Virtual]:
        rules = CallRules(public_url="ws://127.0.0.1:8085")
        async with (
            virtual_desk(agent, dialect=AUDIO_STREAM, rules=rules) as here,
            here.switch(dialect="audio_stream", record=True, faults=Faults(media_reset_after_s=3.3)) as switch,
        ):
            call = await switch.place(Caller(script=until_hangup))
            await call.done()
        return call, here

    call, here = run_virtual(run(), start_s=1000.0)
    heard = compare(call.heard, text, RATE_HZ)
    assert here.names().count("media_lost") >= 5
    assert heard.last_ms == pytest.approx(24_000, abs=5)
    assert heard.missing_ms == pytest.approx(0, abs=1)
    assert heard.worst_error < 0.15


def test_stop_is_silence_at_once_and_tells_how_much_was_heard() -> None:
    cut: list[int] = []
    stopped_at: list[float] = []

    async def agent(call: Call) -> None:
        saying = asyncio.ensure_future(call.say(sound(10.0)))
        await asyncio.sleep(3.0)
        stopped_at.append(asyncio.get_running_loop().time())
        await call.stop()
        with pytest.raises(Interrupted) as interrupted:
            await saying
        cut.append(interrupted.value.heard_ms)
        await asyncio.sleep(1.0)

    call, _ = run_virtual(one_call(agent), start_s=1000.0)
    assert cut[0] == pytest.approx(3000, abs=150)
    assert audible_ms(call) == pytest.approx(cut[0], abs=100)


def test_live_audio_is_gathered_into_files_and_heard_whole() -> None:
    async def agent(call: Call) -> None:
        speech = sound(1.5)
        for at in range(0, len(speech), 320):
            await call.write(speech[at : at + 320])
            await asyncio.sleep(0.02)
        await asyncio.sleep(3.0)

    call, _ = run_virtual(one_call(agent), start_s=1000.0)
    assert audible_ms(call) == pytest.approx(1500, abs=60)


def test_the_last_words_are_heard_before_the_agent_that_is_done_hangs_up() -> None:
    async def agent(call: Call) -> None:
        for _ in range(100):
            await call.write(sound(0.02))

    call, _ = run_virtual(one_call(agent), start_s=1000.0)
    assert audible_ms(call) == pytest.approx(2000, abs=60)


def test_without_a_control_leg_this_module_can_say_nothing_and_says_so() -> None:
    told: list[str] = []

    async def agent(call: Call) -> None:
        assert not call.can("say")
        with pytest.raises(NotCapable) as error:
            await call.say(sound(1.0))
        told.append(str(error.value))

    async def run() -> None:
        async with (
            virtual_desk(agent, dialect=AUDIO_STREAM) as here,
            here.switch(dialect="audio_stream", faults=Faults(control_never=True), dialplan=[("park", "")]) as switch,
        ):
            call = await switch.place(Caller(script=until_hangup))
            await here.until_noted("call_ended")
            call.hang_up()
            await call.done()

    run_virtual(run(), start_s=1000.0)
    assert "control leg" in told[0]


def test_what_waits_to_be_said_when_the_bridge_comes_is_cut_without_a_break_that_could_end_the_bridge() -> None:
    outcomes: list[str] = []
    breaks: list[str] = []

    async def agent(call: Call) -> None:
        async def noted() -> None:
            breaks.append(call.phase.value)

        async def talk_on() -> None:
            await asyncio.sleep(0.3)
            await call.say(sound(1.0))  # waits in the switch's queue, behind the bridge

        await call.set_variables(here="1")  # the control leg is there
        call._session.control.break_all = noted  # type: ignore[union-attr, method-assign]
        talking = asyncio.ensure_future(talk_on())
        outcomes.append((await call.transfer("sales")).outcome)
        with pytest.raises(Interrupted):
            await talking
        await asyncio.sleep(60)

    async def run() -> None:
        async with (
            virtual_desk(
                agent, dialect=AUDIO_STREAM, destinations={"sales": Destination("sales", "user/sales")}
            ) as here,
            here.switch(
                dialect="audio_stream", endpoints={"user/sales": Endpoint(answer_after_s=1.0, hangs_up_after_s=2.0)}
            ) as switch,
        ):
            call = await switch.place(Caller(script=until_hangup))
            await here.until_noted("bridged")
            await here.until_noted("unbridged")
            await asyncio.sleep(1.0)
            assert breaks == ["talking"]  # not before: now it keeps the old sentence from being played
            call.hang_up()
            await call.done()

    run_virtual(run(), start_s=1000.0)
    assert outcomes == ["bridged"]
