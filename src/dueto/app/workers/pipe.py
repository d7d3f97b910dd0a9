"""What parent and worker say to each other: JSON lines over a socket pair; connections over another, one at a time."""

import asyncio
import socket
from typing import Any, Final

import msgspec

MAX_LINE: Final = 8 << 20
"A worker's metrics are some 50 kB."
TAG: Final = b"leg"


class Pipe:
    """One end of the lines. `read` is None at the end of the other side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> "Pipe":
        """Stand on `sock`, which belongs to it from now on."""
        return cls(*await asyncio.open_connection(sock=sock, limit=MAX_LINE))

    def write(self, **fields: Any) -> None:
        """Say something; nobody waits for it."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(fields) + b"\n")

    async def read(self) -> dict[str, Any] | None:
        """What the other side says next."""
        try:
            line = await self._reader.readline()
            return msgspec.json.decode(line, type=dict[str, Any]) if line.endswith(b"\n") else None
        except (OSError, ValueError, msgspec.DecodeError):
            return None

    def close(self) -> None:
        """Say no more."""
        self._writer.close()


def pass_on(pair: socket.socket, connection: socket.socket) -> None:
    """Give a connection to the process at the other end. Raises: OSError: it is gone, or too far behind."""
    socket.send_fds(pair, [TAG], [connection.fileno()])


def take(pair: socket.socket) -> socket.socket | None:
    """Take a connection that was passed on; None: nothing is there. Raises: EOFError: nothing will come any more."""
    try:
        data, fds, _, _ = socket.recv_fds(pair, len(TAG), 1)
    except BlockingIOError:
        return None
    if not data:
        raise EOFError
    if not fds:
        return None
    connection = socket.socket(fileno=fds[0])
    connection.setblocking(False)
    return connection
