"""What goes between the pool and its processes: a length (4 bytes, big-endian), then that many bytes, both ways."""

import struct
from typing import BinaryIO, Final

LENGTH: Final = struct.Struct(">I")


def read(stream: BinaryIO) -> bytes | None:
    """Return the next message; None at the end, also in the middle of a message."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None


def write(stream: BinaryIO, body: bytes) -> None:
    """Send one message."""
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()
