"""Every dialect, as the caller hears it: whole, in order, without gaps; silent in time; going on after a loss."""

import asyncio
import contextlib
import random
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.unicast import unicast_desk
from tests.support.virtual import URL, MediaTwin, Virtual, virtual_desk

from dueto.call import Call, CallRules
from dueto.call.events import MediaLost, MediaResumed
from dueto.call.stream_player import MARK_S
from dueto.errors import Interrupted
from dueto.sim import Caller, Faults, Line, SimCall, Switch, run_virtual, tone
from dueto.sim.listening import compare, ends_at, sweep
from dueto.sim.virtual import VirtualTimeLoop
from dueto.wire.media import AUDIO_FORK_BINARY, AUDIO_STREAM_BINARY, DIALECTS, UNICAST, Dialect

MODULES = {name: dialect for name, dialect in DIALECTS.items() if dialect.module}
"Those that an audio module speaks, whose streams run at a rate of their own."
EVERY = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
EVERY_MODULE = pytest.mark.parametrize("dialect", MODULES.values(), ids=list(MODULES))
STREAMS = [dialect for dialect in DIALECTS.values() if dialect.downlink == "stream"]
EVERY_STREAM = pytest.mark.parametrize("dialect", STREAMS, ids=[dialect.name for dialect in STREAMS])
RATES = [
    (dialect, rate_hz)
    for dialect in DIALECTS.values()
    for rate_hz in (8000, 16000)
    if dialect.module or rate_hz == 8000
]
RULES = CallRules(public_url="ws://127.0.0.1:8085")
JOINT_MS = {"file": 60, "stream": 20}


async def until_hangup(line: Line) -> None:
    await line.until_hangup(600)


async def call_with(
    agent: Callable[[Call], Awaitable[None]],
    dialect: Dialect,
    *,
    rate_hz: int = 8000,
    faults: Faults | None = None,
    calls: int = 1,
) -> tuple[list[SimCall], Virtual]:
    """Run `agent` on so many calls; it ends them. What it raised is raised here."""
    failures: list[Exception] = []

    async def seen(call: Call) -> None:
        try:
            await agent(call)
        except Exception as error:
            failures.append(error)

    async with desk_and_switch(seen, dialect, rate_hz, faults or Faults()) as (here, switch):
        placed = [await switch.place(Caller(script=until_hangup)) for _ in range(calls)]
        for call in placed:
            await call.done()
    for failure in failures:
        raise failure
    return placed, here


@contextlib.asynccontextmanager
async def desk_and_switch(
    agent: Callable[[Call], Awaitable[None]], dialect: Dialect, rate_hz: int, faults: Faults
) -> AsyncIterator[tuple[Virtual, Switch]]:
    if dialect is UNICAST:
        async with unicast_desk(agent) as over, over.switch(faults=faults) as switch:
            yield over.desk, switch
        return
    async with (
        virtual_desk(agent, dialect=dialect, rules=replace(RULES, rate_hz=rate_hz)) as here,
        here.switch(
            dialect=dialect.name,
            record=True,
            faults=faults,
            media_url=URL.replace("rate=8000", f"rate={rate_hz}"),
        ) as switch,
    ):
        yield here, switch


def run(work: Coroutine[Any, Any, tuple[list[SimCall], Virtual]]) -> tuple[list[SimCall], Virtual]:
    return run_virtual(work, start_s=1000.0)


# -- what is said is heard


async def say(call: Call, sound: bytes) -> None:
    await call.say(sound)


async def say_in_pieces(call: Call, sound: bytes) -> None:
    answer, step = call.utterance(), call.rate_hz // 5
    for at in range(0, len(sound), step):
        answer.add(sound[at : at + step])
        await asyncio.sleep(0.04)
    answer.finish()
    await answer.heard()


async def write(call: Call, sound: bytes) -> None:
    size, begun = call.rate_hz // 25, asyncio.get_running_loop().time()
    for number, at in enumerate(range(0, len(sound), size)):
        await call.write(sound[at : at + size])
        await asyncio.sleep(begun + (number + 1) * 0.02 - asyncio.get_running_loop().time())
    await asyncio.sleep(2.0)


