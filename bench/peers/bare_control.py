"""The limit of a control leg: a bare asyncio.Protocol (on uvloop) that frames the blocks and only finds six headers.

It decodes nothing, refuses nothing, keeps nothing. It says what must be said for the switch to send events, notes a
hangup's time the moment it has found the name, and lets go of a channel that is gone.
"""

import asyncio
from typing import cast

import uvloop
from _line import CONTROL_HEADERS, READY, Notes, answer_until_the_end, say_ports

OPENING = b"connect\n\nlinger 10\n\nmyevents\n\nevent plain CHANNEL_HOLD CHANNEL_UNHOLD DTMF\n\n"
NEEDLES = tuple(f"\n{name}: ".encode() for name in CONTROL_HEADERS)


class BareControl(asyncio.Protocol):
    """One control connection."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._held = b""
        self._known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derive from nothing of asyncio's
        self._transport.write(OPENING)

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        at = 0
        while (blank := data.find(b"\n\n", at)) >= 0:
            length = data.find(b"Content-Length: ", at, blank)
            stop = blank + 2 + (int(data[length + 16 : data.find(b"\n", length)]) if length >= 0 else 0)
            if stop > len(data):
                break
            if data.find(b"text/event-plain", at, blank) >= 0:
                self._event(data[blank + 1 : stop])
            elif not self._known:
                self._known = True
                start = data.find(b"\nUnique-ID: ", at) + 12
                self._transport.write(b"api %s\n\n" % READY.format(data[start : start + 36].decode()).encode())
            elif data.find(b"Content-Disposition: linger", at, blank) >= 0:
                self._transport.write(b"exit\n\n")
            at = stop
        self._held = data[at:]

    def _event(self, content: bytes) -> None:
        found = []
        for needle in NEEDLES:
            start = content.find(needle)
            if start >= 0:
                start += len(needle)
                found.append(content[start : content.find(b"\n", start)])
        if found and found[0] == b"CHANNEL_HANGUP":
            self._notes.hung_up(found[1].decode())
        self._notes.events += 1


async def main() -> None:
    """Serve until whoever measures is gone."""
    notes = Notes()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BareControl(notes), "127.0.0.1", 0, backlog=1024)
    say_ports(control=server.sockets[0].getsockname()[1])
    await answer_until_the_end(notes)


uvloop.run(main())
