"""One call whose agent does one thing, on virtual time and in memory; and all the things there are to do."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from tests.call.test_transfers import virtually
from tests.support.virtual import virtual_desk

from dueto.call import Call, CallRules, Destination
from dueto.call.events import Dtmf
from dueto.call.house import Whereabouts
from dueto.call.ports import Accept
from dueto.errors import DuetoError
from dueto.sim import Caller, Endpoint, Line, SimCall, Switch, tone

RULES = CallRules(public_url="ws://127.0.0.1:8085", rate_hz=8000)
DESTINATIONS = {
    "operator": Destination("operator", "user/1001"),
    "closed": Destination("closed", "user/1001", when="sun 03:00-03:01"),
    "mobile": Destination("mobile", "sip:5511@example.org", via="refer"),
    "away": Destination("away", "2000 XML default", via="transfer"),
}
ENDPOINTS = {"user/1001": Endpoint("answers", hangs_up_after_s=1.0)}
MONDAY = datetime(2026, 11, 23, 12, 0)


class Doing:
    """An agent that does one thing, and keeps its outcome."""

    def __init__(self, what: Callable[[Call], Awaitable[Any]]) -> None:
        self.what = what
        self.result: Any = None
        self.error: BaseException | None = None
        self.began = asyncio.Event()
        self.done = asyncio.Event()
        self.over = asyncio.Event()
        self.events: list[Any] = []

    async def __call__(self, call: Call) -> None:
        reading = asyncio.ensure_future(self._read(call))
        self.began.set()
        try:
            self.result = await self.what(call)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.done.set()
            if self.error is not None:
                reading.cancel()
        await reading

    async def _read(self, call: Call) -> None:
        async for event in call.events():
            self.events.append(event)
        self.over.set()


async def scene(
    what: Callable[[Call], Awaitable[Any]],
    then: Callable[[Doing, SimCall, Switch], Awaitable[None]] | None = None,
    *,
    caller: Caller | None = None,
    patience_s: float = 60.0,
    **switch: Any,
) -> Doing:
    """Run one call whose agent does `what`."""
    agent = Doing(what)
    keys = switch.pop("keys", {})
    async with virtual_desk(
        agent,
        rules=RULES,
        destinations=DESTINATIONS,
        whereabouts=Whereabouts("127.0.0.1:8022"),
        local_time=lambda: MONDAY,
        keys=keys,
        pipe_faults=switch.pop("pipe_faults", None),
    ) as virtual:
        given = {"endpoints": ENDPOINTS, "record": True} | switch
        async with virtual.switch(**given) as sim:
            call = await sim.place(caller or Caller())
            if then is not None:
                await then(agent, call, sim)
            else:
                async with asyncio.timeout(patience_s):
                    await agent.done.wait()
            call.hang_up()
            await call.over()
    return agent


def verb(what: Callable[[Call], Awaitable[Any]], **more: Any) -> Doing:
    """The outcome of one verb."""
    outcome: list[Doing] = []

    @virtually
    async def run() -> None:
        outcome.append(await scene(what, **more))

    run()
    return outcome[0]


def presses(digits: str, after_s: float = 1.0, gap_s: float = 0.3) -> Caller:
    async def script(line: Line) -> None:
        await line.wait(after_s)
        for digit in digits:
            await line.press(digit)
            await line.wait(gap_s)
        await line.until_hangup()

    return Caller(script=script)


async def hold_and_unhold(call: Call) -> None:
    """Who is on hold hears nothing, and a `say` waits for its end; so it has one."""
    try:
        await call.hold()
    finally:
        with contextlib.suppress(DuetoError):
            await call.unhold()


async def record_and_stop(call: Call) -> None:
    """Record something, so that there is something to stop."""
    await call.record("/tmp/y.wav")
    await call.stop_recording("/tmp/y.wav")


VERBS: dict[str, Callable[[Call], Awaitable[Any]]] = {
    "answer": lambda call: call.answer(),
    "api": lambda call: call.api("msleep", "200"),
    "attended": lambda call: call.transfer(
        "operator",
        mode="attended",
        announce=tone(8000, 0.2, 700),
        accept=Accept(prompt="", silence="accept", within_s=0.2),
        introduce=lambda call: call.say(tone(8000, 0.2, 700)),
        timeout_s=3.0,
    ),
    "bgapi": lambda call: call.bgapi("msleep", "500", timeout_s=3.0),
    "bridge": lambda call: call.bridge("operator", timeout_s=3.0),
    "execute": lambda call: call.execute("sleep", "400", timeout_s=5.0),
    "gather": lambda call: call.gather(first_timeout_s=1.0),
    "hangup": lambda call: call.hangup(),
    "hold": lambda call: hold_and_unhold(call),
    "park": lambda call: call.park(),
    "play": lambda call: call.play("tone_stream://%(500,0,440)", timeout_s=5.0),
    "play_missing": lambda call: call.play("/no/such.wav", timeout_s=5.0),
    "pre_answer": lambda call: call.pre_answer(),
    "record": lambda call: call.record("/tmp/x.wav"),
    "return": lambda call: call.return_to_dialplan(dueto_result="done"),
    "ring_ready": lambda call: call.ring_ready(),
    "say": lambda call: call.say(tone(8000, 0.3, 600)),
    "send_dtmf": lambda call: call.send_dtmf("1"),
    "set": lambda call: call.set_variables(a="b"),
    "stop": lambda call: call.stop(),
    "stop_playing": lambda call: call.stop_playing(),
    "stop_recording": lambda call: record_and_stop(call),
    "transfer": lambda call: call.transfer("operator", timeout_s=3.0),
    "announced": lambda call: call.transfer(
        "operator",
        mode="announced",
        announce=tone(8000, 0.2, 700),
        accept=Accept(prompt="", within_s=1.0),
        timeout_s=3.0,
    ),
    "unhold": lambda call: call.unhold(),
    "wait_for": lambda call: call.wait_for(Dtmf, timeout_s=1.0),
}


async def outcome_of(verb: Awaitable[Any]) -> str:
    """The kind of outcome, or of typed error; anything else is raised."""
    try:
        return type(await verb).__name__
    except (DuetoError, TimeoutError) as error:
        return type(error).__name__
