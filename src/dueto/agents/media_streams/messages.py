"""The messages of Twilio's Media Streams, version 1.0.0: JSON texts, an `event` each. We are the side that Twilio is.

Numbers travel as strings, audio as base64 of mu-law at 8000 Hz, mono. What a bot sends beyond these fields is its own
business. Source of the names: Twilio's page "Media Streams: WebSocket messages".
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from dueto.errors import RemoteProtocolError

RATE_HZ: Final = 8000
FRAME_MS: Final = 20


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Message(_Part, tag_field="event", frozen=True, rename="camel"):
    pass


# -- what a bot is told


class MediaFormat(_Part, frozen=True):
    """The only one there is."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int = RATE_HZ
    channels: int = 1


class Beginning(_Part, frozen=True):
    """What the stream is about."""

    account_sid: str
    stream_sid: str
    call_sid: str
    custom_parameters: dict[str, str]
    tracks: tuple[str, ...] = ("inbound",)
    media_format: MediaFormat = MediaFormat()


class Frame(_Part, frozen=True):
    """20 ms of the caller."""

    chunk: str
    "Counts from 1."
    timestamp: str
    "Milliseconds since the stream began."
    payload: bytes
    track: str = "inbound"


class Key(_Part, frozen=True):
    """A key that the caller pressed."""

    digit: str
    track: str = "inbound_track"


class Ending(_Part, frozen=True):
    """Which call it was."""

    account_sid: str
    call_sid: str


class Connected(_Message, frozen=True, tag="connected"):
    """The first message: what will be spoken."""

    protocol: str = "Call"
    version: str = "1.0.0"


class Start(_Message, frozen=True, tag="start"):
    """The second one, and the first that counts."""

    sequence_number: str
    start: Beginning
    stream_sid: str


class Media(_Message, frozen=True, tag="media"):
    """The caller's voice."""

    sequence_number: str
    media: Frame
    stream_sid: str


class Dtmf(_Message, frozen=True, tag="dtmf"):
    """The caller's keys."""

    stream_sid: str
    sequence_number: str
    dtmf: Key


class MarkName(_Part, frozen=True):
    """What the bot called it."""

    name: str


class Marked(_Message, frozen=True, tag="mark"):
    """All that the bot sent before that mark was heard, or thrown away by its `clear`."""

    sequence_number: str
    stream_sid: str
    mark: MarkName


class Stop(_Message, frozen=True, tag="stop"):
    """The last message."""

    sequence_number: str
    stream_sid: str
    stop: Ending


ToBot = Connected | Start | Media | Dtmf | Marked | Stop


# -- what a bot says


class Sound(_Part, frozen=True):
    """Any amount of it."""

    payload: bytes


class Say(_Message, frozen=True, tag="media"):
    """The bot's voice, to be heard behind what it sent before."""

    media: Sound
    stream_sid: str | UnsetType = UNSET


class Mark(_Message, frozen=True, tag="mark"):
    """The bot wants to know when the caller has heard what it sent so far."""

    mark: MarkName
    stream_sid: str | UnsetType = UNSET


class Clear(_Message, frozen=True, tag="clear"):
    """What was not heard yet is not to be heard."""

    stream_sid: str | UnsetType = UNSET


FromBot = Say | Mark | Clear

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], FromBot] = msgspec.json.Decoder(FromBot).decode


def encode(message: ToBot) -> bytes:
    """Return the text of a message to the bot."""
    return _encode(message)


def decode(text: bytes) -> FromBot:
    """Read a message of the bot. Raises: RemoteProtocolError: it is none; the text repeats nothing of it."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"no message of Media Streams: {error}") from None
