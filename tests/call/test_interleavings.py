"""Random troubles on both legs at once, on the virtual clock, against what must hold for every call."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.virtual import virtual_desk

from dueto.call import Call, CallRules
from dueto.call.events import CallEvent, Dtmf, HungUp
from dueto.errors import DuetoError
from dueto.sim import Caller, Faults, Line, PipeFaults, run_virtual

TONE = b"\x00\x20\x00\xe0" * 2000
seconds = st.integers(0, 8000).map(lambda ms: ms / 1000)
maybe_seconds = st.none() | seconds


now_or_late = st.sampled_from([0.0, 0.0, 0.5, 3.0, 7.0])
rarely = st.tuples(st.booleans(), st.booleans()).map(all)
troubles = st.builds(
    Faults,
    first=st.sampled_from([None, "media", "control"]),
    control_late_s=now_or_late,
    media_late_s=now_or_late,
    control_never=rarely,
    media_never=rarely,
    control_twice_after_s=maybe_seconds,
    media_twice_after_s=maybe_seconds,
    control_reset_after_s=maybe_seconds,
    media_reset_after_s=maybe_seconds,
    reply_delay_s=st.sampled_from([0.0, 0.0, 0.01, 0.2]),
    lost_events=st.frozensets(st.sampled_from(["CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "DTMF"])),
    early_linger_notice=st.booleans(),
)


class Witness:
    """An agent that speaks, listens and calls verbs, and remembers everything."""

    def __init__(self, verbs: list[str]) -> None:
        self.verbs = verbs
        self.runs: dict[str, int] = {}
        self.told: list[list[CallEvent]] = []
        self.untyped: list[BaseException] = []
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

    async def __call__(self, call: Call) -> None:
        self.runs[call.unique_id] = self.runs.get(call.unique_id, 0) + 1
        self.alive.add(call)
        self.alive.add(call._session)
        told: list[CallEvent] = []
        self.told.append(told)
        listening = asyncio.ensure_future(self._listen(call, told))
        try:
            for verb in self.verbs:
                try:
                    await self._do(call, verb)
                except DuetoError:
                    pass
                except Exception as error:
                    self.untyped.append(error)
            await listening
        finally:
            listening.cancel()

    async def _listen(self, call: Call, told: list[CallEvent]) -> None:
        async for event in call.events():
            told.append(event)

    async def _do(self, call: Call, verb: str) -> None:
        match verb:
            case "say":
                await call.say(TONE)
            case "hold":
                await call.hold()
                await call.unhold()
            case "transfer":
                await call.transfer("sales", timeout_s=3)
            case "variables":
                await call.set_variables(mood="good")
            case "execute":
                await call.execute("playback", "silence_stream://300", timeout_s=5)
            case "hangup":
                await call.hangup()
            case "leave":
                await call.return_to_dialplan()


VERBS = st.lists(
    st.sampled_from(["say", "say", "hold", "transfer", "variables", "execute", "hangup", "leave"]), max_size=4
)


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Set aside what was there before, so that looking for leaks costs a millisecond and not ten."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.timeout(600)  # half a minute of computing: on a busy machine many times that
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(troubles, min_size=4, max_size=4), VERBS, seconds, st.booleans(), st.booleans(), st.integers(0, 999))
def test_under_any_trouble_every_call_ends_once_told_once_in_order_and_leaves_nothing(
    faults: list[Faults], verbs: list[str], lasts_s: float, split: bool, gateway_starts: bool, seed: int
) -> None:
    witness = Witness(verbs)

    async def script(line: Line) -> None:
        await line.press("1")
        await line.press("2")
        await line.wait(lasts_s)
        await line.press("3")

    async def run() -> None:
        rules = CallRules(
            give_up_after_s=6.0,
            warn_after_s=2.0,
            stream_start="gateway" if gateway_starts else "dialplan",
            public_url="ws://127.0.0.1:8085" if gateway_starts else "",
        )
        pipe_faults = PipeFaults(split=split, seed=seed)
        async with (
            virtual_desk(witness, rules=rules, pipe_faults=pipe_faults) as here,
            here.switch(
                start="gateway" if gateway_starts else "dialplan",
                dialplan=[("playback", "silence_stream://3000")],
            ) as switch,
        ):
            calls = [await switch.place(Caller(script=script), faults=trouble) for trouble in faults]
            async with asyncio.timeout(120):
                for call in calls:
                    await call.over()
        for call in calls:
            names = here.names(call.unique_id)
            ended = names.count("call_ended")  # more than once only where the dialplan came back with the same channel
            assert witness.runs.get(call.unique_id, 0) <= ended
            assert names.count("hungup") == ended
            assert names.count("paired") <= ended

    run_virtual(run(), start_s=1000.0)
    for told in witness.told:
        assert [at for at, event in enumerate(told) if isinstance(event, HungUp)] == [len(told) - 1], told
        digits = [event.digit for event in told if isinstance(event, Dtmf)]
        assert digits == sorted(set(digits)), told
    assert not witness.untyped
    gc.collect()
    assert not witness.alive  # calls and sessions: nothing outlives its call
