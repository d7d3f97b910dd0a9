"""The community mod_audio_stream's text messages: audio down as a file, and where that file is."""

import base64
from dataclasses import dataclass

import msgspec

_TEMPLATE = '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":%d,"id":"%s","audioData":"%s"}}'


class _Play(msgspec.Struct):
    file: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class PlayFile:
    """`mod_audio_stream::play`: the module wrote our audio to `file`; nobody plays it unless we say so."""

    id: str
    "The id we sent along; other members of `data` come back as they were."
    file: str
    "A path on the switch. It is deleted when the stream ends."


def stream_audio(pcm: bytes, rate_hz: int, piece_id: str) -> str:
    """Return the text that hands `pcm` (L16 mono) to the module; `piece_id` is ours: plain ASCII, no `"` or `\\`."""
    return _TEMPLATE % (rate_hz, piece_id, base64.b64encode(pcm).decode("ascii"))


def play_file(body: str | bytes) -> PlayFile | None:
    """Read the body of a ::play event; None where it names no file."""
    try:
        play = msgspec.json.decode(body, type=_Play)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return PlayFile(play.id, play.file) if play.file else None