@pytest.mark.parametrize(("dialect", "rate_hz"), RATES, ids=[f"{d.name} {rate_hz}" for d, rate_hz in RATES])
@pytest.mark.parametrize("speak", [say, say_in_pieces, write], ids=lambda speak: speak.__name__)
def test_a_sweep_is_heard_whole_in_order_without_a_gap(
    dialect: Dialect, rate_hz: int, speak: Callable[[Call, bytes], Awaitable[None]]
) -> None:
    sound = sweep(rate_hz, 10.0)

    async def agent(call: Call) -> None:
        if dialect.downlink == "file":
            await call.set_variables(here="1")  # the control leg is there
        await speak(call, sound)

    (call,), _ = run(call_with(agent, dialect, rate_hz=rate_hz))
    heard = compare(call.heard, sound, rate_hz)
    assert heard.first_ms == pytest.approx(0, abs=5)
    assert heard.last_ms == pytest.approx(10_000, abs=5)
    assert max(heard.gaps_ms, default=0) <= JOINT_MS[dialect.downlink]
    if dialect.downlink == "stream":
        assert heard.gaps_ms == ()
    assert heard.missing_ms == pytest.approx(0, abs=1)
    assert heard.off_db == pytest.approx(0, abs=0.3)
    assert heard.worst_error < 0.15


@pytest.mark.parametrize("behind_ms", [3, 7, 13, 19])
@pytest.mark.parametrize("dialect", [AUDIO_STREAM_BINARY, UNICAST], ids=lambda dialect: dialect.name)
def test_live_audio_out_of_step_with_the_switch_is_heard_without_a_gap_too(dialect: Dialect, behind_ms: int) -> None:
    sound = sweep(8000, 2.0)

    async def agent(call: Call) -> None:
        await asyncio.sleep(behind_ms / 1000)
        await write(call, sound)

    (call,), _ = run(call_with(agent, dialect, rate_hz=8000))
    heard = compare(call.heard, sound, 8000)
    assert heard.gaps_ms == ()
    assert heard.missing_ms == pytest.approx(0, abs=1)


