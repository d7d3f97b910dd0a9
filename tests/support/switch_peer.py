"""The switch's end of a control connection, in the hands of the test: it says exactly what it is told to say."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping

from tests.wire.recordings import blocks, streams

from dueto.sim.pipes import PipeFaults, pipe
from dueto.wire.esl.switch_end import (
    CommandBlock,
    CommandDecoder,
    encode_api_response,
    encode_event,
    encode_goodbye,
    encode_linger_notice,
    encode_reply,
)

RECORDED_ID = "779bea1c-6dce-45dd-be52-dc01733920a2"
"The channel of recording 01-normal-linger."
PATIENCE_S = 10.0
"How long a test waits for what must come. Nothing is measured by it."


def recorded_blocks(folder: str, unique_id: str = RECORDED_ID) -> list[bytes]:
    """Return the switch's blocks of a recording (connection 1), told of the channel `unique_id`."""
    stream = streams(folder)[1]
    own = next(blocks(stream))[0].partition(b"\nUnique-ID: ")[2].partition(b"\n")[0]
    assert len(own) == len(unique_id)
    return [head + b"\n\n" + body for head, body in blocks(stream.replace(own, unique_id.encode()))]


def recorded_events(folder: str, name: str, unique_id: str = RECORDED_ID) -> list[bytes]:
    """Return the events of a recording whose Event-Name (of CUSTOM ones: whose subclass) is `name`."""
    needle = b"\nEvent-Name: " + name.encode() + b"\n"
    subclass = b"\nEvent-Subclass: " + name.replace(":", "%3A").encode() + b"\n"
    found = [block for block in recorded_blocks(folder, unique_id) if b"text/event-plain" in block]
    return [block for block in found if needle in b"\n" + block or subclass in b"\n" + block]


CONNECT_ANSWER = recorded_blocks("01-normal-linger")[0]


class SwitchPeer:
    """One connection from the switch to an engine. Commands are read one by one and answered by the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.unique_id = RECORDED_ID
        self.received = b""
        "Every byte the engine has said."
        self._reader = reader
        self._writer = writer
        self._decoder = CommandDecoder()
        self._commands: list[CommandBlock] = []

    @classmethod
    async def dial(cls, port: int, host: str = "127.0.0.1") -> "SwitchPeer":
        """Connect as the `socket` application does: the gateway speaks first."""
        return cls(*await asyncio.open_connection(host, port))

    @classmethod
    def wire_up(cls, protocol: asyncio.Protocol, faults: PipeFaults | None = None) -> "SwitchPeer":
        """Connect to `protocol` by memory pipes, on whatever loop runs."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        near = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = pipe(near, protocol, faults=faults)
        return cls(reader, asyncio.StreamWriter(transport, near, reader, loop))

    async def open(self, answer: bytes = CONNECT_ANSWER) -> list[CommandBlock]:
        """Answer the opening as the switch does, until `event plain ...` is answered; return its commands."""
        opening: list[CommandBlock] = []
        while not opening or opening[-1].word != "event":
            opening.append(await self.command())
            self.answer(opening[-1], connect_answer=answer)
        return opening

    def answer(self, command: CommandBlock, *, connect_answer: bytes = CONNECT_ANSWER) -> None:
        """Say what a friendly switch says to `command`."""
        match command.word:
            case "connect":
                self.send(connect_answer)
            case "linger":
                self.reply(f"+OK will linger {command.rest} seconds")
            case "myevents":
                self.reply("+OK Events Enabled")
            case "event":
                self.reply("+OK event listener enabled plain")
            case "api":
                self.api_response("+OK Success\n")
            case "exit":
                self.reply("+OK bye")
                self.send(encode_goodbye(self.unique_id))
                self._writer.write_eof()
            case _:
                self.reply("+OK")

    async def command(self) -> CommandBlock:
        """Wait for the next command. Raises: EOFError: there is none; the engine has closed."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._commands:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError("the engine closed the connection")
                self.received += data
                self._commands += self._decoder.feed(data)
        return self._commands.pop(0)

    async def closed(self) -> bytes:
        """Wait until the engine has closed, by FIN or RST, and return what it still said."""
        rest = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while data := await self._reader.read(65536):
                    rest += data
            except ConnectionError:
                pass
        self.received += rest
        return rest

    def send(self, *data: bytes) -> None:
        """Write in one piece."""
        self._writer.write(b"".join(data))

    def reply(self, text: str, **headers: str) -> None:
        """Answer a command."""
        self.send(encode_reply(text, headers.items()))

    def api_response(self, output: str) -> None:
        """Answer an `api`."""
        self.send(encode_api_response(output.encode()))

    def goodbye(self) -> None:
        """Say the last notice, and close our sending side."""
        self.send(encode_goodbye(self.unique_id))
        self._writer.write_eof()

    def lingers(self) -> bytes:
        """The notice that the channel is gone and the socket stays."""
        return encode_linger_notice(self.unique_id, "sofia/internal/1001@127.0.0.1:5841", 10)

    def event(self, name: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
        """A small event of this channel."""
        given = {"Event-Name": name, "Unique-ID": self.unique_id} | dict(headers or {})
        return encode_event(given.items(), body)

    def started(self, command: CommandBlock) -> bytes:
        """The CHANNEL_EXECUTE of a sendmsg that was received."""
        return self.event("CHANNEL_EXECUTE", _application(command))

    def completed(self, command: CommandBlock, response: str = "_none_") -> bytes:
        """The CHANNEL_EXECUTE_COMPLETE of a sendmsg that was received."""
        return self.event("CHANNEL_EXECUTE_COMPLETE", _application(command) | {"Application-Response": response})

    def end(self) -> None:
        """Close our sending side without a word."""
        self._writer.write_eof()

    def stop_reading(self) -> None:
        """Leave what the engine says in its buffers."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def reset(self) -> None:
        """End the connection by RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Hang up the line, whatever state it is in."""
        self._writer.transport.abort()


def _application(command: CommandBlock) -> dict[str, str]:
    return {
        "Application": command.headers["execute-app-name"],
        "Application-Data": command.headers.get("execute-app-arg", ""),
        "Application-UUID": command.headers["event-uuid"],
    }


async def eventually(condition: Callable[[], bool], changed: asyncio.Event) -> None:
    """Wait until `condition` holds; `changed` is set whenever it may have become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            changed.clear()
            await changed.wait()
