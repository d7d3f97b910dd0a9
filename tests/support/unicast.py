"""A desk whose streams come over `unicast`, and a simulated switch, on one network in memory and the virtual clock."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tests.support.virtual import Virtual, virtual_desk

from dueto.call import Agent, CallRules
from dueto.call.house import Whereabouts
from dueto.legs.unicast import UnicastDoor, UnicastOptions
from dueto.sim import MemoryNetwork, Switch
from dueto.wire.media import UNICAST

RULES = CallRules(stream_start="gateway", rate_hz=8000)


@dataclass
class OverUnicast:
    """What a test may look at."""

    desk: Virtual
    door: UnicastDoor
    network: MemoryNetwork

    def switch(self, **more: Any) -> Switch:
        """A switch without an audio module."""
        return self.desk.switch(**({"media_url": "", "record": True} | more))


@contextlib.asynccontextmanager
async def unicast_desk(
    agent: Agent,
    *,
    options: UnicastOptions | None = None,
    network: MemoryNetwork | None = None,
    rules: CallRules = RULES,
    empty: bool = True,
    **house_fields: Any,
) -> AsyncIterator[OverUnicast]:
    """Stand a desk up on the running virtual loop. At the end it holds no port, and `empty`: nobody has one."""
    network = MemoryNetwork() if network is None else network
    loop = asyncio.get_running_loop()
    door = UnicastDoor(options or UnicastOptions(), open_datagrams=network.open, clock=loop.time)
    given: dict[str, Any] = {"whereabouts": Whereabouts("127.0.0.1:8022")} | house_fields
    async with virtual_desk(
        agent, rules=replace(rules), dialect=UNICAST, network=network, unicast=door, **given
    ) as virtual:
        yield OverUnicast(virtual, door, network)
    assert len(door) == 0
    assert not empty or len(network) == 0


def sweep(rate_hz: int, seconds: float, from_hz: float = 300.0, to_hz: float = 2500.0, level: float = 8000.0) -> bytes:
    """Return a rising tone of constant level, L16: every moment of it has a pitch of its own."""
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    phase = 2 * np.pi * (from_hz * t + (to_hz - from_hz) * t * t / (2 * seconds))
    return (level * np.sin(phase)).astype("<i2").tobytes()


def samples(pcm: bytes) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return L16 as numbers."""
    return np.frombuffer(pcm, "<i2").astype(np.float64)
