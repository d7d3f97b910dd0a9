"""The media wire: what the audio modules put into their URLs, frames and texts. No I/O, no time."""

from dueto.wire.media.audio_fork import AUDIO_FORK, AUDIO_FORK_BINARY
from dueto.wire.media.audio_stream import AUDIO_STREAM
from dueto.wire.media.audio_stream_base64 import AUDIO_STREAM_BASE64
from dueto.wire.media.audio_stream_binary import AUDIO_STREAM_BINARY
from dueto.wire.media.dialect import Dialect, WrittenFile
from dueto.wire.media.request import StreamPath, StreamRequest
from dueto.wire.media.unicast import UNICAST

DIALECTS = {
    dialect.name: dialect
    for dialect in (AUDIO_STREAM, AUDIO_STREAM_BINARY, AUDIO_STREAM_BASE64, AUDIO_FORK, AUDIO_FORK_BINARY, UNICAST)
}

__all__ = [
    "AUDIO_FORK",
    "AUDIO_FORK_BINARY",
    "AUDIO_STREAM",
    "AUDIO_STREAM_BASE64",
    "AUDIO_STREAM_BINARY",
    "DIALECTS",
    "UNICAST",
    "Dialect",
    "StreamPath",
    "StreamRequest",
    "WrittenFile",
]
