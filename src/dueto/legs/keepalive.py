"""How a leg finds out that the machine at its other end is gone: nobody sends FIN when the power fails."""

import contextlib
import socket

IDLE_S, EVERY_S, TIMES = 20, 5, 4
"A connection on which nothing moves is asked after `IDLE_S`, then every `EVERY_S`; after `TIMES` silences it is lost."
UNANSWERED_MS = 60_000
"What we sent and nobody acknowledged ends the connection then; the kernel's own patience is a quarter of an hour."
_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", IDLE_S),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", EVERY_S),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", TIMES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNANSWERED_MS),
)


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel watch `sock`: a dead peer becomes an ordinary loss within about 40 s. What it can't do is left.

    What a listening socket is told holds for every connection that it accepts from then on (`tcp(7)`; measured), and
    costs those nothing.
    """
    for level, name, value in _OPTIONS:
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                sock.setsockopt(level, getattr(socket, name), value)
