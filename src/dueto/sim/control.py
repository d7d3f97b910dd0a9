"""One event socket of the simulated switch: it is the side that connects, answers commands and sends events."""

import asyncio
import math
import random
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from dueto.errors import RemoteProtocolError
from dueto.sim.commands import carry_out
from dueto.sim.headers import ChannelEvent
from dueto.sim.subscriptions import Subscriptions
from dueto.wire.esl.switch_end import (
    CommandBlock,
    CommandDecoder,
    encode_event_json,
    encode_goodbye,
    encode_linger_notice,
)

if TYPE_CHECKING:
    from dueto.sim.channel import Channel

PATIENCE_S: Final = 25.0
"How long the switch waits for the first command."
MAX_EVENTS: Final = 100_000
"Events a socket keeps for a reader that does not read."


class ControlConnection(asyncio.Protocol):
    """The switch's end of one control leg.

    Commands are carried out one after the other, in order; events are looked for after each of them and every
    `event_tick_s` from there.
    """

    def __init__(self, channel: "Channel", *, static: bool, full: bool) -> None:
        self.channel = channel
        self.core = channel.core
        self.static, self.full = static, full
        self.events = Subscriptions()
        self.open = False
        "Whether the gateway is still there."
        self.parked = False
        "The gateway said `connect`."
        self.linger_s: int | None = None
        "Seconds to stay after the hangup; -1: for ever; None: don't."
        self._transport: asyncio.Transport | None = None
        self._decoder = CommandDecoder()
        self._commands: deque[CommandBlock] = deque()
        self._queue: deque[ChannelEvent] = deque()
        self._busy = self._first_seen = self._paused = self._dead = self._noticed = False
        self._looked_at = 0.0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._timers: list[asyncio.TimerHandle] = []
        seed = self.channel.faults.split_seed
        self._splitter = random.Random(seed) if seed is not None else None
        self._outgoing = bytearray()
        self._write_planned = False

    # -- the transport ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True
        self._looked_at = self.core.now()
        self.channel.controls.append(self)
        self.channel.record.note("control", "open")
        faults = self.channel.faults
        self._later(PATIENCE_S, self.out_of_patience)
        if faults.control_reset_after_s is not None:
            self._later(faults.control_reset_after_s, self._reset)
        if faults.half_open in ("control", "both"):
            self._later(faults.half_open_after_s, self._go_dead)
        if faults.slow_reader_after_s is not None:
            self._later(faults.slow_reader_after_s, self._read_nothing)

    def data_received(self, data: bytes) -> None:
        if self._dead:
            return
        try:
            self._commands.extend(self._decoder.feed(data))
        except RemoteProtocolError:
            self.close()
            return
        self._work()

    def eof_received(self) -> None:
        return None  # the transport closes; connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self in self.channel.controls:
            self.channel.controls.remove(self)
        for timer in (*self._timers, *([self._flush_timer] if self._flush_timer else [])):
            timer.cancel()
        self._queue.clear()
        self._commands.clear()
        self.channel.record.note("control", "closed", error=str(exc) if exc else "")
        self.channel.stir()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._plan_flush()

    # -- commands --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Carry out what has come, up to the first command that takes its time."""
        while self._commands and not self._busy and self.open:
            block = self._commands.popleft()
            silent = not self._first_seen and block.word != "connect"
            self._first_seen = True
            outcome = self.carry_out(block)
            delay_s = self.channel.faults.reply_delay_s
            if isinstance(outcome, bytes) and not delay_s:
                self._reply(b"" if silent else outcome)
                continue
            self._busy = True
            if isinstance(outcome, bytes):
                self._later(delay_s, self._late_reply, b"" if silent else outcome)
            else:
                outcome.add_done_callback(self._reply_ready)

    def carry_out(self, block: CommandBlock) -> "bytes | asyncio.Future[bytes]":
        """Carry out one command; return its reply, or a future of it."""
        return carry_out(self, block)

    def _reply_ready(self, outcome: "asyncio.Future[bytes]") -> None:
        if not outcome.cancelled() and self.open:
            self._late_reply(outcome.result())

    def _late_reply(self, reply: bytes) -> None:
        self._busy = False
        self._reply(reply)
        self._work()

    def _reply(self, reply: bytes) -> None:
        self._write(reply)
        self._looked_at = self.core.now()
        if not self._commands:  # what is there already is answered before the events are looked for
            self._flush()

    def connected(self) -> None:
        """`connect` was given: the channel may enter the park loop."""
        if not self.parked:
            self.parked = True
            counters = self.channel.counters
            counters.control_opened_at = counters.control_opened_at or self.core.now()
            self.channel.control_ready.set()
            self.channel.stir()

    def forget_events(self) -> None:
        """Drop what waits to be sent."""
        self._queue.clear()

    def leave(self, reply: bytes) -> None:
        """Answer `exit`, say goodbye and close."""
        self._write(reply)
        self.say_goodbye()

    # -- events ----------------------------------------------------------------------------------------------------

    def wants(self, name: str, subclass: str) -> bool:
        """Whether an event of this kind goes to this gateway."""
        lost = self.channel.faults.lost_events
        return self.open and self.events.wants(name, subclass) and name not in lost and subclass not in lost

    def offer(self, event: ChannelEvent) -> None:
        """Take an event for the next look at the queue."""
        if len(self._queue) >= MAX_EVENTS:
            self.close()
        elif self.events.passes(event):
            self._queue.append(event)
            self._plan_flush()

    def _plan_flush(self) -> None:
        if self._flush_timer is not None or self._busy or not self.open:
            return
        tick_s = self.core.event_tick_s
        if not tick_s:
            self._flush_timer = self.core.loop.call_later(0.0, self._flush)
            return
        since = self.core.now() - self._looked_at
        wait_s = (math.floor(since / tick_s + 1e-6) + 1) * tick_s - since
        self._flush_timer = self.core.loop.call_later(wait_s, self._flush)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._busy or self._paused or self._dead or not self.open:
            return
        down = not self.channel.up
        if down and self.channel.faults.early_linger_notice and self.linger_s is not None:
            self._notice()
        kept = self.channel.faults.nolinger_events
        if down and self.linger_s is None and kept is not None:
            while len(self._queue) > kept:
                self._queue.pop()
        if self._queue:
            encode = {"json": _json, "xml": _xml}.get(self.events.format, _plain)
            self._write(b"".join(encode(event) for event in self._queue))
            self._queue.clear()
        if down and self.parked:
            if self.linger_s is None:
                self.say_goodbye()
            else:
                self._notice()

    # -- the end ---------------------------------------------------------------------------------------------------

    def channel_gone(self) -> None:
        """The channel has been hung up: a socket that no event woke finds out now."""
        if not self.parked:
            self.say_goodbye()
        else:
            self._plan_flush()

    def _notice(self) -> None:
        if self._noticed or self.linger_s is None:
            return
        self._noticed = True
        self._write(encode_linger_notice(self.channel.unique_id, self.channel.channel_name, self.linger_s))
        if self.linger_s >= 0:
            # Whole seconds of the wall clock: N seconds are N to N + 1.
            until = math.floor(self.core.epoch()) + self.linger_s + 1 - self.core.epoch()
            self._later(until, self.say_goodbye)

    def say_goodbye(self) -> None:
        """Send the last notice and close; the call is not ended by it."""
        if self.open and not self._dead:
            self._write(encode_goodbye(self.channel.unique_id))
            self.close()

    def close(self) -> None:
        """Close once everything is written."""
        self.open = False
        self.channel.stir()
        if self._transport is not None and not self._outgoing:
            self._transport.close()

    def abort(self) -> None:
        """Let go of the socket at once."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def out_of_patience(self) -> None:
        """`PATIENCE_S` are over: who has said nothing by then is sent away."""
        if not self._first_seen:
            self.say_goodbye()

    # -- writing, with its troubles --------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._dead or self._transport is None or not data:
            return
        glue_s = self.channel.faults.glue_s
        if self._splitter is None and not glue_s:
            self._transport.write(data)
            return
        self._outgoing += data
        if not self._write_planned:
            self._write_planned = True
            self._later(glue_s, self._write_piece)

    def _write_piece(self) -> None:
        self._write_planned = False
        if self._transport is None:
            return
        size = len(self._outgoing)
        if self._splitter is not None and size:
            size = self._splitter.randint(1, size)
        self._transport.write(bytes(self._outgoing[:size]))
        del self._outgoing[:size]
        if self._outgoing:
            self._write_planned = True
            self._later(0.0, self._write_piece)
        elif not self.open:
            self._transport.close()

    def _later(self, delay_s: float, call: object, *args: object) -> None:
        self._timers = [
            timer for timer in self._timers if not timer.cancelled() and timer.when() > self.core.loop.time()
        ]
        self._timers.append(self.core.loop.call_later(delay_s, call, *args))  # type: ignore[arg-type]

    def _reset(self) -> None:
        if self._transport is not None:
            _make_reset(self._transport)
            self._transport.abort()

    def _go_dead(self) -> None:
        self._dead = True
        if self._transport is not None and self.open:
            self._transport.pause_reading()

    def _read_nothing(self) -> None:
        if self._transport is not None and self.open:
            self._transport.pause_reading()
            self._later(self.channel.faults.slow_reader_s, self._read_again)

    def _read_again(self) -> None:
        if self._transport is not None and self.open:
            self._transport.resume_reading()


def _plain(event: ChannelEvent) -> bytes:
    return event.plain


def _json(event: ChannelEvent) -> bytes:
    return encode_event_json(event.pairs, event.body)


def _xml(event: ChannelEvent) -> bytes:
    return event.xml


def _make_reset(transport: asyncio.Transport) -> None:
    """Have the end of a TCP connection be a RST. Memory pipes do so by themselves."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
