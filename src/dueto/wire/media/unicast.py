"""`unicast`: what a channel's packets weigh, and what their size says of its rate. L16, little-endian, mono.

One datagram is one packet of the channel: 20 ms nearly always (320 bytes at 8 kHz), other lengths where the telephone
asked for them. The switch plays exactly one packet per datagram: of a longer one the rest is lost, a shorter one is
silence.
"""

from dataclasses import dataclass

from dueto.errors import RemoteProtocolError
from dueto.wire.media.dialect import RATES, Dialect

UNICAST = Dialect(
    "unicast",
    "stream",
    clear="none",
    marks=False,
    module="",
    command="",
    gives="the agent's voice as a stream, at the channel's rate, gap-free, with no module",
    lacks="silence at once: a sentence that is cut sounds for up to 160 ms more; attended transfers",
)
"The stock switch, with no module at all: L16 over UDP, at the channel's own rate. To stop sending is to be silent."
PACKETS_MS = (10, 20, 30, 40, 60)
MAX_DATAGRAM_BYTES = 48000 * 60 // 1000 * 2
"The longest packet at the highest rate."


@dataclass(frozen=True, slots=True)
class Packet:
    """What one datagram carries."""

    rate_hz: int
    ms: int = 20

    @property
    def size_bytes(self) -> int:
        """320 for 20 ms at 8 kHz."""
        return self.rate_hz * self.ms // 1000 * 2


def announced(read_rate: str, codec_rate: str, ptime: str) -> Packet:
    """Return what a connect answer lets expect: `variable_read_rate`, `Channel-Read-Codec-Rate`, the RTP's ptime.

    What is missing or odd reads as 8 kHz, 20 ms: the first datagram tells better (`measured`).
    """
    rates = [int(text) for text in (read_rate, codec_rate) if text.isascii() and text.isdigit() and len(text) < 6]
    rate_hz = next((rate for rate in rates if rate in RATES), 8000)
    ms = int(ptime) if ptime.isascii() and ptime.isdigit() and len(ptime) < 4 else 20
    return Packet(rate_hz, ms if ms in PACKETS_MS else 20)


def measured(size_bytes: int, expected: Packet) -> Packet:
    """Return what a first datagram of this size proves: the announced packet, or the same length at another rate.

    Some wideband codecs announce another rate than their audio has, so the size decides.
    Raises: RemoteProtocolError: no rate that we know makes such a packet.
    """
    for rate_hz in (expected.rate_hz, *RATES):
        packet = Packet(rate_hz, expected.ms)
        if packet.size_bytes == size_bytes:
            return packet
    raise RemoteProtocolError(f"a datagram of {size_bytes} bytes is no packet of {expected.ms} ms at a rate we know")
