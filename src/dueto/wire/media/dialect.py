"""What an audio module can do. Dialects differ, so each declares it and nobody assumes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of carrying audio between the switch and us."""

    name: str
    "As in `media.dialect`."
    downlink: Literal["none", "file", "stream"]
    "How the agent's voice goes down: not at all, as files that the switch plays, or frame by frame."
    clear: bool
    "Whether the far end can be told to throw away what it has not played yet."
    marks: bool
    "Whether the far end says when it has played something."
    rates: tuple[int, ...]
    "Sample rates in Hz."
    frame_ms: int = 20
    lead_ms: int = 160
    "How far ahead of the caller's ear we send; where there is no clear, what was sent will be heard."


AUDIO_STREAM = Dialect("audio_stream", "file", clear=True, marks=False, rates=(8000, 16000, 24000, 32000, 48000))
"The community mod_audio_stream: it writes what we send to a file, and the control leg plays it."

AUDIO_STREAM_BINARY = Dialect(
    "audio_stream-binary", "stream", clear=False, marks=False, rates=(8000, 16000, 24000, 32000, 48000)
)
"Streaming builds (commercial 1.0.3 and later, forks): raw binary down, at the rate of the stream."

DIALECTS = {dialect.name: dialect for dialect in (AUDIO_STREAM, AUDIO_STREAM_BINARY)}
