"""Who takes a call over where an agent fails or has no place, and what the caller hears of it. On virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.call.test_transfers import loudness, virtually
from tests.support.virtual import Virtual, virtual_desk

from dueto.agents.failover import FailOver, Limit, Limited, Post, connects_with
from dueto.call import Agent, Call, CallRules, Destination
from dueto.call.events import HungUp
from dueto.call.house import Whereabouts
from dueto.errors import CallEnded, NotCapable, ProviderFailed
from dueto.sim import Caller, Endpoint, SimCall, tone

RULES = CallRules(public_url="ws://127.0.0.1:8085", rate_hz=8000)
DESTINATIONS = {"operator": Destination("operator", "user/1001"), "nobody": Destination("nobody", "user/9")}
ENDPOINTS = {
    "user/1001": Endpoint("answers"),
    "user/9": Endpoint("busy"),
    "user/2": Endpoint("answers", hangs_up_after_s=5.0),
}
FIRST_HZ, SECOND_HZ, SORRY_HZ = 500, 900, 1300


class Whistle:
    """A mouth with one note."""

    def __init__(self, hz: float = SORRY_HZ) -> None:
        self.hz = hz
        self.spoken: list[str] = []

    async def speak(self, text: str, rate_hz: int) -> bytes:
        self.spoken.append(text)
        await asyncio.sleep(0.05)
        return tone(rate_hz, 0.5, self.hz)


def fails(error: Exception, *, after_s: float = 0.0, says: str = "") -> Agent:
    """An agent that says something, and fails while it is still saying it."""

    async def agent(call: Call) -> None:
        if says:
            saying = call.utterance(interruptible=False)
            saying.add(tone(8000, 5.0, FIRST_HZ))
            call.transcript.add("agent", says)
            call.transcript.add("caller", "I would like to")
        await asyncio.sleep(after_s)
        raise error

    return agent


class Listens:
    """An agent that greets, and stays until the hangup."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.began = asyncio.Event()
        self.mouth: Any = None
        self.calls = 0

    async def __call__(self, call: Call) -> None:
        self.calls += 1
        self.found = [line.text for line in call.transcript]
        self.mouth = call.mouth
        await call.say(tone(8000, 0.5, SECOND_HZ))
        self.began.set()
        async for event in call.events():
            if isinstance(event, HungUp):
                return


def refused() -> ProviderFailed:  # a new one each time: what has been raised keeps all that it went through
    return ProviderFailed("auth", "OpenAI refused the key (401): check OPENAI_API_KEY")


def dropped() -> ProviderFailed:
    return ProviderFailed("dropped", "OpenAI closed the connection (1011) after 3 s")


async def one_call(
    agent: Agent,
    until: Callable[[SimCall, Virtual], Awaitable[None]],
    *,
    hangs_up: bool = True,
    **house: Any,
) -> tuple[SimCall, Virtual]:
    fields = {"destinations": DESTINATIONS, "whereabouts": Whereabouts("127.0.0.1:8022"), "rules": RULES} | house
    async with virtual_desk(agent, **fields) as virtual:
        async with virtual.switch(endpoints=ENDPOINTS, record=True) as switch:
            call = await switch.place(Caller())
            async with asyncio.timeout(120):
                await until(call, virtual)
            if hangs_up:
                call.hang_up()
            await call.over()
    return call, virtual


def noted(virtual: Virtual, name: str) -> list[dict[str, object]]:
    return [dict(fields) for _, event, fields in virtual.journal if event == name]


@virtually
async def test_the_next_takes_over_with_what_was_said_and_a_word_of_apology() -> None:
    second, mouth = Listens(), Whistle()
    chain = FailOver([Post("voice", fails(dropped(), after_s=3.0, says="Good morning.")), Post("spare", second, mouth)])
    call, virtual = await one_call(chain, lambda *_: second.began.wait())
    assert second.found == ["Good morning.", "I would like to", mouth.spoken[0]]
    assert len(mouth.spoken) == 1
    assert second.mouth is mouth
    (note,) = noted(virtual, "agent_replaced")
    assert note == {
        "name": "voice",
        "fault": "dropped",
        "error": "OpenAI closed the connection (1011) after 3 s",
        "by": "spare",
    }
    seconds = [call.heard[at : at + 8000] for at in range(0, len(call.heard), 8000)]  # halves of a second
    order = [hz for half in seconds for hz in (FIRST_HZ, SORRY_HZ, SECOND_HZ) if loudness(half, hz) > 0.5]
    assert list(dict.fromkeys(order)) == [FIRST_HZ, SORRY_HZ, SECOND_HZ], "one after the other, none over another"
    assert order.count(FIRST_HZ) <= 7, "what the one that failed had still to say is not heard"
    assert "agent_failed" not in virtual.names()


