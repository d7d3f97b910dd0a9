"""A desk with both doors open on loopback, and a simulated switch that knows the way there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.contract.engines import ENGINES

from dueto.call import Agent, Call, CallEvent, CallRules, Desk, Destination, House
from dueto.call.events import HungUp
from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.media_server import MediaServer
from dueto.sim import Switch
from dueto.wire.media import AUDIO_STREAM_BINARY, Dialect

SECRET = "a secret of the tests"
PATIENCE_S = 30
"How long the slowest machine may take until something comes that comes at once on an idle one."


@dataclass
class Listening:
    """An agent that only listens, and what it was told."""

    events: list[CallEvent] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, call: Call) -> None:
        self.calls.append(call)
        self.started.set()
        async for event in call.events():
            self.events.append(event)
            async with self.changed:
                self.changed.notify_all()
            if isinstance(event, HungUp):
                self.ended.set()

    async def saw(
        self, kind: type[CallEvent], *, times: int = 1, where: Callable[[CallEvent], bool] = lambda event: True
    ) -> CallEvent:
        """Wait until `times` events of `kind` came; return the last of them."""

        def found() -> list[CallEvent]:
            return [event for event in self.events if isinstance(event, kind) and where(event)]

        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(lambda: len(found()) >= times)
        return found()[times - 1]


@dataclass
class Running:
    """What a test may look at."""

    desk: Desk
    control_port: int
    media_port: int
    journal: list[tuple[str, str, Mapping[str, object]]]
    noted: asyncio.Event

    def names(self, unique_id: str | None = None) -> list[str]:
        """The names of what was journalled, in order."""
        return [name for uid, name, _ in self.journal if unique_id in (None, uid)]

    def fields(self, name: str) -> Mapping[str, object]:
        """The fields of the first entry called `name`."""
        return next(fields for _, entry, fields in self.journal if entry == name)

    async def until_noted(self, name: str, *, times: int = 1) -> Mapping[str, object]:
        """Wait until `name` was journalled so often; return the fields of the first time."""
        async with asyncio.timeout(PATIENCE_S):
            while self.names().count(name) < times:
                self.noted.clear()
                await self.noted.wait()
        return self.fields(name)

    def switch(self, **more: Any) -> Switch:
        """A simulated switch that dials this desk."""
        url = f"ws://127.0.0.1:{self.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?rate=16000&mix=mono&token={{token}}"
        given = {"control": f"127.0.0.1:{self.control_port}", "media_url": url, "secret": SECRET} | more
        return Switch(**given)


@contextlib.asynccontextmanager
async def running(
    agent: Agent,
    *,
    engine: str = "native",
    rules: CallRules | None = None,
    dialect: Dialect = AUDIO_STREAM_BINARY,
    destinations: Mapping[str, Destination] | None = None,
    **house_fields: Any,
) -> AsyncIterator[Running]:
    """Open both doors on free ports; at the end nothing may be left of any call."""
    journal: list[tuple[str, str, Mapping[str, object]]] = []
    noted = asyncio.Event()

    def note(unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        journal.append((unique_id, event, dict(fields)))
        noted.set()

    house = House(
        agent=agent,
        rules=replace(rules or CallRules(), secret=SECRET),
        dialect=dialect,
        destinations=destinations or {},
        journal=note,
        **house_fields,
    )
    desk = Desk(house)
    control = ENGINES[engine](desk, OutboundOptions())
    media = MediaServer(desk, house.path, dialect)
    control_port = await control.start("127.0.0.1", 0)
    media_port = await media.start("127.0.0.1", 0)
    try:
        yield Running(desk, control_port, media_port, journal, noted)
    finally:
        await control.stop_listening()
        await media.stop_listening()
        await desk.aclose()
        await control.aclose()
    assert not [name for name in (entry[1] for entry in journal) if name == "task_failed"], journal
