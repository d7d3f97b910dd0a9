"""Where the switch's connections come in, and what becomes of one that there is no file descriptor for."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final

BACKLOG: Final = 1024
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ListeningSocket(socket.socket):
    """A listening socket that is never stuck with a connection it can't accept: that is taken all the same, and closed.

    The switch sees the end at once and goes on with its dialplan. Left where it is, the connection would keep the
    socket readable, and the loop busy with nothing else, while a caller waits for whoever closes a file (`accept(2)`:
    EMFILE). The descriptor for it is a spare one, kept open for that.
    """

    def __init__(self, bound: socket.socket, turned_away: Callable[[str], None]) -> None:
        """Take over `bound`, which listens. `turned_away` is told the address of whoever is."""
        super().__init__(bound.family, bound.type, bound.proto, fileno=bound.detach())
        self.setblocking(False)
        self._turned_away = turned_away
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises: BlockingIOError: there is none, or none more can be taken now. OSError."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _OUT_OF_FILES:
                raise
        self._turn_away()
        raise BlockingIOError(errno.EAGAIN, "no connection can be accepted now")

    def close(self) -> None:
        """Listen no more."""
        super().close()
        self._give_up_the_spare()

    def _turn_away(self) -> None:
        self._give_up_the_spare()
        with contextlib.suppress(OSError):  # gone meanwhile, or somebody else took the descriptor
            connection, peer = super().accept()
            connection.close()
            self._turned_away(str(peer[0]))
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_the_spare(self) -> None:
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)


async def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of `host` (empty: on all of the machine), on one port. Raises: OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a family that this machine's resolver knows and its kernel does not
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            chosen = port or (int(sockets[0].getsockname()[1]) if len(sockets) > 1 else 0)
            bound.bind((address[0], chosen, *address[2:]))
            bound.listen(BACKLOG)
        if not sockets:
            raise OSError(f"no address of {host!r} can be listened on")
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets
