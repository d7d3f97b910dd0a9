"""What an audio module can do. Dialects differ, so each declares it and nobody assumes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

RATES: Final = (8000, 16000, 24000, 32000, 48000)
Clear = Literal["none", "uuid_break", "stopAudio", "killAudio"]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """The module wrote our audio to `file`; nobody plays it unless we say so."""

    id: str
    "The id we sent along."
    file: str
    "A path on the switch. It is deleted when the stream ends."


@dataclass(frozen=True, slots=True)
class Files:
    """How audio goes down as files: a text hands it over, an event says where it is."""

    hand_over: Callable[[bytes, int, str], str]
    "L16 mono, its rate in Hz and an id of ours (plain ASCII, no quotes or backslashes) to the text that is sent."
    event: str
    "The CUSTOM subclass that says where the file is."
    read: Callable[[str | bytes], WrittenFile | None]
    "The body of that event; None where it names no file."


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of carrying audio between the switch and us."""

    name: str
    "As in `media.dialect`."
    downlink: Literal["none", "file", "stream"]
    "How the agent's voice goes down: not at all, as files that the switch plays, or frame by frame."
    clear: Clear
    "What makes the far end throw away what it has not played yet: a text, or the control leg's `uuid_break all`."
    marks: bool
    "Whether the far end says when it has played something."
    rates: tuple[int, ...] = RATES
    "Sample rates in Hz, up."
    down_rate_hz: int = 0
    "The one rate that the far end plays, whatever we say; 0: that of the stream."
    frame_ms: int = 20
    "What is sent down at a time."
    lead_ms: int = 160
    "How far ahead of the caller's ear we send; where there is no clear, what was sent will be heard."
    warm_up_ms: int = 0
    "The far end begins to play, from silence, only once it holds so much; less than that is not heard."
    buffer_ms: int = 0
    "The most that the far end keeps; of more it keeps the newest. 0: no limit."
    plays_on: bool = False
    "Whether what the far end holds is played to its end where its connection is lost; else it is gone."
    files: Files | None = None
    "Of a `file` downlink."
    text: Callable[[bytes], str] | None = None
    "What a `stream` downlink wraps its audio in; None: it goes as binary messages."
    module: str = "mod_audio_stream"
    "As `module_exists` knows it."
    command: str = "uuid_audio_stream"
    "The api command that starts and stops the stream."
    duplex: bool = False
    "Whether `start` must ask for the way down too."
    playback: tuple[tuple[str, str], ...] = ()
    "Channel variables, and their values, without which nothing that is sent is played."
    gives: str = ""
    "For an operator: what callers get."
    lacks: str = ""
    "For an operator: what they don't."

    def start(self, unique_id: str, url: str, mix: str, rate_hz: int, *, rate: str = "") -> str:
        """Return the argument of `command` that starts a stream; `rate` is how to write its rate."""
        more = f" {FORK_BUG} {{}} true true {self.down_hz(rate_hz)}" if self.duplex else ""
        return f"{unique_id} start {url} {mix} {rate or rate_hz}{more}"

    def variables(self, rate_hz: int) -> tuple[tuple[str, str], ...]:
        """Return the channel variables that a stream of `rate_hz` needs, and their values."""
        return tuple((name, value.format(rate_hz=self.down_hz(rate_hz))) for name, value in self.playback)

    def down_hz(self, rate_hz: int) -> int:
        """The rate of the audio that goes down a stream of `rate_hz`."""
        return self.down_rate_hz or rate_hz

    @property
    def clear_text(self) -> str:
        """The text that empties the far end's buffer; empty: there is none."""
        return f'{{"type":"{self.clear}"}}' if self.clear in ("stopAudio", "killAudio") else ""


FORK_BUG: Final = "audio_fork"
"mod_audio_fork's name for a stream that nobody named."
