"""A control connection that one process accepts and another serves.

The accepting one says `connect` and only looks at the answer (MSG_PEEK): whoever gets the socket finds every byte of it
still there. What it looks for is a mark that a gateway left on the channel, so that a channel that dials again meets
the process that has its call.
"""

import asyncio
import contextlib
import re
import socket
from typing import Final
from urllib.parse import unquote

from dueto.errors import Refused
from dueto.wire.esl import Connect

PEEK_BYTES: Final = 1 << 20
"An answer to `connect` is 7 kB, more with long variables (100 kB of them are 306 kB after encoding)."
ANSWER_S: Final = 5.0
AGAIN_S: Final = (0.002, 0.1)
"How long until an answer that came in part is looked at again: at first, and doubled up to. (Nothing tells of more.)"


async def mark_of(sock: socket.socket, name: str) -> str:
    """Say `connect` on a connection just accepted and return the channel variable `name` from the answer; empty: unset.

    Nothing is taken from the socket, which has to be non-blocking. Cancelling leaves it as it is.
    Raises: Refused: the other side is gone, silent, or no switch; the reason fits a metric.
    """
    loop = asyncio.get_running_loop()
    again_s, longest_s = AGAIN_S
    try:
        async with asyncio.timeout(ANSWER_S):
            await loop.sock_sendall(sock, Connect().encode())
            while True:
                await _readable(loop, sock)
                answer = sock.recv(PEEK_BYTES, socket.MSG_PEEK)
                end = answer.find(b"\n\n")
                if end >= 0:
                    return _variable(answer[:end], name)
                if not answer or len(answer) == PEEK_BYTES:
                    raise Refused("protocol_error", "no answer to `connect`")
                await asyncio.sleep(again_s)
                again_s = min(2 * again_s, longest_s)
    except TimeoutError:
        raise Refused("connect_timeout", f"no answer to `connect` within {ANSWER_S} s") from None
    except OSError as error:
        raise Refused("connection_lost", str(error)) from None


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock.fileno(), note)
    try:
        await ready
    finally:
        with contextlib.suppress(ValueError, OSError):
            loop.remove_reader(sock.fileno())


def _variable(block: bytes, name: str) -> str:
    """The value of `variable_NAME`: lines are cut first, then the value is unquoted."""
    found = re.search(rb"^variable_" + re.escape(name.encode()) + rb": ([^\n]*)$", block, re.MULTILINE)
    return unquote(found[1].decode("ascii", "replace")) if found else ""
