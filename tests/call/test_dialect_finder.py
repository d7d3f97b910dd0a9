"""`media.dialect = "auto"`: each kind of audio module is found at its first call, once, and spoken with as it plays."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.support.virtual import Virtual, virtual_desk

from dueto.call import Call, CallRules
from dueto.call.dialects import LATE_S, PROBES_S, DialectFinder
from dueto.sim import Caller, Faults, Line, SimCall, run_virtual, tone
from dueto.sim.audio_module import AudioModule
from dueto.sim.listening import compare, ends_at, sweep
from dueto.wire.media import AUDIO_STREAM, DIALECTS

RULES = CallRules(public_url="ws://127.0.0.1:8085", rate_hz=8000)
MODULES = [name for name, dialect in DIALECTS.items() if dialect.module]
SOUND = sweep(8000, 3.0)


async def until_hangup(line: Line) -> None:
    await line.until_hangup()


def caller(dialect: str) -> Caller:
    """As the dialplan has it for a build that plays binary audio."""
    variables = (("STREAM_SAMPLE_RATE", "8000"),) if dialect == "audio_stream-binary" else ()
    return Caller(script=until_hangup, variables=variables)


def found(here: Virtual) -> list[Mapping[str, object]]:
    return [fields for _, name, fields in here.journal if name == "media_dialect"]


def spoken_with(here: Virtual) -> list[object]:
    return [fields["dialect"] for _, name, fields in here.journal if name == "media_connected"]


async def says(call: Call) -> None:
    await call.say(SOUND)


async def calls(
    dialect: str,
    count: int = 2,
    *,
    agent: object = says,
    rules: CallRules = RULES,
    faults: Mapping[int, Faults] | None = None,
    **switch: object,
) -> tuple[list[SimCall], Virtual]:
    """One call after the other."""
    placed = []
    async with (
        virtual_desk(agent, dialect=AUDIO_STREAM, rules=rules, finder=DialectFinder()) as here,  # type: ignore[arg-type]
        here.switch(dialect=dialect, record=True, **switch) as sim,
    ):
        for number in range(count):
            call = await sim.place(caller(dialect), faults=(faults or {}).get(number))
            await call.done()
            placed.append(call)
    return placed, here


@pytest.mark.parametrize("dialect", MODULES)
@pytest.mark.parametrize("first", ["media", "control"])
def test_each_kind_is_found_once_and_said_in_one_line(dialect: str, first: str) -> None:
    faults = Faults(first=first)  # type: ignore[arg-type]
    placed, here = run_virtual(calls(dialect, faults={0: faults, 1: faults}), start_s=1000.0)
    (told,) = found(here)
    assert told["found"] == dialect
    assert told["caller_gets"] == DIALECTS[dialect].gives
    assert told["caller_lacks"] == DIALECTS[dialect].lacks
    assert spoken_with(here) == [dialect, dialect]
    for call in placed:
        heard = compare(call.heard, SOUND, 8000)
        assert heard.first_ms == pytest.approx(0, abs=5)
        assert heard.last_ms == pytest.approx(3000, abs=5)
        assert heard.worst_error < 0.15


@pytest.mark.parametrize("dialect", ["audio_stream", "audio_stream-base64", "audio_fork-binary"])
def test_calls_that_come_together_ask_once(dialect: str) -> None:
    async def main() -> tuple[list[SimCall], Virtual]:
        async with (
            virtual_desk(says, dialect=AUDIO_STREAM, rules=RULES, finder=DialectFinder()) as here,
            here.switch(dialect=dialect, record=True) as sim,
        ):
            placed = [await sim.place(caller(dialect)) for _ in range(5)]
            for call in placed:
                await call.done()
        return placed, here

    placed, here = run_virtual(main(), start_s=1000.0)
    assert len(found(here)) == 1
    assert spoken_with(here) == [dialect] * 5
    assert all(compare(call.heard, SOUND, 8000).last_ms == pytest.approx(3000, abs=5) for call in placed)


@pytest.mark.parametrize("dialect", MODULES)
@pytest.mark.parametrize("answers", [True, False], ids=["", "no word of what it does not know"])
def test_the_first_call_of_a_switch_hardly_waits_for_the_answer(dialect: str, answers: bool) -> None:
    starts: list[float] = []

    async def agent(call: Call) -> None:
        starts.append(asyncio.get_running_loop().time())

    mute = Faults(lost_events=set() if answers else {"mod_audio_stream::json", "mod_audio_fork::json"})
    placed, here = run_virtual(calls(dialect, agent=agent, faults={0: mute, 1: mute}), start_s=1000.0)
    first, second = (at - call.placed_at for at, call in zip(starts, placed, strict=True))
    files = DIALECTS[dialect].downlink == "file"
    assert first <= (0.1 if files else 0.2 if answers else sum(PROBES_S) + 0.1)
    assert second <= 0.04
    assert [told["found"] for told in found(here)] == [dialect]


@pytest.mark.parametrize("dialect", ["audio_stream", "audio_fork"])
def test_a_file_that_is_announced_after_the_answer_to_the_fence_still_counts(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch's events may overtake each other."""
    happened = AudioModule._event

    def late(module: AudioModule, kind: str, body: str = "") -> None:
        if kind in ("play", "play_audio"):
            asyncio.get_running_loop().call_later(LATE_S * 0.7, happened, module, kind, body)
        else:
            happened(module, kind, body)

    monkeypatch.setattr(AudioModule, "_event", late)
    _, here = run_virtual(calls(dialect, 1), start_s=1000.0)
    assert [told["found"] for told in found(here)] == [dialect]


