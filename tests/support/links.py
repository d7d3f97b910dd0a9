"""Inbound event sockets for tests: a link to a simulated switch in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from dueto.legs.esl_inbound import InboundLink
from dueto.sim import Access, Faults, Switch, pipe
from dueto.sim.faults import NO_FAULTS

PASSWORD = "open sesame"


def link_to(switch: Switch, *, password: str = PASSWORD, faults: Faults = NO_FAULTS, **more: Any) -> InboundLink:
    """A link, not started yet, whose every connection is a pipe to `switch`."""

    async def connect(protocol: asyncio.Protocol) -> None:
        pipe(protocol, switch.inbound(Access(PASSWORD), faults))

    return InboundLink("switch", 8021, password, connect=connect, **more)


@contextlib.asynccontextmanager
async def linked(switch: Switch, **more: Any) -> AsyncIterator[InboundLink]:
    """A link that stands."""
    link = link_to(switch, **more)
    link.start()
    try:
        async with asyncio.timeout(10):
            await link.wait_up()
        yield link
    finally:
        await link.aclose()
