"""The media wire: what the audio modules put into their URLs, frames and texts. No I/O, no time."""

from dueto.wire.media.dialect import AUDIO_STREAM, AUDIO_STREAM_BINARY, DIALECTS, Dialect
from dueto.wire.media.request import StreamPath, StreamRequest

__all__ = ["AUDIO_STREAM", "AUDIO_STREAM_BINARY", "DIALECTS", "Dialect", "StreamPath", "StreamRequest"]
