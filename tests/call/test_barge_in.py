"""How long it takes until an interrupted agent is silent, as the gateway says it and as the caller hears it."""

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest
from tests.support.virtual import virtual_desk

from dueto.call import Call
from dueto.errors import Interrupted
from dueto.sim import Caller, Line, SimCall, run_virtual, tone
from dueto.wire.media import DIALECTS, Dialect

BargeIn = Mapping[str, object]
MODULES = [dialect for dialect in DIALECTS.values() if dialect.module]
EVERY = pytest.mark.parametrize("dialect", MODULES, ids=lambda dialect: dialect.name)


def audible_ms(call: SimCall) -> int:
    heard = np.frombuffer(call.heard, np.int16).reshape(-1, call.rate_hz // 50)
    return int((np.abs(heard).max(axis=1) > 500).sum()) * 20


async def one_call(
    agent: object, dialect: Dialect, *, presses: bool = False
) -> tuple[SimCall, list[Mapping[str, object]]]:
    async def script(line: Line) -> None:
        if presses:
            await line.hears_speech(1000)
            await line.press("5")
        await line.until_hangup()

    async with (
        virtual_desk(agent, dialect=dialect) as here,  # type: ignore[arg-type]
        here.switch(dialect=dialect.name, record=True) as switch,
    ):
        call = await switch.place(Caller(script=script))
        await call.done()
    return call, [fields for _, name, fields in here.journal if name == "barge_in"]


@EVERY
def test_the_measured_silence_is_what_the_caller_hears(dialect: Dialect) -> None:
    lasted: list[float] = []

    async def agent(call: Call) -> None:
        answer = call.utterance()
        answer.add(tone(call.rate_hz, 6.0, 440.0))
        await asyncio.sleep(2.0)
        assert answer.began_at is not None
        lasted.append(asyncio.get_running_loop().time() - answer.began_at)
        await call.stop(by="speech")
        with pytest.raises(Interrupted):
            await answer.heard()
        await asyncio.sleep(1.0)

    call, barge_ins = run_virtual(one_call(agent, dialect), start_s=1000.0)
    (told,) = barge_ins
    assert told["by"] == "speech"
    assert told["known_by"] == ("switch" if dialect.downlink == "file" else "marks" if dialect.marks else "ledger")
    silence_ms = told["silence_ms"]
    assert isinstance(silence_ms, int)
    assert 0 <= silence_ms <= dialect.lead_ms
    assert audible_ms(call) == pytest.approx(lasted[0] * 1000 + silence_ms, abs=60)


@EVERY
def test_a_digit_that_cuts_a_prompt_is_a_barge_in(dialect: Dialect) -> None:
    async def agent(call: Call) -> None:
        gathered = await call.gather(prompt=tone(call.rate_hz, 6.0, 440.0))
        assert gathered.digits == "5"

    _, barge_ins = run_virtual(one_call(agent, dialect, presses=True), start_s=1000.0)
    assert [told["by"] for told in barge_ins] == ["digit"]


@EVERY
def test_what_interrupts_silence_is_no_barge_in(dialect: Dialect) -> None:
    async def agent(call: Call) -> None:
        await call.say(tone(call.rate_hz, 0.5, 440.0))
        await asyncio.sleep(1.0)
        await call.stop(by="speech")
        await asyncio.sleep(1.0)

    _, barge_ins = run_virtual(one_call(agent, dialect), start_s=1000.0)
    assert barge_ins == []
