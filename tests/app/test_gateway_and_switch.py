"""The gateway and the switch's own event socket, and the caller whom no gateway helps: real sockets throughout."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.app.test_dialplan import actions
from tests.app.test_gateway import SECRET, Noted, settings

from dueto.app.dialplan import dialplan_xml
from dueto.app.gateway import Gateway
from dueto.call import Call
from dueto.call.events import HungUp
from dueto.errors import NotCapable
from dueto.sim import Access, Caller, Endpoint, Line, SimCall, Switch

PASSWORD = "not ClueCon"


def url(gateway: Gateway) -> str:
    return f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=16000&mix=mono&token={{token}}"


@asynccontextmanager
async def switch_with_socket(**more: Any) -> AsyncIterator[tuple[Switch, str]]:
    async with Switch("", "", **more) as switch:
        port = await switch.listen_inbound(access=Access(PASSWORD))
        yield switch, f"127.0.0.1:{port}"


class Listens:
    """An agent that listens until the hangup."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.started = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        self.calls.append(call.unique_id)
        self.started.set()
        async for event in call.events():
            if isinstance(event, HungUp):
                self.over.set()


async def test_a_call_is_placed_answered_and_hung_up_by_whoever_was_called() -> None:
    agent = Listens()
    endpoints = {
        "user/1": Endpoint("answers", answer_after_s=0.1, hangs_up_after_s=0.3),
        "user/2": Endpoint("busy", answer_after_s=0.1),
    }
    noted = Noted()
    async with switch_with_socket(endpoints=endpoints) as (_, address):
        given = settings(switch={"address": address, "password": PASSWORD})
        async with Gateway(given, agent=agent, journal=noted) as gateway:
            await noted.until("switch_up")
            assert (await gateway.dial("user/2", timeout_s=5)).outcome == "busy"
            dialled = await gateway.dial("user/1", timeout_s=5, caller_id="5511", caller_name="dueto calling")
            assert dialled.ok
            assert dialled.call is not None
            assert agent.calls == [dialled.unique_id]
            async with asyncio.timeout(10):
                await agent.over.wait()


async def test_without_an_inbound_socket_no_call_is_placed_and_the_error_says_what_is_missing() -> None:
    async with Gateway(settings(), agent=Listens()) as gateway:
        with pytest.raises(NotCapable, match=r"\[switch\] address"):
            await gateway.dial("user/1")


async def test_a_gateway_that_comes_back_on_the_same_address_takes_its_call_back() -> None:
    """The switch's dialplan keeps the caller, says nothing of a fall-back, and the new gateway asks for him."""
    first, second, noted, again = Listens(), Listens(), Noted(), Noted()
    async with switch_with_socket() as (switch, address):
        given = settings(switch={"address": address, "password": PASSWORD})
        async with Gateway(given, agent=first, journal=noted) as gateway:
            await noted.until("switch_up")
            control = gateway.desk.house.whereabouts.control
            switch._control, switch._media_url, switch._secret = control, url(gateway), SECRET
            switch._dialplan = [("sleep", "60000")]
            call = await switch.place(Caller())
            await noted.until("paired")
            ports = {"control": {"listen": f"127.0.0.1:{gateway.control_port}"}}
            assert gateway.link is not None
            await gateway.link.aclose()  # it dies without a word
        media = {"public_url": f"ws://127.0.0.1:{gateway.media_port}", "listen": f"127.0.0.1:{gateway.media_port}"}
        given = settings(switch={"address": address, "password": PASSWORD}, media=media, **ports)
        async with Gateway(given, agent=second, journal=again) as gateway:
            await again.until("taken_back")
            async with asyncio.timeout(10):
                await second.started.wait()
            assert second.calls == [call.unique_id]
            call.hang_up()
            await call.done()
            async with asyncio.timeout(10):
                await second.over.wait()


def printed() -> list[tuple[str, str]]:
    """What the printed dialplan does after `socket`, but for the api calls in it, which are the switch's own."""
    given = settings(control={"listen": "127.0.0.1:8022"}, media={"listen": "127.0.0.1:8085"})
    lines = [(name, data) for _, name, data in actions(dialplan_xml(given, media_only=False))]
    at = next(number for number, (name, _) in enumerate(lines) if name == "socket")
    return [(name, data) for name, data in lines[at + 1 :] if "${" not in data]


@pytest.mark.parametrize("trouble", ["nobody there", "full", "draining", "dies in mid-call"])
async def test_whatever_becomes_of_the_gateway_the_caller_hears_something(trouble: str) -> None:
    noted = Noted()

    async def script(line: Line) -> None:
        await line.hears_speech(10.0)

    given = settings(control={"listen": "127.0.0.1:0", "max_calls": 1}, call={"drain_s": 0.0})
    async with Gateway(given, agent=Listens(), journal=noted) as gateway:
        lines = printed()
        assert lines[0] == ("set", "dueto_state=fallback")
        assert lines[-1][0] == "hangup"
        control = "127.0.0.1:9" if trouble == "nobody there" else f"127.0.0.1:{gateway.control_port}"
        media_url = "" if trouble == "nobody there" else url(gateway)
        async with Switch(control, media_url, secret=SECRET, dialplan=lines) as switch:
            if trouble == "full":
                await switch.place(Caller())
                await noted.until("paired")
            if trouble == "draining":
                gateway.desk.draining = True
            call: SimCall = await switch.place(Caller(script=script))
            if trouble == "dies in mid-call":
                await noted.until("paired")
                for session in gateway.desk:
                    session.abort()
            await call.done()  # raises NotHeard if nothing was heard
            assert call.channel.variables["dueto_state"] == "fallback"
