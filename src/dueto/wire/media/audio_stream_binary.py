"""Streaming builds of mod_audio_stream (commercial 1.0.3 and later, forks): raw binary down, at the stream's rate.

The dialplan sets STREAM_PLAYBACK=true, and STREAM_SAMPLE_RATE to that rate (`audio-websocket.md`, section 9). Whether
such a build can be told to fall silent is not public, so no more is sent than may still be heard after a clear.
"""

from dueto.wire.media.dialect import Dialect

AUDIO_STREAM_BINARY = Dialect(
    "audio_stream-binary",
    "stream",
    clear="none",
    marks=False,
    playback=(("STREAM_PLAYBACK", "true"), ("STREAM_SAMPLE_RATE", "{rate_hz}")),
    gives="the agent's voice as a stream, at the stream's rate, gap-free",
    lacks="silence at once: a sentence that is cut sounds for up to 160 ms more",
)
