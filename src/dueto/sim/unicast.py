"""`unicast` as the switch does it: a parked channel's audio over UDP, started by a sendmsg, without an audio module.

It lives in the park loop: what comes of the caller is sent once per frame while nothing else runs on the channel, and
what comes back is played in real time. An application that resets the channel's codecs ends it, and the same loop
takes no second one.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from dueto.audio import frame_bytes
from dueto.sim.datagrams import Address, Datagrams
from dueto.sim.downlink import GAP_FRAMES

if TYPE_CHECKING:
    from dueto.sim.channel import Channel

RESETTING: Final = frozenset({"bridge", "conference", "playback"})
"Applications that reset the codecs when they return."
MAX_QUEUED: Final = 1500
"Datagrams that wait to be played: 100 at once were all heard."


class Unicast(asyncio.DatagramProtocol):
    """One channel's audio over UDP, from its `unicast` until it is ended."""

    def __init__(self, channel: "Channel", far: Address) -> None:
        self._channel, self._far = channel, far
        self._transport: Datagrams | None = None
        self._size = frame_bytes(channel.rate_hz)
        self._silence = bytes(self._size)
        self._queue: deque[bytes] = deque()
        self._deaf = False
        self._dry_frames = GAP_FRAMES + 1
        self.begun = False
        "The park loop has seen it."

    async def open(self, local: Address) -> bool:
        """Bind the switch's end; whether that went well. The sender of the command is told +OK either way."""
        channel = self._channel
        failed = ""
        if channel.unicast_asked < channel.faults.unicast_busy:
            failed = "busy (a fault)"
        channel.unicast_asked += 1
        try:
            if not failed:
                self._transport = await channel.core.doors.datagrams(*local, self)
        except OSError as error:
            failed = error.strerror or str(error)
        if failed:
            channel.record.note("media", "unicast_failed", local=local, why=failed)
            return False
        channel.record.note("media", "unicast", local=local, far=self._far)
        return True

    def push(self, said: bytes | None) -> None:
        """Send one frame of the caller; None is silence. The first one is a filler, whatever was said."""
        if self._transport is None:
            return
        counters = self._channel.counters
        if not self.begun:
            self.begun = True
            channel = self._channel
            counters.media_opened_at = counters.media_opened_at or channel.core.now()
            if channel.faults.media_reset_after_s is not None and channel.unicast_asked == 1:
                channel.core.loop.call_later(channel.faults.media_reset_after_s, channel.lose_unicast)
            said = b"\xff" * self._size
        data = self._silence if said is None else said
        self._transport.sendto(data, self._far)
        counters.frames_up += 1
        counters.bytes_up += len(data)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Take what comes, from whomever: the switch does not look."""
        if not data:
            self._deaf = True  # an empty datagram ends the thread that reads
        if self._deaf or len(self._queue) >= MAX_QUEUED:
            return
        self._channel.counters.took_down(data, self._channel.core.now())
        self._queue.append(data)

    def pull(self) -> bytes | None:
        """Return what is played in this frame: one datagram, as far as it fills the packet; None: no RTP at all."""
        if not self._queue:
            self._dry_frames += 1
            return None
        counters = self._channel.counters
        if 0 < self._dry_frames <= GAP_FRAMES:
            counters.gaps += 1
            counters.gap_ms += 20.0 * self._dry_frames
        self._dry_frames = 0
        data = self._queue.popleft()
        if len(data) < self._size:
            counters.padded_ms += 20.0
            return self._silence
        return data[: self._size]

    @property
    def waiting_ms(self) -> float:
        """How much is still to be played."""
        return 20.0 * len(self._queue)

    def close(self) -> None:
        """End it: the port is free again."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
