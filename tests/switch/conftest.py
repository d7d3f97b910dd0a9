"""A switch to test against: the one that DUETO_SWITCH names, or a simulated one on real sockets.

    DUETO_SWITCH=127.0.0.1:8021 DUETO_SWITCH_PASSWORD=... pytest tests/switch

DUETO_SWITCH_GATEWAY: the address of this machine as the switch sees it (127.0.0.1). `unicast` wants both as IPv4.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.support.running import Listening, Running, running

from dueto.call import Agent, CallRules, Destination
from dueto.call.dialects import DialectFinder
from dueto.call.house import Whereabouts
from dueto.call.placing import mint
from dueto.errors import CommandRefused
from dueto.legs.esl_inbound import InboundLink
from dueto.legs.unicast import UnicastDoor, UnicastOptions
from dueto.sim import Access, AudioDialect, Switch
from dueto.wire.esl import Event
from dueto.wire.media import AUDIO_STREAM_BINARY, UNICAST

PASSWORD = "the tests' own"
ANSWERS = "loopback/m:^:answer^park/default/inline"
ECHOES = "loopback/m:^:answer^echo/default/inline"
BUSY = "loopback/hangup:USER_BUSY/default/inline"
RINGS = "loopback/m:^:ring_ready^sleep:60000/default/inline"
DESTINATIONS = {
    "answers": Destination("answers", ANSWERS),
    "busy": Destination("busy", BUSY),
    "rings": Destination("rings", RINGS),
}


@dataclass
class Scene:
    """A gateway, a switch's inbound socket, and the calls that were placed."""

    gateway: Running
    link: InboundLink
    address: str
    number: str = field(default_factory=lambda: f"dueto-{mint()[:8]}")
    "Who calls, on every channel that these tests cause: by it they are found again."

    async def place(self, dial: str = ANSWERS) -> str:
        """Place a call whose one side is connected to the gateway; return its Unique-ID."""
        unique_id = mint()
        variables = f"origination_uuid={unique_id},origination_caller_id_number={self.number}"
        argument = f"{{{variables}}}{dial} &socket('{self.address} async full')"
        assert await self.link.job("originate", argument) == f"+OK {unique_id}"
        return unique_id

    def gone(self, unique_id: str) -> Awaitable[Event]:
        """Resolves with the CHANNEL_HANGUP_COMPLETE of a channel; ask before it goes."""
        found: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

        def look(event: Event) -> None:
            if event.name == "CHANNEL_HANGUP_COMPLETE" and not found.done():
                found.set_result(event)

        self.link.watch(unique_id, look)
        return asyncio.wait_for(found, 15)

    async def channels(self) -> list[str]:
        """The channels there are because of these tests."""
        return [row.unique_id for row in await self.link.channels() if row.caller_number == self.number]

    async def remove_all(self) -> None:
        """Remove every channel that was caused here, by us or by the gateway; raise if one can't be removed."""
        async with asyncio.timeout(15):
            while left := await self.channels():
                going = []
                for unique_id in left:
                    gone = asyncio.ensure_future(self.gone(unique_id))
                    try:
                        await self.link.api("uuid_kill", unique_id)
                        going.append(gone)
                    except CommandRefused:  # it went with the one before it
                        gone.cancel()
                await asyncio.gather(*going)


@asynccontextmanager
async def scene(
    agent: Agent, *, engine: str = "native", unicast: bool = False, simulated: AudioDialect | None = None
) -> AsyncIterator[Scene]:
    """Stand a gateway up, and a link to the switch. `unicast`: no audio module has part in it.

    `simulated`: the audio module is found out; where the switch is no real one, it has this one.
    """
    named, host = os.environ.get("DUETO_SWITCH", ""), os.environ.get("DUETO_SWITCH_GATEWAY", "127.0.0.1")
    password = os.environ.get("DUETO_SWITCH_PASSWORD", PASSWORD)
    where = Whereabouts()
    holder = _Later()
    rules = CallRules(stream_start="gateway", rate_hz=8000, public_url="ws://set.below")
    dialect, door = AUDIO_STREAM_BINARY, None
    if unicast:
        switch_address = named.rpartition(":")[0] or "127.0.0.1"
        dialect, door = UNICAST, UnicastDoor(UnicastOptions(switch_address, host, ports=(41000, 44999)))
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running(
                agent,
                engine=engine,
                rules=rules,
                dialect=dialect,
                destinations=DESTINATIONS,
                whereabouts=where,
                switch=holder,
                unicast=door,
                finder=DialectFinder() if simulated is not None else None,
            )
        )
        where.control = f"{host}:{gateway.control_port}"
        rules = replace(gateway.desk.house.rules, public_url=f"ws://{host}:{gateway.media_port}")
        gateway.desk.house = replace(gateway.desk.house, rules=rules)
        if not named:
            has = simulated or "audio_stream-binary"
            switch = await stack.enter_async_context(Switch(control="", media_url="", dialect=has))
            named = f"127.0.0.1:{await switch.listen_inbound(access=Access(password))}"
        switch_host, _, port = named.rpartition(":")
        link = holder.link = InboundLink(switch_host, int(port), password)
        link.start()
        stack.push_async_callback(link.aclose)
        async with asyncio.timeout(10):
            await link.wait_up()
        placed = Scene(gateway, link, where.control)
        stack.push_async_callback(placed.remove_all)
        yield placed


class _Later:
    """A link that is made after the desk that uses it."""

    link: InboundLink

    def __getattr__(self, name: str) -> object:
        return getattr(self.link, name)


@pytest.fixture
def listening() -> Listening:
    """An agent that only listens."""
    return Listening()
