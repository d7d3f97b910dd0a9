"""Turns sentences into speech: flite, else espeak-ng, else the recordings that come with dueto."""

import asyncio
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dueto.agents.speech.children import reap
from dueto.agents.speech.prompts import recorded
from dueto.audio.pcm import Wav, read_wav
from dueto.audio.resample import RATES_HZ, resample_all
from dueto.errors import LocalProtocolError, NotCapable

LONGEST_CHARS: Final = 2000
"A text beyond this is refused: two minutes of speech."
DEADLINE_S: Final = 10.0
"For a synthesiser to speak one text; flite needs 12-60 ms for a sentence."
CACHE_BYTES: Final = 16_000_000
"About eight minutes at 16 kHz."
_AT_ONCE: Final = 2
INSTALL_HINT: Final = "install flite or espeak-ng (`apt install flite`)"


@dataclass(frozen=True, slots=True)
class Synthesiser:
    """A program that speaks a text into a WAV file. `{text}` and `{out}` are filled in; no shell is involved."""

    program: str
    arguments: tuple[str, ...]
    text_on_stdin: bool = False

    def command(self, text: str, out: Path) -> list[str]:
        """Return the program and its arguments."""
        values = {"{text}": text, "{out}": str(out)}
        return [self.program, *(values.get(argument, argument) for argument in self.arguments)]


# flite takes what follows `-t` as the text, whatever it begins with; espeak-ng would read "-v x" as an option.
FLITE: Final = Synthesiser("flite", ("-voice", "slt", "-t", "{text}", "-o", "{out}"))
ESPEAK: Final = Synthesiser("espeak-ng", ("-v", "en-us", "-s", "150", "--stdin", "-w", "{out}"), text_on_stdin=True)


def installed() -> Synthesiser | None:
    """Return the best synthesiser on this machine."""
    return next((one for one in (FLITE, ESPEAK) if shutil.which(one.program)), None)


class SpeechMouth:
    """Implements `dueto.call.ports.Mouth`. What was spoken is kept, the least used goes first."""

    def __init__(self, synthesiser: Synthesiser | None = None, *, cache_bytes: int = CACHE_BYTES) -> None:
        """Without a `synthesiser` only recordings are played; `installed()` finds one."""
        self.synthesiser = synthesiser
        self._cache: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._cached_bytes = 0
        self._most_bytes = cache_bytes
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def speak(self, text: str, rate_hz: int) -> bytes:
        """Return `text` spoken: L16, mono, at `rate_hz`. Cancelling it ends the synthesiser.

        Raises: NotCapable: no synthesiser and no recording of this; it failed or took too long; the text is too long.
        """
        if rate_hz not in RATES_HZ:
            raise NotCapable(f"can't speak at {rate_hz} Hz; these are possible: {', '.join(map(str, RATES_HZ))}")
        text = " ".join(text.encode(errors="replace").decode().replace("\0", " ").split())
        if not text:
            return b""
        if len(text) > LONGEST_CHARS:
            raise NotCapable(f"a text of {len(text)} characters is too long to be said; {LONGEST_CHARS} is the most")
        known = self._cache.get((text, rate_hz))
        if known is not None:
            self._cache.move_to_end((text, rate_hz))
            return known
        wav = recorded(text) if self.synthesiser is None else await self._synthesised(self.synthesiser, text)
        if wav is None:
            raise NotCapable(f'there is no recording of "{text}": {INSTALL_HINT}')
        spoken = resample_all(*_even(wav), rate_hz)
        self._keep((text, rate_hz), spoken)
        return spoken

    def _keep(self, key: tuple[str, int], spoken: bytes) -> None:
        if len(spoken) > self._most_bytes // 2:
            return
        self._cached_bytes += len(spoken) - len(self._cache.pop(key, b""))
        self._cache[key] = spoken
        while self._cached_bytes > self._most_bytes:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    async def _synthesised(self, synthesiser: Synthesiser, text: str) -> Wav:
        async with self._free:
            with tempfile.TemporaryDirectory(prefix="dueto-") as folder:
                out = Path(folder, "speech.wav")
                feed = text.encode() if synthesiser.text_on_stdin else None
                await _run(synthesiser.command(text, out), feed)
                return _spoken(out, synthesiser.program)


async def _run(command: Sequence[str], feed: bytes | None) -> None:
    """Run a program to its end; whatever happens, it is gone afterwards.

    Raises: NotCapable: it could not be started, failed, or took longer than `DEADLINE_S`.
    """
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=null if feed is None else pipe, stdout=null, stderr=null
        )
    except OSError as error:
        raise NotCapable(f"{command[0]} can't be started: {error}") from error
    try:
        async with asyncio.timeout(DEADLINE_S):
            await process.communicate(feed)
    except TimeoutError:
        raise NotCapable(f"{command[0]} took longer than {DEADLINE_S:.0f} s") from None
    finally:
        await reap(process)
    if process.returncode:
        raise NotCapable(f"{command[0]} failed with exit code {process.returncode}")


def _spoken(out: Path, program: str) -> Wav:
    """Return what a synthesiser wrote. Raises: NotCapable: that is no speech."""
    try:
        wav = read_wav(out.read_bytes())
    except (OSError, LocalProtocolError) as error:
        raise NotCapable(f"{program} spoke nothing: {error}") from error
    if wav.channels != 1 or not wav.pcm:
        raise NotCapable(f"{program} gave {wav.channels} channels and {len(wav.pcm)} bytes")
    return wav


def _even(wav: Wav) -> tuple[bytes, int]:
    """Return the audio at a rate that can be resampled further: espeak-ng speaks at 22,050 Hz."""
    if wav.rate_hz in RATES_HZ:
        return wav.pcm, wav.rate_hz
    return _any_rate(wav.pcm, wav.rate_hz, 16000), 16000


def _any_rate(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """Resample a whole utterance between any two rates, by cutting its spectrum."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    size = max(samples.size * to_hz // from_hz, 1)
    spectrum = np.fft.rfft(samples)
    out = np.zeros(size // 2 + 1, np.complex128)
    shared = min(out.size, spectrum.size)
    out[:shared] = spectrum[:shared]
    changed = np.fft.irfft(out, size) * (size / samples.size)
    return np.clip(np.rint(changed), -32768, 32767).astype("<i2").tobytes()
