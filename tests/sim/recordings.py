"""The recordings of a real switch, read so that the simulated one can be held against them."""

import base64
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

from dueto.wire.esl import ApiResponse, ConnectAnswer, Decoder, DisconnectNotice, Event, Message, Reply

CAPTURES = Path(__file__).parent.parent / "captures"
TELLING = (
    "Event-Name",
    "Event-Subclass",
    "Application",
    "Application-Data",
    "Application-Response",
    "Hangup-Cause",
    "Answer-State",
    "Channel-State",
    "Channel-State-Number",
    "Channel-Call-State",
    "Original-Channel-Call-State",
    "DTMF-Digit",
    "DTMF-Duration",
    "DTMF-Source",
    "Job-Command",
    "Job-Command-Arg",
    "Job-Owner-UUID",
    "Unique-ID",
    "variable_originate_disposition",
    "variable_DIALSTATUS",
    "variable_hangup_cause",
    "variable_sip_hangup_disposition",
    "variable_endpoint_disposition",
)


@dataclass(frozen=True)
class Write:
    """One write of the recorded gateway."""

    at: float
    conn: int
    data: bytes


@dataclass(frozen=True)
class Block:
    """One block of the switch, with what identifies it."""

    at: float
    kind: str
    telling: tuple[tuple[str, str], ...]
    message: Message

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.kind} {dict(self.telling)}"


@dataclass(frozen=True)
class Recording:
    """What both sides of a scenario's control connections sent."""

    writes: tuple[Write, ...]
    opened: dict[int, float]
    blocks: dict[int, list[Block]]

    def unique_id(self, conn: int) -> str:
        """Return the channel a connection belonged to."""
        first = self.blocks[conn][0].message
        assert isinstance(first, ConnectAnswer)
        return first.channel.unique_id

    def events(self, conn: int, name: str) -> list[Event]:
        """Return a connection's events of one name."""
        return [block.message for block in self.blocks[conn] if block.kind == name]  # type: ignore[misc]

    def times(self, conn: int, name: str) -> list[float]:
        """Return when events of one name came."""
        return [block.at for block in self.blocks[conn] if block.kind == name]


def load(name: str) -> Recording:
    """Read the recording whose folder begins with `name` and a dash."""
    (folder,) = CAPTURES.glob(f"{name}-*")
    writes: list[Write] = []
    opened: dict[int, float] = {}
    decoders: dict[int, Decoder] = {}
    blocks: dict[int, list[Block]] = {}
    with gzip.open(folder / "esl.bin.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            conn, at = row["conn"], row["t"]
            if "data" not in row:
                opened.setdefault(conn, at)
            elif row["dir"] == "gw>fs":
                writes.append(Write(at, conn, base64.b64decode(row["data"])))
            else:
                messages = decoders.setdefault(conn, Decoder()).feed(base64.b64decode(row["data"]))
                blocks.setdefault(conn, []).extend(block(at, message) for message in messages)
    return Recording(tuple(writes), opened, blocks)


def texts(name: str) -> list[tuple[float, int, str]]:
    """Return what the recorded audio server said: time, connection number, text."""
    (folder,) = CAPTURES.glob(f"{name}-*")
    rows = map(json.loads, (folder / "ws.jsonl").read_text().splitlines())
    return [(row["t"], row["conn"], row["text"]) for row in rows if row["kind"] == "text" and row["dir"] == "gw>fs"]


def datagrams(name: str, conn: int) -> list[tuple[float, int, bytes]]:
    """Return what the switch sent over UDP for one control connection: time, size, content (of the first three)."""
    (folder,) = CAPTURES.glob(f"{name}-*")
    rows = map(json.loads, (folder / "udp.jsonl").read_text().splitlines())
    return [
        (row["t"], row["size"], base64.b64decode(row.get("data", "")))
        for row in rows
        if row["conn"] == conn and row["dir"] == "fs>gw"
    ]


def block(at: float, message: Message) -> Block:
    """Name a message and pick its telling headers; what differs by nature (ids made up, free text) stays out."""
    if isinstance(message, ConnectAnswer):
        return Block(at, "connect answer", _telling(message.channel), message)
    if isinstance(message, Event):
        pairs = _telling(message)
        body = message.body if message.name != "BACKGROUND_JOB" else ""
        return Block(at, message.name, (*pairs, *([("body", body)] if body else [])), message)
    if isinstance(message, Reply):
        return Block(at, "reply", (("text", _without_ids(message.text)),), message)
    if isinstance(message, ApiResponse):
        return Block(at, "api", (("output", _api(message.body)),), message)
    assert isinstance(message, DisconnectNotice)
    kind = "linger notice" if message.lingers else "goodbye"
    wanted = ("Controlled-Session-UUID", "Linger-Time")
    pairs = tuple((name, (message.find(name) or b"").decode()) for name in wanted)
    return Block(at, kind, (*pairs, ("body", message.body)), message)


def _telling(event: Event) -> tuple[tuple[str, str], ...]:
    pairs = [(name, event.get(name)) for name in TELLING if event.find(name) is not None]
    uuid = event.get("Application-UUID")
    if uuid and not _made_up(uuid):
        pairs.append(("Application-UUID", uuid))
    return tuple(pairs)


def _made_up(uuid: str) -> bool:
    """Whether the switch invented it; the recorded gateways' own are words, or count."""
    return len(uuid) == 36 and uuid.count("-") == 4 and not uuid.startswith("11111111-aaaa")


def _without_ids(text: str) -> str:
    head, mark, job = text.partition("Job-UUID: ")
    return head + mark + ("JOB" if _made_up(job) and not job.startswith("99999999") else job)


def _api(output: str) -> str:
    if output.startswith("UP 0 years"):
        return "status"
    return "UUID" if len(output) == 36 and output.count("-") == 4 else output
