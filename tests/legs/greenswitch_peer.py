"""A scripted switch for the greenswitch tests, and those who are told what the engine hears."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.greenswitch_engine import GreenswitchServer
from dueto.legs.ports import ControlLeg
from dueto.wire.esl import Event
from dueto.wire.esl.switch_end import (
    CommandBlock,
    CommandDecoder,
    encode_api_response,
    encode_connect_answer,
    encode_event,
    encode_goodbye,
    encode_reply,
)

PATIENCE_S = 20.0
"What a test waits at most for something that must come."


def answer(unique_id: str, *, name: str = "Alice", control: str = "full") -> bytes:
    """The answer to `connect`."""
    headers = [
        ("Event-Name", "CHANNEL_DATA"),
        ("Channel-Name", f"sofia/internal/{unique_id}"),
        ("Caller-Caller-ID-Name", name),
        ("Caller-Caller-ID-Number", "1001"),
        ("Unique-ID", unique_id),
        ("variable_uuid", unique_id),
    ]
    return encode_connect_answer(headers, control=control)


def event(name: str, unique_id: str, body: bytes = b"", **more: str) -> bytes:
    """An event of a channel; in the names of headers `_` stands for a dash and `__` for itself."""
    headers = [("Event-Name", name), ("Unique-ID", unique_id)]
    named = ((key.replace("__", "\0").replace("_", "-").replace("\0", "_"), value) for key, value in more.items())
    return encode_event([*headers, *named], body)


def _agree(command: CommandBlock) -> bytes:
    return encode_reply("+OK")


class Peer:
    """The switch's end of one connection. Answers like a switch unless a test does it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, unique_id: str) -> None:
        self.unique_id = unique_id
        self.commands: list[CommandBlock] = []
        self.name = "Alice"
        self.answers: dict[str, Callable[[CommandBlock], bytes]] = {
            "connect": lambda command: answer(unique_id, name=self.name),
            "api": lambda command: encode_api_response(b"+OK\n"),
            "exit": lambda command: encode_reply("+OK bye") + encode_goodbye(unique_id),
        }
        "How a command is answered, by its first word; everything else says +OK. Empty: not at all."
        self.ended = asyncio.Event()
        self._reader, self._writer = reader, writer
        self._changed = asyncio.Condition()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @classmethod
    async def dial(cls, port: int, unique_id: str = "a-leg", **answers: Callable[[CommandBlock], bytes]) -> "Peer":
        """Connect, as `socket` in the dialplan does."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer = cls(reader, writer, unique_id)
        peer.answers |= answers
        return peer

    def send(self, data: bytes) -> None:
        """Write to the engine."""
        self._writer.write(data)

    def event(self, name: str, body: bytes = b"", **more: str) -> None:
        """Write an event of this channel."""
        self.send(event(name, self.unique_id, body, **more))

    def hang_up(self) -> None:
        """The end of a channel, without the goodbye."""
        self.event("CHANNEL_HANGUP", Hangup_Cause="NORMAL_CLEARING")
        self.event("CHANNEL_HANGUP_COMPLETE", Hangup_Cause="NORMAL_CLEARING")

    async def got(self, word: str, *, times: int = 1) -> CommandBlock:
        """Wait until the `times`th command with this first word is here."""

        def found() -> list[CommandBlock]:
            return [command for command in self.commands if command.word == word]

        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= times)
        return found()[times - 1]

    async def opened(self) -> None:
        """Wait until the engine said its whole opening."""
        await self.got("event")

    def close(self) -> None:
        """Close our end after what was written."""
        self._writer.close()

    def reset(self) -> None:
        """Break off."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """End the test's end."""
        self._task.cancel()
        self._writer.transport.abort()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        decoder = CommandDecoder()
        try:
            while data := await self._reader.read(65536):
                for command in decoder.feed(data):
                    respond = self.answers.get(command.word, _agree)
                    self.send(respond(command))
                    if command.word == "exit":
                        self._writer.close()
                    async with self._changed:
                        self.commands.append(command)
                        self._changed.notify_all()
        except OSError:
            pass
        finally:
            self.ended.set()


@dataclass
class Sink:
    """Listens to one leg."""

    seen: list[str] = field(default_factory=list)
    "Names of events, `lingering`, `closed`."
    events: list[Event] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    raises: frozenset[str] = frozenset()
    "Events whose handling fails."
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        self._note(event.subclass or event.name)
        self.events.append(event)
        if event.name in self.raises:
            raise RuntimeError(f"the sink can't take {event.name}")

    def control_lingering(self, leg: ControlLeg) -> None:
        self._note("lingering")

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        self.closed.append(reason)
        self._note("closed")

    async def saw(self, name: str, *, times: int = 1) -> None:
        """Wait until `name` was here so many times."""
        async with asyncio.timeout(PATIENCE_S):
            while self.seen.count(name) < times:
                self.changed.clear()
                await self.changed.wait()

    def _note(self, name: str) -> None:
        self.seen.append(name)
        self.changed.set()


@dataclass
class Door:
    """Where legs report. Attaches a sink at once, unless told not to."""

    attaches: bool = True
    sinks: dict[str, Sink] = field(default_factory=dict)
    refusals: list[tuple[str, str, str]] = field(default_factory=list)
    legs: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    refused_one: asyncio.Event = field(default_factory=asyncio.Event)

    def control_came(self, leg: ControlLeg) -> None:
        if self.attaches:
            leg.attach(self.sinks.setdefault(leg.unique_id, Sink()))
        self.legs.put_nowait(leg)

    def refused(self, leg: str, reason: str, peer: str) -> None:
        self.refusals.append((leg, reason, peer))
        self.refused_one.set()

    async def leg(self) -> Any:
        """Wait for the next leg."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.legs.get()

    async def refusal(self) -> tuple[str, str, str]:
        """Wait for a refusal."""
        async with asyncio.timeout(PATIENCE_S):
            await self.refused_one.wait()
        return self.refusals[-1]


@dataclass
class Engine:
    """A running engine and the way to it."""

    server: GreenswitchServer
    door: Door
    port: int
    faults: list[Mapping[str, Any]]
    "What reached the loop's exception handler; a test that expects some takes them out."
    peers: list[Peer] = field(default_factory=list)

    async def call(
        self, unique_id: str = "a-leg", **answers: Callable[[CommandBlock], bytes]
    ) -> tuple[Peer, Any, Sink]:
        """One call, its opening said: the switch's end, the leg, and its sink."""
        peer = await self.dial(unique_id, **answers)
        leg = await self.door.leg()
        await peer.opened()
        return peer, leg, self.door.sinks.setdefault(unique_id, Sink())

    async def dial(self, unique_id: str = "a-leg", **answers: Callable[[CommandBlock], bytes]) -> Peer:
        """A connection, and nothing awaited."""
        peer = await Peer.dial(self.port, unique_id, **answers)
        self.peers.append(peer)
        return peer


@asynccontextmanager
async def engine(
    options: OutboundOptions | None = None, *, interval_s: float = 0.1, attaches: bool = True
) -> AsyncIterator[Engine]:
    """Run the engine on a free port. At the end nothing may be left, and nothing may have failed unnoticed."""
    faults: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    door = Door(attaches)
    server = GreenswitchServer(door, options or OutboundOptions(), event_loop_interval_s=interval_s)
    running = Engine(server, door, await server.start("127.0.0.1", 0), faults)
    try:
        yield running
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await server.aclose()
        for peer in running.peers:
            await peer.aclose()
    assert not faults
    assert len(server) == 0
