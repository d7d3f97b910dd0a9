"""A lean load: calls over both legs with a real switch's recorded bytes, and every frame accounted for.

The simulated switch (`dueto.sim`) is the faithful one; this one exists to cost little, so that what is measured is the
server. It says what recording 03a says, with the id of each call put in, and plays the audio module's part on picows.
"""

import asyncio
import base64
import gzip
import json
import os
import struct
import time
import uuid
from array import array
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self, cast

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from dueto.wire.esl.switch_end import CommandDecoder, encode_goodbye, encode_reply
from dueto.wire.media.token import media_token

RECORDING = Path(__file__).parent.parent / "tests" / "captures" / "03a-dtmf-rfc2833-sipp" / "esl.bin.jsonl.gz"
RATE_HZ = 16000
FRAME_BYTES = 640
FRAME_S = 0.02
SLOTS = 20
"Calls are spread over the frame, a slot a millisecond: no two telephones tick together."
EVENT_TICK_S = 0.02
"The switch looks for events that often; what follows a hangup comes with its next look."
PATIENCE_S = 20.0
"How long a call may take to come up, its last frames to come back, and it to be let go. Nothing is measured by it."
_STAMP = struct.Struct("<qi")
_FILLER = bytes(FRAME_BYTES - _STAMP.size)


@dataclass(frozen=True, slots=True)
class Script:
    """What the switch says in one call."""

    connect_answer: bytes
    digits: tuple[bytes, ...]
    hangup: bytes
    ending: bytes
    "From CHANNEL_UNPARK to the notice that it lingers, in one piece."


