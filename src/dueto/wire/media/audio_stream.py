"""The community mod_audio_stream: frames up, audio down as a file that the control leg plays.

Facts: `audio-websocket.md`, sections 1 to 7.
"""

import base64

import msgspec

from dueto.wire.media.dialect import Dialect, Files, WrittenFile

_TEMPLATE = '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":%d,"id":"%s","audioData":"%s"}}'


class _Play(msgspec.Struct):
    file: str
    id: str = ""


def stream_audio(pcm: bytes, rate_hz: int, piece_id: str) -> str:
    """Return the text that hands `pcm` (L16 mono) to the module; `piece_id` is ours: plain ASCII, no `"` or `\\`."""
    return _TEMPLATE % (rate_hz, piece_id, base64.b64encode(pcm).decode("ascii"))


def play_file(body: str | bytes) -> WrittenFile | None:
    """Read the body of a ::play event; None where it names no file. Members of `data` come back as they were."""
    try:
        play = msgspec.json.decode(body, type=_Play)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return WrittenFile(play.id, play.file) if play.file else None


AUDIO_STREAM = Dialect(
    "audio_stream",
    "file",
    clear="uuid_break",
    marks=False,
    files=Files(stream_audio, "mod_audio_stream::play", play_file),
    gives="the agent's voice as files that the switch plays; silence at once when it is cut",
    lacks="live audio (it comes 0.6 s later), and gap-free joints: up to 60 ms of silence where one file ends",
)
