"""What one call measured on its legs."""

from dataclasses import dataclass, field
from typing import Final

ECHO_MARK: Final = b"\x5a\x3c\xa5\xc3"
"Begins a frame that measures its way there and back; a number of 4 bytes follows."


@dataclass(slots=True)
class Counters:
    """Counts and moments of one call; moments in seconds on the switch's clock, 0.0 while they have not come."""

    frames_up: int = 0
    "Binary messages sent to the gateway."
    bytes_up: int = 0
    frames_down: int = 0
    "Binary messages that came from it."
    bytes_down: int = 0
    gaps: int = 0
    "How often the caller's audio ran dry and went on within 300 ms."
    gap_ms: float = 0.0
    "How much silence those gaps were."
    padded_ms: float = 0.0
    "Silence that filled frames of less than 20 ms."
    lost_ms: float = 0.0
    "Audio from the gateway that the module had no room for."
    echo_ms: list[float] = field(default_factory=list)
    "Ways there and back, where the caller asked for it."
    control_opened_at: float = 0.0
    "The first `connect` was answered."
    media_opened_at: float = 0.0
    "The first upgrade was done."
    hung_up_at: float = 0.0
    "The moment somebody hung up."
    sent_marks: dict[int, float] = field(default_factory=dict)

    def mark(self, frame_size: int, now: float) -> bytes:
        """Return a frame that can be recognised when it comes back."""
        number = len(self.echo_ms) + len(self.sent_marks)
        self.sent_marks[number] = now
        return (ECHO_MARK + number.to_bytes(4, "little")).ljust(frame_size, b"\0")

    def took_down(self, data: bytes, now: float) -> None:
        """Count a binary message from the gateway, and look for what `mark` sent."""
        self.frames_down += 1
        self.bytes_down += len(data)
        if not self.sent_marks:
            return
        at = data.find(ECHO_MARK)
        while at >= 0:
            sent = self.sent_marks.pop(int.from_bytes(data[at + 4 : at + 8], "little"), None)
            if sent is not None:
                self.echo_ms.append((now - sent) * 1000)
            at = data.find(ECHO_MARK, at + 8)