@pytest.mark.parametrize("trouble", ["dropped", "swapped", "twice", "quiet"])
def test_the_listener_hears_every_trouble(trouble: str) -> None:
    """The judge of the test above, judged."""
    sound = sweep(8000, 10.0)
    frames = [sound[at : at + 320] for at in range(0, len(sound), 320)]
    assert compare(b"".join(frames), sound, 8000).worst_error < 0.01
    match trouble:
        case "dropped":
            del frames[200]
        case "swapped":
            frames[200], frames[201] = frames[201], frames[200]
        case "twice":
            frames.insert(200, frames[200])
        case "quiet":
            frames = [(np.frombuffer(frame, "<i2") // 2).astype("<i2").tobytes() for frame in frames]
    heard = compare(b"".join(frames), sound, 8000)
    assert heard.worst_error > 0.4 or abs(heard.off_db) > 1


@EVERY_MODULE
def test_a_message_that_is_lost_is_heard_as_such(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above sees it where one message of the way down does not arrive."""
    sound, sent = sweep(8000, 10.0), 0
    name = "send_audio" if dialect.downlink == "stream" and dialect.text is None else "send_text"
    send = getattr(MediaTwin, name)

    def lossy(leg: MediaTwin, data: Any) -> None:
        nonlocal sent
        sent += 1
        if sent != (2 if dialect.downlink == "file" else 40):
            send(leg, data)

    monkeypatch.setattr(MediaTwin, name, lossy)

    async def agent(call: Call) -> None:
        if dialect.downlink == "file":
            await call.set_variables(here="1")
        try:
            await call.say(sound)
        except Exception:
            assert dialect.downlink == "file"  # a file that never came is an error of its own

    (call,), _ = run(call_with(agent, dialect))
    heard = compare(call.heard, sound, 8000)
    assert heard.worst_error > 0.4 or heard.last_ms < 9_900


@EVERY
@pytest.mark.parametrize("ms", [20, 60, 150, 390])
def test_a_word_however_short_is_heard(dialect: Dialect, ms: int) -> None:
    async def agent(call: Call) -> None:
        await call.say(tone(8000, ms / 1000, 440.0))
        await asyncio.sleep(1.0)
        await call.say(tone(8000, ms / 1000, 440.0))

    (call,), _ = run(call_with(agent, dialect))
    loud = np.abs(np.frombuffer(call.heard, "<i2").astype(int)) > 500
    assert loud.sum() == pytest.approx(2 * ms * 8 * 0.9, rel=0.15)


# -- silence in time


def slowly(most_s: float) -> Callable[..., asyncio.Task[Any]]:
    """A task factory under which whatever the gateway awaits, or starts, comes up to `most_s` later."""
    dice = random.Random(1)

    def late() -> Generator[Any, Any, None]:
        return asyncio.sleep(dice.choice((0.0, most_s / 2, most_s))).__await__()

    @types.coroutine
    def drive(work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        yield from late()
        send: Callable[[], Any] = lambda: work.send(None)  # noqa: E731
        while True:
            try:
                awaited = send()
            except StopIteration as stop:
                return stop.value
            try:
                result = yield awaited
                yield from late()
            except BaseException as error:
                send = lambda error=error: work.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                send = lambda result=result: work.send(result)  # type: ignore[misc]  # noqa: E731

    async def driven(work: Coroutine[Any, Any, Any]) -> Any:
        return await drive(work)

    def factory(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        ours = "/dueto/call/" in getattr(getattr(work, "cr_code", None), "co_filename", "")
        return asyncio.Task(driven(work) if ours else work, loop=loop, **more)

    return factory


OLD_HZ, NEW_HZ = 440.0, 1500.0


def pitch_hz(frame: bytes) -> float:
    samples = np.frombuffer(frame, "<i2").astype(float)
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * 8000 / len(samples))


def cut(dialect: Dialect, *, delay_s: float, calls: int) -> tuple[list[SimCall], dict[str, float]]:
    """Each call says something long, decides to stop after a time of its own, and says something else at once."""
    decided: dict[str, float] = {}

    async def agent(call: Call) -> None:
        number = len(decided)
        decided[call.unique_id] = 0.0
        old = call.utterance()
        old.add(tone(8000, 8.0, OLD_HZ))
        old.finish()
        await asyncio.sleep(2.0 + 0.0137 * number if number % 2 else 0.0213 * number)
        decided[call.unique_id] = asyncio.get_running_loop().time()
        await call.stop()
        with pytest.raises(Interrupted):
            await old.heard()
        await call.say(tone(8000, 0.6, NEW_HZ))
        await asyncio.sleep(0.5)

    async def main() -> tuple[list[SimCall], Virtual]:
        if delay_s:
            asyncio.get_running_loop().set_task_factory(slowly(delay_s))
        return await call_with(agent, dialect, calls=calls)

    placed, _ = run(main())
    return placed, decided


@EVERY
@pytest.mark.parametrize("delay_s", [0.0, 0.06], ids=["", "every await delayed"])
def test_after_a_cut_the_caller_hears_nothing_of_it_within_the_lead(dialect: Dialect, delay_s: float) -> None:
    placed, decided = cut(dialect, delay_s=delay_s, calls=20)
    took_ms = []
    for call in placed:
        heard = call.heard
        frames = [heard[at : at + 320] for at in range(0, len(heard), 320)]
        loud = [at for at, frame in enumerate(frames) if np.abs(np.frombuffer(frame, "<i2").astype(int)).max() > 500]
        pitches = [(at, pitch_hz(frames[at])) for at in loud]
        last_old = max((at for at, hz in pitches if hz < 1000), default=-1)
        news = [at for at, hz in pitches if hz > 1000]
        assert len(news) == pytest.approx(30, abs=1)  # the new words are whole
        assert min(news) > last_old  # and nothing of the old ones comes after they began
        took_ms.append((call.heard_from + (last_old + 1) * 0.02 - decided[call.unique_id]) * 1000)
    p95 = sorted(took_ms)[int(0.95 * len(took_ms))]  # to the end of the last packet of 20 ms
    if dialect.downlink == "file":  # one round trip of uuid_break (the switch looks every 20 ms) and 40 ms
        assert p95 <= 20 + 40 + delay_s * 1000
    elif dialect.clear_text:
        assert p95 <= 40
    else:
        assert p95 <= dialect.lead_ms


@EVERY_STREAM
def test_stalls_of_100_ms_are_not_heard(dialect: Dialect) -> None:
    """The clock jumps once a second: the switch plays on, and hears nothing of the gateway meanwhile."""

    async def agent(call: Call) -> None:
        number = len(begun)
        begun.append(call.unique_id)
        saying = asyncio.ensure_future(call.say(sweep(8000, 6.0)))
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        for _ in range(5 if number == 0 else 0):
            await asyncio.sleep(1.0037)  # each time in another phase of the frame
            loop.jump(0.1)
        await saying

    begun: list[str] = []
    placed, _ = run(call_with(agent, dialect, calls=8))
    for call in placed:
        heard = compare(call.heard, sweep(8000, 6.0), 8000)
        assert heard.gaps_ms == ()
        assert heard.last_ms == pytest.approx(6000, abs=5)


@EVERY
def test_what_may_not_be_interrupted_is_not(dialect: Dialect) -> None:
    sound = sweep(8000, 3.0)

    async def agent(call: Call) -> None:
        saying = asyncio.ensure_future(call.say(sound, interruptible=False))
        await asyncio.sleep(1.0)
        assert await call.stop() == 0
        await saying

    (call,), _ = run(call_with(agent, dialect))
    assert compare(call.heard, sound, 8000).last_ms == pytest.approx(3000, abs=5)


# -- a stream that is lost


@EVERY
def test_a_stream_dropped_in_mid_sentence_is_had_again_and_the_caller_hears_the_rest(dialect: Dialect) -> None:
    sound = sweep(8000, 6.0)
    told: list[object] = []

    async def agent(call: Call) -> None:
        async def listen() -> None:
            async for event in call.events():
                told.append(event)

        listening = asyncio.ensure_future(listen())
        await call.say(sound)
        await asyncio.sleep(0.2)
        listening.cancel()

    (call,), here = run(call_with(agent, dialect, faults=Faults(media_reset_after_s=3.5)))
    heard = compare(call.heard, sound, 8000)
    assert heard.first_ms == pytest.approx(0, abs=5)
    assert heard.last_ms == pytest.approx(6000, abs=5)
    assert -2 * dialect.frame_ms <= heard.missing_ms <= 1  # at most a frame is heard twice, none is lost
    assert heard.worst_error < 0.15
    assert [type(event) for event in told if isinstance(event, MediaLost | MediaResumed)] == [MediaLost, MediaResumed]
    assert here.names().count("agent_started") == 1
    assert call.hangup_cause == "NORMAL_CLEARING"


@EVERY
def test_what_is_said_while_the_stream_is_away_waits_for_it(dialect: Dialect) -> None:
    async def agent(call: Call) -> None:
        await call.wait_for(MediaLost, timeout_s=10)
        await call.say(tone(8000, 0.5, 440.0))

    (call,), _ = run(call_with(agent, dialect, faults=Faults(media_reset_after_s=1.0)))
    loud = np.abs(np.frombuffer(call.heard, "<i2").astype(int)) > 500
    assert loud.sum() == pytest.approx(4000 * 0.9, rel=0.1)
    assert ends_at(call.heard) > 8000


# -- marks


@pytest.mark.parametrize(("stream_hz", "late_s"), [(8000, 0.3), (16000, 0.3), (8000, 0.0)])
def test_a_sentence_is_over_when_its_mark_was_played(
    stream_hz: int, late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A way that takes its time: the ledger alone would believe the sentence to be over while it is still heard."""
    for name in ("send_audio", "send_text"):
        send = getattr(MediaTwin, name)

        def slow(leg: MediaTwin, data: Any, send: Any = send) -> None:
            asyncio.get_running_loop().call_later(late_s, send, leg, data)

        monkeypatch.setattr(MediaTwin, name, slow)
    over: list[float] = []

    async def agent(call: Call) -> None:
        for _ in range(2):
            await call.say(tone(stream_hz, 1.0, 440.0))
            over.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1.0)

    (call,), here = run(call_with(agent, AUDIO_FORK_BINARY, rate_hz=stream_hz))
    heard = np.abs(np.frombuffer(call.heard, "<i2").astype(int)) > 500
    assert heard.sum() == pytest.approx(2 * 8000 * 0.9, rel=0.1)
    first = int(np.flatnonzero(heard)[0])
    ends = call.placed_at + (first + 8000) / 8000
    assert ends - 0.02 <= over[0] <= ends + 0.06
    assert here.names().count("media_text") == 1  # the stream's metadata, and no mark


def test_a_mark_that_never_comes_holds_nothing_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MediaTwin, "send_text", lambda leg, text: None)
    took: list[float] = []

    async def agent(call: Call) -> None:
        began = asyncio.get_running_loop().time()
        await call.say(tone(8000, 1.0, 440.0))
        took.append(asyncio.get_running_loop().time() - began)

    run(call_with(agent, AUDIO_FORK_BINARY))
    assert 1.0 <= took[0] <= 1.0 + MARK_S + 0.1


def test_a_switch_in_a_scene_knows_every_dialect() -> None:
    for name in DIALECTS:
        Switch(dialect=name)  # type: ignore[arg-type]
