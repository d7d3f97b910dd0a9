"""The recordings of a real switch, as bytes, and ways to cut them up."""

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

CAPTURES = Path(__file__).parent.parent / "captures"
FOLDERS = tuple(sorted(path.name for path in CAPTURES.iterdir() if path.is_dir()))


@cache
def streams(folder: str, direction: str = "fs>gw") -> dict[int, bytes]:
    """Return what went in one direction, by connection number, glued together."""
    found: defaultdict[int, bytes] = defaultdict(bytes)
    with gzip.open(CAPTURES / folder / "esl.bin.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            if row.get("dir") == direction and "data" in row:
                found[row["conn"]] += base64.b64decode(row["data"])
    return dict(found)


def all_streams(direction: str = "fs>gw") -> list[tuple[str, int]]:
    """Return folder and connection number of every stream that holds anything."""
    return [(folder, conn) for folder in FOLDERS for conn in streams(folder, direction)]


def blocks(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Cut a stream of the switch into header blocks and bodies, the slow and plain way, to hold the decoder against."""
    while stream:
        head, _, stream = stream.partition(b"\n\n")
        size = sum(int(line[16:]) for line in head.split(b"\n") if line.startswith(b"Content-Length: "))
        yield head, stream[:size]
        stream = stream[size:]


def with_crlf(stream: bytes) -> bytes:
    """Return the stream with CRLF in every header line, plain events' own ones too; lengths are counted anew."""
    out = b""
    for head, body in blocks(stream):
        if b"text/event-plain" in head:
            inner, blank, rest = body.partition(b"\n\n")
            body = (inner + blank).replace(b"\n", b"\r\n") + rest
            head = b"Content-Length: %d\nContent-Type: text/event-plain" % len(body)
        out += (head + b"\n\n").replace(b"\n", b"\r\n") + body
    return out


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut `data` at the given places."""
    places = [0, *sorted(cuts), len(data)]
    return (data[start:stop] for start, stop in pairwise(places))