@virtually
async def test_a_provider_that_refuses_at_once_was_never_noticed() -> None:
    second, mouth = Listens(), Whistle()
    _, virtual = await one_call(
        FailOver([Post("voice", fails(refused())), Post("spare", second, mouth)]), lambda *_: second.began.wait()
    )
    assert mouth.spoken == []
    assert second.found == []
    assert noted(virtual, "agent_replaced")[0]["fault"] == "auth"


@virtually
async def test_half_a_word_is_enough_to_be_noticed() -> None:
    second, mouth = Listens(), Whistle()

    async def breaks_off(call: Call) -> None:
        saying = call.utterance()
        saying.add(tone(8000, 3.0, FIRST_HZ))
        await asyncio.sleep(0.4)
        raise dropped()

    await one_call(FailOver([Post("voice", breaks_off), Post("spare", second, mouth)]), lambda *_: second.began.wait())
    assert len(mouth.spoken) == 1
    assert second.found == mouth.spoken, "and who takes over knows that he is not the first"


@virtually
async def test_without_a_mouth_the_apology_is_silence() -> None:
    second = Listens()
    call, _ = await one_call(
        FailOver([Post("voice", fails(dropped(), after_s=2.0, says="Hello")), Post("spare", second)]),
        lambda *_: second.began.wait(),
    )
    assert second.found == ["Hello", "I would like to"]
    assert loudness(call.heard, SORRY_HZ) < 0.1


@virtually
async def test_a_mouth_that_fails_or_hangs_keeps_nobody_from_taking_over() -> None:
    class Fails:
        async def speak(self, text: str, rate_hz: int) -> bytes:
            raise NotCapable("no synthesiser")

    class Hangs:
        async def speak(self, text: str, rate_hz: int) -> bytes:
            return bytes(await asyncio.get_running_loop().create_future())

    for mouth in (Fails(), Hangs()):
        second = Listens()
        await one_call(
            FailOver([Post("a", fails(dropped(), after_s=2.0, says="Hello")), Post("b", second, mouth)]),
            lambda *_, second=second: second.began.wait(),
        )
        assert second.calls == 1


@virtually
async def test_a_destination_may_take_over() -> None:
    async def bridged(call: SimCall, virtual: Virtual) -> None:
        await virtual.until_noted("bridged")

    _, virtual = await one_call(
        FailOver(
            [
                Post("voice", fails(refused())),
                Post("nobody", connects_with("nobody")),
                Post("op", connects_with("operator")),
            ]
        ),
        bridged,
    )
    assert [note["by"] for note in noted(virtual, "agent_replaced")] == ["nobody", "op"]
    assert noted(virtual, "agent_replaced")[1]["error"] == "nobody: busy USER_BUSY"


@virtually
async def test_nobody_takes_over_from_a_caller_who_talks_to_somebody_else() -> None:
    second = Listens()
    times: list[float] = []

    async def fails_meanwhile(call: Call) -> None:
        assert (await call.transfer("brief")).ok
        times.append(call.clock())
        raise dropped()

    async def back(call: SimCall, virtual: Virtual) -> None:
        await second.began.wait()
        times.append(asyncio.get_running_loop().time())

    brief = {"brief": Destination("brief", "user/2")}
    await one_call(FailOver([Post("a", fails_meanwhile), Post("b", second)]), back, destinations=brief)
    assert second.calls == 1
    assert times[1] - times[0] > 4.0, "when the other side hung up"


