"""Recordings of calls, by the gateway: caller left, agent right as heard, written as it goes.

The disk is no part of a call: one thread of its own writes for all of them, what waits for it is bounded, and a disk
that is full or too slow ends a recording and never a call.
"""

import asyncio
import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from dueto.disk import DiskThread
from dueto.errors import NotCapable

Format = Literal["wav", "flac", "opus"]
MAX_WAITING_BYTES: Final = 64 << 20
"All recordings together: a minute of a hundred calls at 8 kHz."
OPENING_BYTES: Final = 64 << 10
"What a recording counts as that waits for its files: the call itself is kept by it."
MAX_NAMESAKES: Final = 100
CLOSE_S: Final = 10.0
OGG_PAGE_MS: Final = 200.0
SFC_SET_OGG_PAGE_LATENCY_MS: Final = 0x1302
"`sndfile.h`."


@dataclass(frozen=True, slots=True)
class RecordingRules:
    """Where recordings go, and which calls are recorded without anybody asking; the names are those of the settings."""

    directory: Path
    format: Format = "wav"
    calls: Literal["none", "all", "matching"] = "none"
    numbers: tuple[str, ...] = ()
    "With `matching`: patterns (`5511*`) of the number that was dialled, or that calls."
    announce: str = ""
    "What the caller hears first: a text for the mouth, `beep`, or nothing."
    redact: Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(default=dict)
    "Takes out of an event what may not stand in a file."


class AudioFile(Protocol):
    """Something stereo that takes more."""

    def write(self, pcm: bytes) -> None:
        """Append interleaved L16; it is in the file when this returns. Raises: OSError."""
        ...

    def close(self) -> None:
        """Write the end. Raises: OSError."""
        ...


class _Wav:
    """WAV whose header is right after each write, so that a crash leaves a file that can be played."""

    HEADER = struct.Struct("<4sI8sIHHIIHH4sI")

    def __init__(self, fd: int, rate_hz: int) -> None:
        self._file = open(fd, "wb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._rate_hz = rate_hz
        self._size = 0
        self._write_header()

    def write(self, pcm: bytes) -> None:
        self._put(pcm)
        self._size += len(pcm)
        self._write_header()

    def close(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        size, rate_hz = self._size, self._rate_hz
        fields = (b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 2, rate_hz, 4 * rate_hz, 4, 16, b"data", size)
        self._file.seek(0)
        self._put(self.HEADER.pack(*fields))
        self._file.seek(0, os.SEEK_END)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


class _Compressed:
    """FLAC, or Opus in Ogg, by libsndfile."""

    def __init__(self, fd: int, rate_hz: int, format: Format) -> None:
        import soundfile

        kind, subtype = ("FLAC", "PCM_16") if format == "flac" else ("OGG", "OPUS")
        self._file = soundfile.SoundFile(fd, "w", rate_hz, 2, subtype, format=kind)
        if format == "opus":  # soundfile has no word for it: without it a page, and what a crash loses, is a second
            latency_ms = soundfile._ffi.new("double*", OGG_PAGE_MS)
            soundfile._snd.sf_command(self._file._file, SFC_SET_OGG_PAGE_LATENCY_MS, latency_ms, 8)

    def write(self, pcm: bytes) -> None:
        self._file.buffer_write(pcm, "int16")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Shelf:
    """Two files side by side, `NAME.wav` and `NAME.jsonl`. All of it runs in the writing thread."""

    def __init__(self, directory: Path, stem: str, rate_hz: int, format: Format) -> None:
        """Raises: OSError: the files can't be made."""
        directory.mkdir(parents=True, exist_ok=True)
        suffix = "ogg" if format == "opus" else format
        for number in range(1, MAX_NAMESAKES):
            name = stem if number == 1 else f"{stem}-{number}"
            self.path = directory / f"{name}.{suffix}"
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
                break
            except FileExistsError:
                continue
        else:
            raise FileExistsError(f"{directory / stem}: there are {MAX_NAMESAKES} of that name already")
        self._audio: AudioFile = _Wav(fd, rate_hz) if format == "wav" else _Compressed(fd, rate_hz, format)
        lines = os.open(self.path.with_suffix(".jsonl"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        self._lines = open(lines, "w", encoding="utf-8")  # noqa: SIM115

    def write(self, pcm: bytes, lines: list[dict[str, Any]]) -> None:
        """Append both. Raises: OSError: the disk is full."""
        if lines:
            self._lines.write("".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines))
            self._lines.flush()
        if pcm:
            self._audio.write(pcm)

    def close(self) -> None:
        """Write the end of both."""
        try:
            self._audio.close()
        finally:
            self._lines.close()


class Recorder:
    """All recordings of one gateway, and the thread that writes them."""

    def __init__(self, rules: RecordingRules) -> None:
        self.rules = rules
        self._disk = DiskThread("dueto recordings", MAX_WAITING_BYTES)

    def wants(self, dialled: str, caller: str) -> bool:
        """Whether such a call is recorded without anybody asking."""
        if self.rules.calls != "matching":
            return self.rules.calls == "all"
        return any(fnmatchcase(number, pattern) for pattern in self.rules.numbers for number in (dialled, caller))

    def open(self, unique_id: str, rate_hz: int, now: datetime, ready: Callable[[Shelf | Exception], None]) -> None:
        """Make the files of one recording; `ready` gets them, or what is wrong, on the loop."""
        stem = f"{now:%H%M%S}-{re.sub(r'[^A-Za-z0-9-]', '_', unique_id)[:64]}"
        directory = self.rules.directory / f"{now:%Y-%m-%d}"
        try:
            self._disk.do(lambda: Shelf(directory, stem, rate_hz, self.rules.format), ready, OPENING_BYTES)
        except NotCapable as error:
            asyncio.get_running_loop().call_soon(ready, error)

    def write(
        self, shelf: Shelf, pcm: bytes, lines: list[dict[str, Any]], done: Callable[[Exception | None], None]
    ) -> None:
        """Append to one recording. Raises: NotCapable: the disk is too slow, and too much waits for it already."""
        self._disk.do(lambda: shelf.write(pcm, lines), done, len(pcm))

    def close(self, shelf: Shelf, done: Callable[[Exception | None], None]) -> None:
        """Write the end of one recording."""
        self._disk.do(shelf.close, done)

    async def aclose(self) -> None:
        """Let everything be written that waits; no longer than `CLOSE_S`."""
        await self._disk.aclose(CLOSE_S)