@cache
def _recorded() -> tuple[bytes, Script]:
    with gzip.open(RECORDING, "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row.get("dir") == "fs>gw" and "data" in row]
    stream = b"".join(base64.b64decode(row["data"]) for row in rows if row["conn"] == 1)
    blocks: list[bytes] = []
    while stream:
        head, _, rest = stream.partition(b"\n\n")
        size = sum(int(line[16:]) for line in head.split(b"\n") if line.startswith(b"Content-Length: "))
        blocks.append(head + b"\n\n" + rest[:size])
        stream = rest[size:]
    own_id = blocks[0].partition(b"\nUnique-ID: ")[2].partition(b"\n")[0]
    events = [block for block in blocks if b"text/event-plain" in block]
    hangup = next(block for block in events if b"Event-Name: CHANNEL_HANGUP\n" in block)
    notice = next(block for block in blocks if b"Content-Disposition: linger" in block)
    return own_id, Script(
        connect_answer=blocks[0],
        digits=tuple(block for block in events if b"Event-Name: DTMF\n" in block),
        hangup=hangup,
        ending=b"".join(events[events.index(hangup) + 1 :]) + notice,
    )


def script_of(unique_id: str) -> Script:
    """Return the recorded call with another Unique-ID (of the same length: a UUID)."""
    own_id, script = _recorded()
    new_id = unique_id.encode()
    assert len(new_id) == len(own_id)
    return Script(
        script.connect_answer.replace(own_id, new_id),
        tuple(block.replace(own_id, new_id) for block in script.digits),
        script.hangup.replace(own_id, new_id),
        script.ending.replace(own_id, new_id),
    )


@dataclass(slots=True)
class Account:
    """Every frame of a load."""

    sent: int = 0
    came_back: int = 0
    wrong: int = 0
    "Came back out of order, twice, or not as it was sent."
    echo_ns: "array[int]" = field(default_factory=lambda: array("q"))

    @property
    def lost(self) -> int:
        """Sent, and never seen again."""
        return self.sent - self.came_back


class _ControlEnd(asyncio.Protocol):
    """The switch's side of a control connection."""

    def __init__(self, call: "LoadCall") -> None:
        self._call = call
        self._decoder = CommandDecoder()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's derive from nothing of asyncio's

    def data_received(self, data: bytes) -> None:
        replies: list[bytes] = []
        for command in self._decoder.feed(data):
            match command.word:
                case "connect":
                    replies.append(self._call.script.connect_answer)
                case "api":
                    replies.append(b"Content-Type: api/response\nContent-Length: 12\n\n+OK Success\n")
                case "exit":
                    replies += [encode_reply("+OK bye"), encode_goodbye(self._call.unique_id)]
                case _:
                    replies.append(encode_reply("+OK"))
            if command.word == "event":
                self._call.came_up("control")
        self.transport.write(b"".join(replies))
        if replies and replies[-1].endswith(b"ClueCon! http://www.cluecon.com/\n"):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._call.went("control")


class _MediaEnd(WSListener):
    """The audio module's side of a stream."""

    def __init__(self, call: "LoadCall", account: Account) -> None:
        super().__init__()
        self._call = call
        self._account = account
        self._next = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            account = self._account
            if frame.payload_size != FRAME_BYTES:
                account.wrong += 1
                return
            stamp_ns, number = _STAMP.unpack_from(frame.get_payload_as_memoryview())
            account.echo_ns.append(time.monotonic_ns() - stamp_ns)
            account.came_back += 1
            if number != self._next:
                account.wrong += 1
            self._next = number + 1
        elif frame.msg_type == WSMsgType.CLOSE and not transport.is_close_frame_sent:
            transport.send_close(frame.get_close_code(), frame.get_close_message())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._call.went("media")


def write_now(transport: asyncio.Transport, data: bytes) -> int:
    """Hand `data` to the kernel this instant; return the moment, in ns of the system-wide monotonic clock.

    (A transport may leave what is written to the end of its loop's turn.) Raises: OSError: it did not take all of it.
    """
    fd = transport.get_extra_info("socket").fileno()
    now_ns = time.monotonic_ns()
    written = os.write(fd, data)
    if written != len(data):
        raise OSError(f"the kernel took {written} of {len(data)} bytes")
    return now_ns


class LoadCall:
    """One call. Made by `Load.place`."""

    def __init__(self, unique_id: str, legs: frozenset[str]) -> None:
        self.unique_id = unique_id
        self.script = script_of(unique_id)
        self.hung_up_ns = 0
        "When the bytes of CHANNEL_HANGUP were handed to the kernel, on the system-wide monotonic clock."
        self.control: _ControlEnd | None = None
        self.media: WSTransport | None = None
        self.talks = False
        self.sent = 0
        loop = asyncio.get_running_loop()
        self._up, self._missing = loop.create_future(), set(legs)
        self._over, self._left = loop.create_future(), set(legs)

    def came_up(self, leg: str) -> None:
        """A leg is up."""
        self._missing.discard(leg)
        if not self._missing and not self._up.done():
            self._up.set_result(None)

    def went(self, leg: str) -> None:
        """A leg has ended."""
        self._left.discard(leg)
        self.talks = False
        if not self._up.done():
            self._up.set_exception(ConnectionError(f"the {leg} leg ended before the call was up"))
        if not self._left and not self._over.done():
            self._over.set_result(None)

    async def up(self) -> None:
        """Wait until every leg is up. Raises: ConnectionError, TimeoutError: it never was."""
        async with asyncio.timeout(PATIENCE_S):
            await self._up

    async def over(self) -> None:
        """Wait until the gateway has let go of every leg. Raises: TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self._over)

    def press(self) -> None:
        """Five digits, in one piece."""
        assert self.control is not None
        self.control.transport.write(b"".join(self.script.digits))

    def hang_up(self) -> None:
        """CHANNEL_HANGUP now, what follows it with the switch's next look; a call without a control leg: CLOSE."""
        self.talks = False
        if self.control is None:
            assert self.media is not None
            self.media.send_close(1000)  # type: ignore[arg-type]  # a bare number is taken as well
            return
        self.hung_up_ns = write_now(self.control.transport, self.script.hangup)
        asyncio.get_running_loop().call_later(EVENT_TICK_S, self.control.transport.write, self.script.ending)


class Load:
    """Places calls at one server and keeps their audio going. `async with Load(...) as load`."""

    def __init__(self, *, media_port: int = 0, control_port: int = 0, secret: str = "") -> None:
        """A port of 0: the calls have no such leg."""
        self.account = Account()
        self._media_port, self._control_port, self._secret = media_port, control_port, secret
        self._legs = frozenset(leg for leg, port in (("control", control_port), ("media", media_port)) if port)
        self._slots: list[list[LoadCall]] = [[] for _ in range(SLOTS)]
        self._placed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._began_s, self._at = 0.0, 0
        self.late_ms = 0.0
        "The worst delay of this load itself: what it measured is wrong by no more than that."

    async def __aenter__(self) -> Self:
        self._began_s, self._at = time.monotonic(), 0
        self._plan()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def place(self) -> LoadCall:
        """Open both legs, wait until both are up, and begin to talk.

        Raises: OSError, WSError, TimeoutError: a leg did not come up.
        """
        call = LoadCall(str(uuid.uuid4()), self._legs)
        loop = asyncio.get_running_loop()
        if self._control_port:
            _, call.control = await loop.create_connection(lambda: _ControlEnd(call), "127.0.0.1", self._control_port)
        if self._media_port:
            token = media_token(self._secret, call.unique_id)
            path = f"/stream/bench/{call.unique_id}/1001?rate={RATE_HZ}&mix=mono&token={token}"
            call.media, _ = await ws_connect(
                lambda: _MediaEnd(call, self.account), f"ws://127.0.0.1:{self._media_port}{path}"
            )
            call.came_up("media")
        await call.up()
        call.talks = bool(self._media_port)
        self._slots[self._placed % SLOTS].append(call)
        self._placed += 1
        return call

    async def all_back(self) -> None:
        """Wait until every frame that was sent has come back, or `PATIENCE_S` for those that never will."""
        until_s = time.monotonic() + PATIENCE_S
        while self.account.lost and time.monotonic() < until_s:  # noqa: ASYNC110 - an Event would be set per frame
            await asyncio.sleep(FRAME_S)

    def _plan(self) -> None:
        due_s = self._began_s + (self._at + 1) * FRAME_S / SLOTS
        self._timer = asyncio.get_running_loop().call_later(max(due_s - time.monotonic(), 0.0), self._tick)

    def _tick(self) -> None:
        now_s = time.monotonic()
        step_s = FRAME_S / SLOTS
        account = self.account
        self.late_ms = max(self.late_ms, (now_s - self._began_s - (self._at + 1) * step_s) * 1000)
        while self._began_s + (self._at + 1) * step_s <= now_s + 0.0005:
            self._at += 1
            slot = self._slots[self._at % SLOTS]
            for call in slot:
                if call.talks:
                    assert call.media is not None
                    call.media.send(WSMsgType.BINARY, _STAMP.pack(time.monotonic_ns(), call.sent) + _FILLER)
                    call.sent += 1
                    account.sent += 1
            slot[:] = [call for call in slot if call.talks]
        self._plan()