@virtually
async def test_when_all_have_failed_the_call_goes_the_way_of_when_failed() -> None:
    async def left(call: SimCall, virtual: Virtual) -> None:
        await virtual.until_noted("returned_to_dialplan")

    call, virtual = await one_call(
        FailOver([Post("a", fails(refused())), Post("b", fails(dropped()))]), left, hangs_up=False
    )
    assert call.channel.variables["dueto_result"] == "agent_failed"
    assert noted(virtual, "agent_failed") == [{"error": f"ProviderFailed: {dropped()}"}]


@virtually
async def test_a_caller_who_hangs_up_is_no_failure() -> None:
    second = Listens()

    async def surprised(call: Call) -> None:
        async for event in call.events():
            if isinstance(event, HungUp):
                raise ProviderFailed("dropped", "the provider noticed it first")

    async def up(call: SimCall, virtual: Virtual) -> None:
        await virtual.until_noted("agent_started")

    _, virtual = await one_call(FailOver([Post("a", surprised), Post("b", second)]), up)
    assert second.calls == 0
    assert noted(virtual, "agent_replaced") == []


@virtually
async def test_a_full_agent_is_passed_over_and_its_place_given_back() -> None:
    limit, first, second = Limit(1), Listens(), Listens()
    chain = FailOver([Post("voice", first, limit=limit), Post("spare", second)])
    async with virtual_desk(chain, rules=RULES) as virtual, virtual.switch() as switch:
        one, two = await switch.place(Caller()), await switch.place(Caller())
        await first.began.wait()
        await second.began.wait()
        assert noted(virtual, "agent_full") == [{"name": "voice", "max_calls": 1}]
        one.hang_up()
        await one.over()
        await virtual.until_noted("call_ended")
        assert limit.taken == 0
        three = await switch.place(Caller())
        await virtual.until_noted("agent_started", times=3)
        first.began.clear()
        await first.began.wait()
        assert (first.calls, second.calls) == (2, 1)
        for call in (two, three):
            call.hang_up()
            await call.over()


@pytest.mark.parametrize(
    ("when_full", "result", "cause"), [("busy", "", "USER_BUSY"), ("return_to_dialplan", "full", "")]
)
def test_where_nobody_has_a_place_the_call_is_turned_away(when_full: Any, result: str, cause: str) -> None:
    @virtually
    async def run() -> None:
        full = Limit(1)
        full.take()

        async def over(call: SimCall, virtual: Virtual) -> None:
            await virtual.until_noted("hungup")

        for agent in (
            FailOver([Post("voice", Listens(), limit=full)], when_full=when_full),
            Limited(Listens(), full, "acme", when_full),
        ):
            call, virtual = await one_call(agent, over, hangs_up=False)
            assert call.channel.variables.get("dueto_result", "") == result
            if cause:
                assert call.hangup_cause == cause
            assert "agent_failed" not in virtual.names()
        assert full.taken == 1

    run()


@virtually
async def test_places_are_given_back_whatever_happens() -> None:
    limits = [Limit(3), Limit(3), Limit(3)]

    async def cancelled(call: Call) -> None:
        await asyncio.get_running_loop().create_future()

    chain = FailOver(
        [
            Post("a", fails(refused()), limit=limits[0]),
            Post("b", fails(RuntimeError("a bug")), limit=limits[1]),
            Post("c", cancelled, limit=limits[2]),
        ]
    )

    async def up(call: SimCall, virtual: Virtual) -> None:
        await virtual.until_noted("agent_replaced", times=2)

    _, virtual = await one_call(Limited(chain, Limit(1), "t", "busy"), up)
    assert [limit.taken for limit in limits] == [0, 0, 0]
    assert noted(virtual, "agent_replaced")[1]["fault"] == "RuntimeError"


@virtually
async def test_the_end_of_the_call_passes_through() -> None:
    second = Listens()
    seen: list[BaseException] = []

    async def speaks_after_the_end(call: Call) -> None:
        try:
            await call.say(tone(8000, 30.0, FIRST_HZ))
        except CallEnded as error:
            seen.append(error)
            raise

    async def up(call: SimCall, virtual: Virtual) -> None:
        await asyncio.sleep(2)

    await one_call(FailOver([Post("a", speaks_after_the_end), Post("b", second)]), up)
    assert len(seen) == 1
    assert second.calls == 0
