"""The caller's voice on its way up: whole and in order, however the module cuts, joins, holds back or mixes it."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.virtual import URL, virtual_desk

from dueto.audio.pcm import join_stereo
from dueto.call import Call, Destination
from dueto.call.hearing import AudioQueue, Hearing
from dueto.sim import Caller, Endpoint, Line, SimCall, run_virtual, tone
from dueto.sim.listening import compare, sweep
from dueto.wire.media import AUDIO_FORK, AUDIO_STREAM_BINARY, Dialect, StreamRequest

SOUND = sweep(8000, 3.0)


def hearing(rate_hz: int = 8000, mix: str = "mono") -> tuple[Hearing, list[bytes]]:
    found = Hearing(StreamRequest("u", "s", "", rate_hz, mix, ""))
    frames: list[bytes] = []
    found.add(frames.append, rate_hz)
    return found, frames


@given(
    st.sampled_from((8000, 16000, 24000, 48000)),
    st.sampled_from(("mono", "mixed", "stereo")),
    st.lists(st.integers(1, 12), max_size=8),
    st.lists(st.integers(0, 3000), max_size=8),
)
def test_messages_of_any_size_become_the_same_frames(rate_hz: int, mix: str, whole: list[int], odd: list[int]) -> None:
    up, frames = hearing(rate_hz, mix)
    size = rate_hz // 50 * 2
    channels = 2 if mix == "stereo" else 1
    total = sum(whole) * size * channels + sum(odd)
    sent = np.random.default_rng(1).integers(0, 256, total, np.uint8).tobytes()
    at = 0
    for piece in [count * size * channels for count in whole] + odd:
        up.message(sent[at : at + piece])
        at += piece
    complete = total // (size * channels)
    meant = np.frombuffer(sent[: complete * size * channels], "<i2")[::channels].tobytes()
    assert b"".join(frames) == meant
    assert {len(frame) for frame in frames} <= {size}
    assert up.frames == complete
    assert up.heard_ms == complete * 20
    assert up.odd_messages == sum(piece % (size * channels) != 0 for piece in odd)


def test_the_rate_is_what_the_url_says_and_never_what_a_message_weighs() -> None:
    up, frames = hearing(16000)
    for _ in range(10):
        up.message(bytes(320))  # 10 ms at 16 kHz: a stream that runs at 8
    assert [len(frame) for frame in frames] == [640] * 5
    assert up.odd_messages == 10


def test_of_stereo_the_callers_side_is_heard() -> None:
    up, frames = hearing(8000, "stereo")
    caller, agent = tone(8000, 0.1, 400), tone(8000, 0.1, 1000)
    both = join_stereo(caller, agent)
    for at in range(0, len(both), 640):
        up.message(both[at : at + 640])
    assert b"".join(frames) == caller


@given(st.integers(20, 2000), st.lists(st.integers(0, 30), max_size=20))
def test_a_reader_that_falls_behind_loses_the_oldest_and_it_is_counted(max_lag_ms: int, bursts: list[int]) -> None:
    queue = AudioQueue(max_lag_ms)
    most, number, kept = max(max_lag_ms // 20, 1), 0, []
    for burst in bursts:
        for _ in range(burst):
            queue.put(number.to_bytes(4, "big"))
            kept.append(number)
            number += 1
    dropped, kept = len(kept[:-most]), kept[-most:]
    queue.end()

    async def read() -> list[int]:
        return [int.from_bytes(frame, "big") async for frame in queue.frames()]

    assert asyncio.run(read()) == kept
    assert queue.dropped_ms == dropped * 20


# -- through a whole call


def listen(
    *,
    rate_hz: int = 8000,
    mix: str = "mono",
    dialect: Dialect = AUDIO_STREAM_BINARY,
    variables: tuple[tuple[str, str], ...] = (),
    hold: bool = False,
) -> tuple[SimCall, bytes, list[float]]:
    """A caller says a sweep; return the call, what the agent heard of it, and when each frame came."""
    heard, moments = bytearray(), []

    async def agent(call: Call) -> None:
        def take(frame: bytes) -> None:
            heard.extend(frame)
            moments.append(asyncio.get_running_loop().time())

        call.audio_to(take, 8000)
        await asyncio.sleep(60)

    async def script(line: Line) -> None:
        await line.wait(0.5)
        saying = asyncio.ensure_future(line.say(SOUND))
        if hold:
            await line.wait(1.0)
            line.hold()
            await line.wait(1.0)
            line.unhold()
        await saying
        await line.wait(0.5)

    async def main() -> SimCall:
        async with (
            virtual_desk(agent, dialect=dialect) as here,
            here.switch(
                dialect=dialect.name,
                record=True,
                media_url=URL.replace("rate=8000", f"rate={rate_hz}").replace("mix=mono", f"mix={mix}"),
            ) as switch,
        ):
            call = await switch.place(Caller(script=script, variables=variables))
            await call.done()
        return call

    return run_virtual(main(), start_s=1000.0), bytes(heard), moments


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000])
@pytest.mark.parametrize("buffer_ms", [20, 60, 100, 200])
def test_the_caller_is_heard_whole_whatever_the_module_gathers(rate_hz: int, buffer_ms: int) -> None:
    call, heard, moments = listen(rate_hz=rate_hz, variables=(("STREAM_BUFFER_SIZE", str(buffer_ms)),))
    found = compare(heard, SOUND, 8000)
    assert found.gaps_ms == ()
    assert (found.first_ms, found.last_ms) == (pytest.approx(0, abs=5), pytest.approx(3000, abs=5))
    assert found.off_db == pytest.approx(0, abs=0.3)
    assert found.worst_error < 0.15
    assert call.counters.frames_up * buffer_ms == pytest.approx(len(moments) * 20, abs=buffer_ms)


@pytest.mark.parametrize("mix", ["mixed", "stereo"])
def test_mixed_and_stereo_carry_the_caller_too(mix: str) -> None:
    """They flow only while the caller is sent something: here, silence from the agent's side of a playback."""
    heard = bytearray()

    async def agent(call: Call) -> None:
        call.audio_to(heard.extend)
        await call.play("silence_stream://5000")

    async def script(line: Line) -> None:
        await line.wait(1.0)
        await line.say(SOUND)
        await line.until_hangup()

    async def main() -> None:
        async with (
            virtual_desk(agent) as here,
            here.switch(media_url=URL.replace("mix=mono", f"mix={mix}")) as switch,
        ):
            call = await switch.place(Caller(script=script))
            await call.done()

    run_virtual(main(), start_s=1000.0)
    found = compare(bytes(heard), SOUND, 8000)
    assert found.last_ms == pytest.approx(3000, abs=5)
    assert found.gaps_ms == ()


