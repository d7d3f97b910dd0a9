"""What happens in a call, as its agent sees it: typed, in order, through `call.events()`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak. Only with an ear attached by `call.listen(...)`."""

    started_ms: int
    "Milliseconds since the first audio frame of the call."


@dataclass(frozen=True, slots=True)
class Speech:
    """The caller said something and paused. Only with an ear attached by `call.listen(...)`."""

    text: str
    "What was understood; empty when it was speech but nothing the ear knows."
    confidence: float
    "0.0 to 1.0, by the ear's own measure."
    started_ms: int
    "Milliseconds since the first audio frame of the call."
    ended_ms: int
    "The same clock; the end of the speech, not of the pause after it."


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key."""

    digit: str
    "One of `0-9 * # A-D`."
    duration_ms: int = 0
    "How long; the switch counts 8 kHz samples in `DTMF-Duration`. 0 when it did not say."


@dataclass(frozen=True, slots=True)
class Held:
    """The call is on hold: nobody hears anybody."""

    by: Literal["us", "caller"] = "caller"
    "Whether a verb of ours held it, or the caller's telephone."


@dataclass(frozen=True, slots=True)
class Resumed:
    """The hold is over."""


@dataclass(frozen=True, slots=True)
class Bridged:
    """The caller talks to another channel now; the agent neither hears nor is heard."""

    other_id: str
    "The other channel's `Unique-ID`."


@dataclass(frozen=True, slots=True)
class Unbridged:
    """The other channel is gone; the caller is the agent's again."""


@dataclass(frozen=True, slots=True)
class ControlJoined:
    """The control leg is here (again): verbs work from now on."""


@dataclass(frozen=True, slots=True)
class ControlLost:
    """The control leg is gone while the caller is still there."""


@dataclass(frozen=True, slots=True)
class MediaLost:
    """The media leg is gone while the caller is still there; it is being started again where that is possible."""


@dataclass(frozen=True, slots=True)
class MediaResumed:
    """Audio flows again."""


@dataclass(frozen=True, slots=True)
class Custom:
    """A CUSTOM event of the audio module or of another one that was subscribed."""

    subclass: str
    "`Event-Subclass`, for example `mod_audio_stream::json`."
    body: str
    "The event's body as it came; nobody looked inside."


@dataclass(frozen=True, slots=True)
class HungUp:
    """The channel is gone. Always the last event of a call."""

    cause: str | None
    "`Hangup-Cause` in the switch's words; `NORMAL_CLEARING` when the switch named none, None when nobody told us."
    witness: str
    "Who told first: `CHANNEL_HANGUP`, `CHANNEL_HANGUP_COMPLETE`, `linger`, `media_close` or `both_legs_gone`."


CallEvent = (
    SpeechStarted
    | Speech
    | Dtmf
    | Held
    | Resumed
    | Bridged
    | Unbridged
    | ControlJoined
    | ControlLost
    | MediaLost
    | MediaResumed
    | Custom
    | HungUp
)
