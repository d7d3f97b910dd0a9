"""Ports on loopback that are free."""

import contextlib
import os
import socket


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody listens on."""
    for base in range(20_000 + os.getpid() % 10_000, 60_000, 50):
        with contextlib.ExitStack() as held:
            try:
                for port in range(base, base + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")
