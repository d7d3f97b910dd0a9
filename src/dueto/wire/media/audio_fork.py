"""mod_audio_fork: drachtio's, which plays files, and jambonz', which plays a stream where `start` asked for one.

drachtio's: `audio-websocket.md`, section 10. jambonz' bidirectional build is known from its public source only
(github.com/jambonz/freeswitch-modules, mod_audio_fork: `mod_audio_fork.c`, `lws_glue.cpp`):

- `start URL MIX RATE BUGNAME METADATA true true DOWN_RATE`: raw binary L16 of DOWN_RATE is played, no `playAudio`.
- Playing begins with 1280 samples (80 or 160 ms, by the channel's rate). From then on audio goes on to the caller
  whenever 640 have gathered; what is less waits, and `killAudio` does not reach it. So 80 ms are sent at a time.
- What waits to be played is played even if the connection is lost; `stop` ends it.
- `killAudio` drops what waits to be played, and breaks whatever application the channel runs.
- `mark` puts a name behind the audio sent so far; when it is played the module says so with a text. The marker is a
  sample of -1, so while a mark is out samples of that value are taken for markers, and resampling destroys it.
"""

import base64
from dataclasses import dataclass

import msgspec

from dueto.wire.media.audio_stream import AUDIO_STREAM
from dueto.wire.media.dialect import Dialect, Files, WrittenFile

SUBPROTOCOL = "audio.drachtio.org"
"mod_audio_fork offers it in the handshake and wants it back."
_TEMPLATE = (
    '{"type":"playAudio","data":{"audioContentType":"raw","sampleRate":%d,"textContent":"%s","audioContent":"%s"}}'
)


class _PlayAudio(msgspec.Struct):
    file: str
    textContent: str = ""  # noqa: N815 - the module's word


class _MarkData(msgspec.Struct):
    name: str
    event: str = "playout"


class _Mark(msgspec.Struct, tag="mark"):
    data: _MarkData


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark has been played, or `killAudio` cleared it."""

    name: str
    played: bool


def play_audio(pcm: bytes, rate_hz: int, piece_id: str) -> str:
    """Return the text that hands `pcm` (L16 mono) to the module; `piece_id` comes back as `textContent`."""
    return _TEMPLATE % (rate_hz, piece_id, base64.b64encode(pcm).decode("ascii"))


def played_audio(body: str | bytes) -> WrittenFile | None:
    """Read the body of a ::play_audio event; None where it names no file."""
    try:
        play = msgspec.json.decode(body, type=_PlayAudio)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return WrittenFile(play.textContent, play.file) if play.file else None


def set_mark(name: str) -> str:
    """Return the text that puts a mark behind what was sent; `name` is ours: plain ASCII, no quotes or backslashes."""
    return f'{{"type":"mark","data":{{"name":"{name}"}}}}'


def read_mark(text: str) -> Mark | None:
    """Read a text of the module; None where it tells of no mark."""
    try:
        mark = msgspec.json.decode(text, type=_Mark)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return Mark(mark.data.name, mark.data.event == "playout")


AUDIO_FORK = Dialect(
    "audio_fork",
    "file",
    clear="uuid_break",
    marks=False,
    files=Files(play_audio, "mod_audio_fork::play_audio", played_audio),
    module="mod_audio_fork",
    command="uuid_audio_fork",
    gives=AUDIO_STREAM.gives,
    lacks=AUDIO_STREAM.lacks,
)
"""drachtio's. It has a `killAudio`, but that comes on another connection than `playback` does, may overtake it or be
overtaken, and leaves what is queued: `uuid_break all` on the control leg does neither."""

AUDIO_FORK_BINARY = Dialect(
    "audio_fork-binary",
    "stream",
    clear="killAudio",
    marks=True,
    frame_ms=80,
    lead_ms=320,
    warm_up_ms=160,
    plays_on=True,
    module="mod_audio_fork",
    command="uuid_audio_fork",
    duplex=True,
    gives="the agent's voice as a stream, at the stream's rate, gap-free; silence at once when it is cut",
    lacks="nothing (live audio comes some 160 ms later)",
)
