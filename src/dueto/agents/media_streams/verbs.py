"""What a bot can want done with a call: the verbs of TwiML, as far as there are any here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Method = Literal["GET", "POST"]


@dataclass(frozen=True, slots=True)
class ConnectStream:
    """`<Connect><Stream url=...>`: the bot has the call until it closes the stream."""

    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    action: str = ""
    "Where to ask what comes after it; empty: the next verb."
    method: Method = "POST"
    "How that is asked."


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect the caller with somebody; `target` is a number, a SIP URI or a client's name, as the bot wrote it."""

    target: str
    kind: Literal["number", "sip", "client"] = "number"
    timeout_s: float = 30.0
    action: str = ""
    method: Method = "POST"


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a text, with the gateway's own mouth."""

    text: str
    loops: int = 1


@dataclass(frozen=True, slots=True)
class Play:
    """Have the caller hear a sound: a WAV."""

    url: str
    loops: int = 1


@dataclass(frozen=True, slots=True)
class PlayDigits:
    """Send keys to the caller's side; `w` is half a second."""

    digits: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence."""

    length_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Gather:
    """Collect keys, or words, while `prompt` is heard and after it; what came goes to `action`, with nothing the next
    verb follows."""

    action: str
    prompt: tuple[Say | Play | Pause, ...] = ()
    most: int = 128
    "So many digits are all that is wanted."
    ended_by: str = "#"
    "The key that ends it before that; empty: none."
    timeout_s: float = 5.0
    "From the end of the prompt, or the last key."
    tells_nothing: bool = False
    "Whether `action` is asked where nothing came, too."
    method: Method = "POST"
    takes: frozenset[Literal["dtmf", "speech"]] = frozenset(("dtmf",))


@dataclass(frozen=True, slots=True)
class Redirect:
    """Ask there what comes next."""

    url: str
    method: Method = "POST"


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the call."""

    cause: str = "NORMAL_CLEARING"


Verb = ConnectStream | Dial | Say | Play | PlayDigits | Pause | Gather | Redirect | Hangup
