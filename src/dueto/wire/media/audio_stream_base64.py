"""Forks of mod_audio_stream that play `streamAudio` themselves: base64 down, `stopAudio` to fall silent.

Measured on one (`audio-websocket.md`, section 8): what is sent must be 8 kHz whatever `sampleRate` says; playing begins
with 400 ms in the buffer, and a last piece under that waits for the next; of more than 2 s only the newest 2 s are
kept. The dialplan sets STREAM_PLAYBACK=true.
"""

import base64

from dueto.wire.media.dialect import Dialect

_TEMPLATE = '{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":8000,"audioData":"%s"}}'


def play_audio(pcm: bytes) -> str:
    """Return the text that has `pcm` (L16 mono, 8 kHz) played behind what is in the buffer."""
    return _TEMPLATE % base64.b64encode(pcm).decode("ascii")


AUDIO_STREAM_BASE64 = Dialect(
    "audio_stream-base64",
    "stream",
    clear="stopAudio",
    marks=False,
    down_rate_hz=8000,
    lead_ms=480,
    warm_up_ms=400,
    buffer_ms=2000,
    text=play_audio,
    playback=(("STREAM_PLAYBACK", "true"),),
    gives="the agent's voice as a stream, gap-free; silence at once when it is cut, where `stopAudio` is known",
    lacks="wideband (8 kHz whatever the stream's rate), and live audio: 400 ms are gathered first",
)