@pytest.mark.parametrize("dialect", [AUDIO_STREAM_BINARY, AUDIO_FORK], ids=lambda dialect: dialect.name)
def test_a_hold_stops_the_frames_and_its_burst_is_frames_again(dialect: Dialect) -> None:
    """mod_audio_fork joins the burst into one message."""
    _, heard, moments = listen(dialect=dialect, hold=True)
    pauses = np.diff(moments)
    assert pauses.max() == pytest.approx(1.0, abs=0.05)
    at = int(pauses.argmax()) + 1
    burst = sum(moment - moments[at] < 0.001 for moment in moments[at:])
    assert burst >= 10
    assert len(heard) == len(moments) * 320


@pytest.mark.parametrize("dialect", [AUDIO_STREAM_BINARY, AUDIO_FORK], ids=lambda dialect: dialect.name)
def test_while_the_caller_talks_to_somebody_else_the_module_is_paused_in_its_own_words(dialect: Dialect) -> None:
    moments: list[float] = []

    async def agent(call: Call) -> None:
        call.audio_to(lambda frame: moments.append(asyncio.get_running_loop().time()))
        await asyncio.sleep(0.5)
        assert (await call.transfer("sales")).outcome == "bridged"
        await asyncio.sleep(60)

    async def until_hangup(line: Line) -> None:
        await line.until_hangup()

    async def main() -> tuple[int, int]:
        async with (
            virtual_desk(agent, dialect=dialect, destinations={"sales": Destination("sales", "user/sales")}) as here,
            here.switch(
                dialect=dialect.name, endpoints={"user/sales": Endpoint(answer_after_s=0.1, hangs_up_after_s=3.0)}
            ) as switch,
        ):
            call = await switch.place(Caller(script=until_hangup))
            await here.until_noted("bridged")
            await asyncio.sleep(0.1)
            before = call.counters.frames_up
            await asyncio.sleep(2.0)
            during = call.counters.frames_up - before
            await here.until_noted("unbridged")
            await asyncio.sleep(1.0)
            after = call.counters.frames_up - before - during
            call.hang_up()
            await call.done()
        return during, after

    during, after = run_virtual(main(), start_s=1000.0)
    assert during == 0
    assert after >= 48
    assert np.diff(moments).max() == pytest.approx(3.0, abs=0.2)
