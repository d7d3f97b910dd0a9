"""What is said while it is still being made, as the caller hears it: on a stream, and as files."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from tests.support.virtual import MediaTwin, virtual_desk

from dueto.call import Call
from dueto.call.events import HungUp
from dueto.call.phase import ChannelGone
from dueto.errors import CallEnded, Interrupted, LocalProtocolError, NotCapable
from dueto.sim import Caller, Line, SimCall, run_virtual, tone
from dueto.wire.media import DIALECTS, Dialect

PIECE_S = 0.1


@pytest.fixture(params=[dialect for dialect in DIALECTS.values() if dialect.module], ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


def loud(call: SimCall) -> np.ndarray:
    """For each 20 ms that the caller heard, whether there was a sound."""
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    return np.asarray(np.abs(heard).max(axis=1) > 500)


def audible_ms(call: SimCall) -> int:
    return int(loud(call).sum()) * 20


def worst_gap_ms(call: SimCall) -> int:
    at = np.flatnonzero(loud(call))
    return int(np.diff(at).max(initial=1) - 1) * 20


def hear(agent: Callable[[Call], Awaitable[None]], dialect: Dialect) -> SimCall:
    async def until_hangup(line: Line) -> None:
        await line.until_hangup()

    failures: list[Exception] = []

    async def seen(call: Call) -> None:
        try:
            await agent(call)
        except Exception as error:
            failures.append(error)

    async def one_call() -> SimCall:
        async with (
            virtual_desk(seen, dialect=dialect) as here,
            here.switch(dialect=dialect.name, record=True) as switch,
        ):
            call = await switch.place(Caller(script=until_hangup))
            await call.done()
        return call

    call = run_virtual(one_call(), start_s=1000.0)
    for failure in failures:
        raise failure
    return call


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("pace", [0.2, 0.9], ids=["faster than it is heard", "as fast as it is heard"])
def test_what_comes_piece_by_piece_is_heard_whole_and_without_a_gap(dialect: Dialect, pace: float) -> None:
    ended: list[float] = []

    async def agent(call: Call) -> None:
        answer = call.utterance(rate_hz=24000)
        sound = tone(24000, 4.0, 440.0)
        step = 4800
        for at in range(0, len(sound), step):
            answer.add(sound[at : at + step])
            await asyncio.sleep(PIECE_S * pace)
        answer.finish()
        began = answer.began_at
        assert began is not None
        await answer.heard()
        ended.append(now() - began)
        assert answer.heard_ms == answer.queued_ms == pytest.approx(4000, abs=5)
        assert not answer.interrupted

    call = hear(agent, dialect)
    assert audible_ms(call) == pytest.approx(4000, abs=60)
    assert worst_gap_ms(call) <= (60 if dialect.downlink == "file" else 0)
    assert ended[0] == pytest.approx(4.0, abs=0.3)


def test_the_first_sound_does_not_wait_for_the_last(dialect: Dialect) -> None:
    waited: list[float] = []

    async def agent(call: Call) -> None:
        if dialect.downlink == "file":
            await call.set_variables(here="1")  # the control leg is there
        opened, answer = now(), call.utterance()
        for _ in range(50):
            answer.add(tone(call.rate_hz, PIECE_S, 440.0))
            await asyncio.sleep(PIECE_S / 2)
        assert answer.began_at is not None
        waited.append(answer.began_at - opened)
        answer.finish()
        await answer.heard()

    hear(agent, dialect)
    assert waited[0] < (0.6 if dialect.downlink == "file" else 0.2)


def test_stop_cuts_it_and_what_comes_afterwards_is_not_said(dialect: Dialect) -> None:
    told: list[int] = []

    async def agent(call: Call) -> None:
        answer = call.utterance()
        answer.add(tone(call.rate_hz, 6.0, 440.0))
        await asyncio.sleep(2.0)
        await call.stop()
        answer.add(tone(call.rate_hz, 6.0, 440.0))
        answer.finish()
        with pytest.raises(Interrupted) as cut:
            await answer.heard()
        assert answer.interrupted
        told.append(cut.value.heard_ms)
        await asyncio.sleep(1.0)
        assert answer.heard_ms == cut.value.heard_ms

    call = hear(agent, dialect)
    assert audible_ms(call) == pytest.approx(told[0], abs=100)
    assert told[0] == pytest.approx(2000, abs=250)


def test_utterances_are_heard_in_the_order_of_their_opening(dialect: Dialect) -> None:
    async def agent(call: Call) -> None:
        first, second = call.utterance(), call.utterance()
        second.add(tone(call.rate_hz, 1.0, 900.0))
        second.finish()
        first.add(tone(call.rate_hz, 1.0, 300.0))
        first.finish()
        await second.heard()
        assert first.done

    call = hear(agent, dialect)
    heard = np.frombuffer(call.heard, np.int16).astype(np.float64)
    frames = heard.reshape(-1, call.rate_hz // 50)[loud(call)]
    crossings = (np.diff(np.signbit(frames), axis=1) != 0).sum(axis=1) * 25  # Hz, about
    assert np.median(crossings[:45]) == pytest.approx(300, abs=50)
    assert np.median(crossings[-45:]) == pytest.approx(900, abs=50)


def test_one_that_is_never_finished_does_not_silence_the_next(dialect: Dialect) -> None:
    async def agent(call: Call) -> None:
        forgotten = call.utterance()
        forgotten.add(tone(call.rate_hz, 0.6, 300.0))
        async with asyncio.timeout(10):
            await call.say(tone(call.rate_hz, 1.0, 900.0))

    assert audible_ms(hear(agent, dialect)) == pytest.approx(1600, abs=60)


def test_one_without_a_sound_is_heard_at_once(dialect: Dialect) -> None:
    async def agent(call: Call) -> None:
        silent = call.utterance()
        silent.finish()
        silent.finish()
        async with asyncio.timeout(1):
            await silent.heard()
        assert (silent.heard_ms, silent.began_at) == (0, None)
        with pytest.raises(LocalProtocolError):
            silent.add(bytes(320))

    hear(agent, dialect)


def test_half_a_sample_waits_for_its_other_half(dialect: Dialect) -> None:
    sound = tone(16000, 1.0, 440.0)

    async def agent(call: Call) -> None:
        answer = call.utterance(rate_hz=16000)
        for at in range(0, len(sound), 1001):
            answer.add(sound[at : at + 1001])
        answer.finish()
        await answer.heard()

    assert audible_ms(hear(agent, dialect)) == pytest.approx(1000, abs=40)


def test_too_much_at_once_is_refused_and_the_rest_is_said(dialect: Dialect) -> None:
    async def agent(call: Call) -> None:
        answer = call.utterance()
        for _ in range(2):
            answer.add(tone(call.rate_hz, 60.0, 440.0))
        with pytest.raises(LocalProtocolError):
            answer.add(tone(call.rate_hz, 60.0, 440.0))
        await call.stop()
        with pytest.raises(Interrupted):
            await answer.heard()

    hear(agent, dialect)


def test_after_the_call_nothing_can_be_begun_and_what_was_begun_is_interrupted(dialect: Dialect) -> None:
    outcomes: list[type[BaseException]] = []

    async def agent(call: Call) -> None:
        answer = call.utterance()
        answer.add(tone(call.rate_hz, 5.0, 440.0))
        await call.hangup()
        with pytest.raises(Interrupted):
            await answer.heard()
        for attempt in (call.utterance, lambda: answer.add(b"\0\0")):
            try:
                attempt()
            except (CallEnded, NotCapable) as error:
                outcomes.append(type(error))

    hear(agent, dialect)
    assert outcomes == [CallEnded]


def test_pieces_that_come_between_two_ticks_do_not_disturb_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []
    send_audio = MediaTwin.send_audio

    def noting(self: MediaTwin, frame: bytes) -> None:
        sent.append(now())
        send_audio(self, frame)

    monkeypatch.setattr(MediaTwin, "send_audio", noting)

    async def agent(call: Call) -> None:
        call._session.house.ticker.add(lambda now: not call.ended)  # other calls talk, and the ticker is theirs too
        await asyncio.sleep(0.013)
        answer = call.utterance(rate_hz=24000)
        sound = tone(24000, 4.0, 440.0)
        answer.add(sound[:48000])  # a second ahead
        for at in range(48000, len(sound), 4800):
            await asyncio.sleep(0.0937)
            answer.add(sound[at : at + 4800])
        answer.finish()
        await answer.heard()

    hear(agent, DIALECTS["audio_stream-binary"])
    steady = [at for at in sent if at > sent[0] + 0.5]
    assert len(steady) > 150
    assert np.diff(steady).max() == pytest.approx(0.02, abs=0.001)
    assert np.diff(steady).min() == pytest.approx(0.02, abs=0.001)


@pytest.mark.parametrize("told_first", [False, True], ids=["before the agent's turn", "in the agent's turn"])
def test_nothing_is_sent_to_a_channel_that_is_gone(dialect: Dialect, told_first: bool) -> None:
    heard_ms: list[int] = []
    sent: list[str] = []

    async def agent(call: Call) -> None:
        session = call._session
        if dialect.downlink == "file":
            await call.set_variables(here="1")  # the control leg is there
        answer = call.utterance()
        answer.add(tone(call.rate_hz, 20.0, 440.0))
        await asyncio.sleep(2.0)
        leg = session.media
        assert isinstance(leg, MediaTwin)
        post, leg.far.post = leg.far.post, lambda name, *rest: sent.append(name)
        session.happen(ChannelGone("NORMAL_CLEARING", "CHANNEL_HANGUP"))
        if told_first:
            assert [event async for event in call.events()][-1] == HungUp("NORMAL_CLEARING", "CHANNEL_HANGUP")
        for tick in tuple(session.house.ticker._ticks):
            tick(now() + 0.1)  # before what else the hangup brings has had its turn
        leg.listener.message(bytes(call.rate_hz // 50 * 2))
        assert sent == []
        leg.far.post = post
        with pytest.raises(Interrupted):
            await answer.heard()
        heard_ms.append(answer.heard_ms)

    hear(agent, dialect)
    assert heard_ms == [pytest.approx(2000, abs=200)]
