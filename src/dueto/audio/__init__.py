"""Numbers only: samples, codecs, rates, and the account of what was played."""

from dueto.audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from dueto.audio.pcm import FRAME_MS, Wav, duration_ms, frame_bytes, read_wav, silence, write_wav
from dueto.audio.playout import Playout, Utterance
from dueto.audio.resample import RATES_HZ, Resampler, resample_all

__all__ = [
    "FRAME_MS",
    "RATES_HZ",
    "Playout",
    "Resampler",
    "Utterance",
    "Wav",
    "alaw_decode",
    "alaw_encode",
    "duration_ms",
    "frame_bytes",
    "read_wav",
    "resample_all",
    "silence",
    "ulaw_decode",
    "ulaw_encode",
    "write_wav",
]
