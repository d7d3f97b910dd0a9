"""What a server may send as text to have audio played: the `streamAudio` message."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

_EXTENSIONS = {"wav": ".wav", "mp3": ".mp3", "ogg": ".ogg", "pcmu": ".pcmu", "pcma": ".pcma"}
_RATES = {8000: ".r8", 16000: ".r16", 24000: ".r24", 32000: ".r32", 48000: ".r48", 64000: ".r64"}


@dataclass(frozen=True, slots=True)
class StreamAudio:
    """A good `streamAudio`. Nothing in it needs to be valid audio."""

    kind: str
    "`audioDataType`: raw, wav, mp3, ogg, pcmu, pcma."
    rate_hz: int
    "Of raw audio; 0 for the others."
    audio: bytes
    rest: dict[str, Any]
    "The other members of `data`, in their order: they come back in the ::play event."

    @property
    def extension(self) -> str:
        """What the module calls the file."""
        return _RATES[self.rate_hz] if self.rate_hz else _EXTENSIONS[self.kind]


def message_type(text: str) -> str:
    """Return the `type` of a JSON object; empty for anything else."""
    message = message_object(text)
    kind = message.get("type") if message else None
    return kind if isinstance(kind, str) else ""


def parse_stream_audio(text: str) -> StreamAudio | None:
    """Read a `streamAudio`; None: it is none, or its type, rate or base64 is wrong."""
    message = message_object(text)
    data = message.get("data") if message and message.get("type") == "streamAudio" else None
    if not isinstance(data, dict):
        return None
    kind, rate, encoded = data.get("audioDataType"), data.get("sampleRate"), data.get("audioData")
    if not isinstance(kind, str) or not isinstance(encoded, str):
        return None
    if kind == "raw":
        if not isinstance(rate, int) or rate not in _RATES:
            return None
    elif kind not in _EXTENSIONS:
        return None
    try:
        audio = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        return None
    rest = {name: value for name, value in data.items() if name != "audioData"}
    return StreamAudio(kind, rate if kind == "raw" and isinstance(rate, int) else 0, audio, rest)


def raw_extension(rate_hz: int) -> str:
    """Return what a file of raw audio is called; that of 16 kHz for a rate that has none."""
    return _RATES.get(rate_hz, ".r16")


def message_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that `text` is; None for anything else."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
