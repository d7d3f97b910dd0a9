"""What a channel can play: tones, silence, files. All of it L16, little-endian, mono, cut into frames of 20 ms."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dueto.audio import frame_bytes, pcm, resample_all
from dueto.errors import LocalProtocolError

FRAME_S: Final = 0.02
_TONE = re.compile(r"%\((\d+),\s*(\d+),\s*([\d.,\s]+)\)")
_LOOPS = re.compile(r"(?:^|;)\s*(?:L|loops)=(-?\d+)")
_RAW = re.compile(r"\.r(8|16|24|32|48|64)$")


class NoSuchSound(Exception):
    """There is nothing of that name, or nothing in it can be played."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that exists only inside the simulated switch; the audio module writes them."""

    data: bytes
    rate_hz: int = 0
    "Of headerless L16; 0: the data begins with a WAV header."

    @classmethod
    def of_base64(cls, text: object) -> "StoredFile | None":
        """Return what `text` encodes; None for anything else."""
        try:
            return cls(base64.b64decode(text, validate=True)) if isinstance(text, str) else None
        except binascii.Error:
            return None


class Sound:
    """Something being played: a piece of audio, once or over and over, read frame by frame."""

    __slots__ = ("_cycle", "_frame_bytes", "_left", "_position", "played_bytes")

    def __init__(self, cycle: bytes, frame_bytes: int, *, loops: int = 1) -> None:
        """`loops` of -1: for ever."""
        self._cycle = cycle
        self._frame_bytes = frame_bytes
        self._left: float = len(cycle) * loops if loops >= 0 else float("inf")
        self._position = 0
        self.played_bytes = 0

    def is_over(self) -> bool:
        """Whether all of it has been read."""
        return self._left <= 0 or not self._cycle

    def read(self) -> bytes:
        """Return the next frame; the last one is filled up with silence."""
        want = int(min(self._frame_bytes, self._left))
        frame = self._cycle[self._position : self._position + want]
        while len(frame) < want:
            frame += self._cycle[: want - len(frame)]
        self._position = (self._position + want) % len(self._cycle)
        self._left -= want
        self.played_bytes += want
        return frame.ljust(self._frame_bytes, b"\0")


def tone(rate_hz: int, seconds: float, *frequencies_hz: float, dbfs: float = -12.0) -> bytes:
    """Return L16 of one or more frequencies at once, each at `dbfs`."""
    return pcm.mix(*(pcm.tone(rate_hz, seconds * 1000, frequency, dbfs) for frequency in frequencies_hz))


def _from_wav(data: bytes, rate_hz: int) -> bytes:
    try:
        wav = pcm.read_wav(data)
    except LocalProtocolError as error:
        raise NoSuchSound(str(error)) from None
    left = pcm.split_stereo(wav.pcm)[0] if wav.channels == 2 else wav.pcm
    return resample_all(left, wav.rate_hz, rate_hz)


def load(source: "bytes | str | Path", rate_hz: int) -> bytes:
    """Return what a caller is to say: L16 bytes are taken as they are, a path is read as a WAV.

    Raises: NoSuchSound: no such file, or no WAV.
    """
    if isinstance(source, bytes):
        return source
    try:
        return _from_wav(Path(source).read_bytes(), rate_hz)
    except OSError as error:
        raise NoSuchSound(str(error)) from None


def open_sound(name: str, rate_hz: int, files: Mapping[str, StoredFile]) -> Sound:
    """Open what `playback` names: `silence_stream://MS`, `tone_stream://...`, a stored file or one on disk.

    Raises: NoSuchSound: the switch would say FILE NOT FOUND.
    """
    size = frame_bytes(rate_hz)
    scheme, _, rest = name.partition("://")
    if scheme == "silence_stream":
        milliseconds = int(rest.partition(",")[0] or 0)
        if milliseconds < 0:
            return Sound(bytes(size), size, loops=-1)
        return Sound(bytes(rate_hz * milliseconds // 1000 * 2), size)
    if scheme == "tone_stream":
        return Sound(_tone_cycle(rest, rate_hz), size, loops=_tone_loops(rest))
    if (stored := files.get(name)) is not None:
        if not stored.rate_hz:
            return Sound(_from_wav(stored.data, rate_hz), size)
        return Sound(resample_all(stored.data[: len(stored.data) & ~1], stored.rate_hz, rate_hz), size)
    if (raw := _RAW.search(name)) is not None:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise NoSuchSound(str(error)) from None
        return Sound(resample_all(data, int(raw[1]) * 1000, rate_hz), size)
    return Sound(load(Path(name), rate_hz), size)


def _tone_cycle(text: str, rate_hz: int) -> bytes:
    cycle = b""
    for on_ms, off_ms, frequencies in _TONE.findall(text):
        parts = [float(part) for part in frequencies.split(",") if part.strip()]
        cycle += tone(rate_hz, int(on_ms) / 1000, *parts) + bytes(rate_hz * int(off_ms) // 1000 * 2)
    if not cycle:
        raise NoSuchSound(f"no tone in {text!r}")
    return cycle


def _tone_loops(text: str) -> int:
    found = _LOOPS.search(text)
    return int(found[1]) if found else 1