@pytest.mark.parametrize(("dialect", "expected"), [("audio_stream-binary", "audio_stream-binary")])
def test_without_a_control_leg_only_a_stream_can_be_heard(dialect: str, expected: str) -> None:
    rules = replace(RULES, control_expected=False)
    no_control = {"control": "", "dialplan": [("park", "")]}

    async def hangs_up(call: Call) -> None:
        await call.say(SOUND)

    async def main() -> tuple[list[SimCall], Virtual]:
        async with (
            virtual_desk(hangs_up, dialect=AUDIO_STREAM, rules=rules, finder=DialectFinder()) as here,
            here.switch(dialect=dialect, record=True, **no_control) as sim,
        ):
            call = await sim.place(caller(dialect))
            await here.until_noted("call_ended")
            call.hang_up()
            await call.done()
        return [call], here

    (call,), here = run_virtual(main(), start_s=1000.0)
    assert [told["found"] for told in found(here)] == [expected]
    assert compare(call.heard, SOUND, 8000).last_ms == pytest.approx(3000, abs=5)


@pytest.mark.parametrize("dialect", ["audio_stream", "audio_stream-base64", "audio_fork", "audio_fork-binary"])
def test_a_stream_that_we_start_is_started_in_the_words_of_the_module_that_is_loaded(dialect: str) -> None:
    rules = replace(RULES, stream_start="gateway", secret="")
    placed, here = run_virtual(calls(dialect, rules=rules, start="gateway"), start_s=1000.0)
    assert spoken_with(here) == [dialect, dialect]
    assert all(compare(call.heard, SOUND, 8000).last_ms == pytest.approx(3000, abs=5) for call in placed)


@pytest.mark.parametrize("knows", [True, False])
def test_a_build_that_gives_stop_audio_back_is_not_believed_to_be_silent_at_once(knows: bool) -> None:
    """As the commercial build may be, under a dialplan that says nothing of binary audio."""
    sounded_ms: list[float] = []

    async def agent(call: Call) -> None:
        old = call.utterance()
        old.add(tone(8000, 5.0, 440.0))
        await asyncio.sleep(2.0)
        decided = asyncio.get_running_loop().time()
        await call.stop()
        await asyncio.sleep(1.0)
        sounded_ms.append(decided)

    async def main() -> tuple[SimCall, Virtual]:
        async with (
            virtual_desk(agent, dialect=AUDIO_STREAM, rules=RULES, finder=DialectFinder()) as here,
            here.switch(dialect="audio_stream-binary", record=True, clears=knows) as sim,
        ):
            call = await sim.place(Caller(script=until_hangup))
            await call.done()
        return call, here

    call, here = run_virtual(main(), start_s=1000.0)
    (told,) = found(here)
    assert told["found"] == "audio_stream-base64"
    assert ("480 ms" in str(told["caller_lacks"])) is not knows
    took_ms = (call.placed_at + ends_at(call.heard) / 8000 - sounded_ms[0]) * 1000
    assert took_ms <= (40 if knows else 500)
    (barge_in,) = [fields for _, name, fields in here.journal if name == "barge_in"]
    assert float(str(barge_in["silence_ms"])) == pytest.approx(took_ms, abs=40)


def test_a_switch_that_was_taken_for_another_is_known_better_from_the_next_call_on() -> None:
    async def agent(call: Call) -> None:
        saying = asyncio.ensure_future(call.say(SOUND))
        await asyncio.sleep(5.0)
        saying.cancel()

    deaf = Faults(lost_events={"mod_audio_stream::play"})
    placed, here = run_virtual(calls("audio_stream", 3, agent=agent, faults={0: deaf}), start_s=1000.0)
    assert [told["found"] for told in found(here)] == ["audio_stream-base64", "audio_stream"]
    assert spoken_with(here) == ["audio_stream-base64", "audio_stream-base64", "audio_stream"]
    assert compare(placed[2].heard, SOUND, 8000).last_ms == pytest.approx(3000, abs=5)


def test_a_caller_who_hangs_up_while_it_is_being_found_out_leaves_nothing_behind() -> None:
    async def agent(call: Call) -> None:
        await asyncio.sleep(60)

    async def main() -> Virtual:
        async with (
            virtual_desk(agent, dialect=AUDIO_STREAM, rules=RULES, finder=DialectFinder()) as here,
            here.switch(dialect="audio_stream-base64") as sim,
        ):
            call = await sim.place(Caller())
            await here.until_noted("control_connected")
            await asyncio.sleep(LATE_S / 2)
            call.hang_up()
            await call.done()
            await here.until_noted("call_ended")
        return here

    here = run_virtual(main(), start_s=1000.0)
    assert "agent_started" not in here.names()
    assert found(here) == []
