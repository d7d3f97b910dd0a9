"""What the switch says in a measured call: bytes that a real one was recorded to say, with the call's id put in."""

import base64
import gzip
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CAPTURES = Path(__file__).parent.parent / "tests" / "captures"
WHOLE_CALL = "03a-dtmf-rfc2833-sipp"
"The recording that calls follow."
KINDS = ("CHANNEL_STATE", "CHANNEL_EXECUTE", "DTMF", "CHANNEL_HANGUP_COMPLETE")
"What a flood is made of: the mix of all recordings."


@dataclass(frozen=True, slots=True)
class Script:
    """What the switch says in one call."""

    unique_id: str
    connect_answer: bytes
    digits: tuple[bytes, ...]
    hangup: bytes
    ending: bytes
    "From CHANNEL_UNPARK to the notice that it lingers, in one piece."

    def renamed(self, unique_id: str) -> "Script":
        """Return the same call with another Unique-ID (of the same length: a UUID)."""
        old, new = self.unique_id.encode(), unique_id.encode()
        assert len(new) == len(old)
        return Script(
            unique_id,
            self.connect_answer.replace(old, new),
            tuple(block.replace(old, new) for block in self.digits),
            self.hangup.replace(old, new),
            self.ending.replace(old, new),
        )


@cache
def recorded_call() -> Script:
    """Return the call of `WHOLE_CALL`, under its own id."""
    blocks = _blocks(_streams(CAPTURES / WHOLE_CALL / "esl.bin.jsonl.gz")[1])
    events = [block for block in blocks if b"text/event-plain" in block]
    hangup = next(block for block in events if b"Event-Name: CHANNEL_HANGUP\n" in block)
    notice = next(block for block in blocks if b"Content-Disposition: linger" in block)
    return Script(
        unique_id=value(blocks[0], b"\nUnique-ID: ").decode(),
        connect_answer=blocks[0],
        digits=tuple(block for block in events if b"Event-Name: DTMF\n" in block),
        hangup=hangup,
        ending=b"".join(events[events.index(hangup) + 1 :]) + notice,
    )


@cache
def recorded_events(kinds: tuple[str, ...] = KINDS) -> tuple[bytes, ...]:
    """Return every event of these kinds in all recordings, in their order, as if it were of `recorded_call`."""
    own_id = recorded_call().unique_id.encode()
    names = tuple(b"Event-Name: %s\n" % kind.encode() for kind in kinds)
    found = []
    for path in sorted(CAPTURES.glob("*/esl.bin.jsonl.gz")):
        for stream in _streams(path).values():
            for block in _blocks(stream):
                its_id = value(block, b"\nUnique-ID: ")
                if b"text/event-plain" in block and any(name in block for name in names) and len(its_id) == len(own_id):
                    found.append(block.replace(its_id, own_id))
    return tuple(found)


def value(data: bytes, needle: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """Return what follows `needle` on its line; empty where it is not there."""
    at = data.find(needle, start, len(data) if stop is None else stop)
    return data[at + len(needle) : data.find(b"\n", at + len(needle))] if at >= 0 else b""


def _streams(path: Path) -> dict[int, bytes]:
    streams: defaultdict[int, bytes] = defaultdict(bytes)
    with gzip.open(path, "rt") as lines:
        for row in map(json.loads, lines):
            if row.get("dir") == "fs>gw" and "data" in row:
                streams[row["conn"]] += base64.b64decode(row["data"])
    return streams


def _blocks(stream: bytes) -> list[bytes]:
    """Cut a stream into header blocks with their bodies; half a one at its end is left out."""
    blocks = []
    while b"\n\n" in stream:
        head, _, rest = stream.partition(b"\n\n")
        size = sum(int(line[16:]) for line in head.split(b"\n") if line.startswith(b"Content-Length: "))
        blocks.append(head + b"\n\n" + rest[:size])
        stream = rest[size:]
    return blocks
