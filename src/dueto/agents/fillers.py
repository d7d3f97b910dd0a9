"""What the caller hears where the model has nothing to say yet: a first sentence, and something in a long silence."""

import asyncio
import contextlib
import difflib
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dueto.audio.pcm import read_wav
from dueto.audio.resample import RATES_HZ, resample_all
from dueto.errors import DuetoError, LocalProtocolError, SettingsError

if TYPE_CHECKING:
    from dueto.call.call import Call

TONE: Final = "tone"
SPEAK_S: Final = 2.0
"How long a sentence may take to be made; most are kept from the call before."
LONGEST_WAV_BYTES: Final = 20_000_000
_TONE_RATE_HZ: Final = 48000


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording: L16, mono."""

    pcm: bytes
    rate_hz: int
    _made: dict[int, bytes] = field(default_factory=dict, compare=False, repr=False)

    def at(self, rate_hz: int) -> bytes:
        """Return it at another rate; made once for each."""
        made = self._made.get(rate_hz)
        if made is None:
            made = self._made[rate_hz] = resample_all(self.pcm, self.rate_hz, rate_hz)
        return made


def read_sound(path: str, key: str) -> Sound:
    """Read a WAV file that a configuration names under `key`. Raises: SettingsError."""
    try:
        if Path(path).stat().st_size > LONGEST_WAV_BYTES:
            raise SettingsError(f"{key}: {path} is larger than {LONGEST_WAV_BYTES // 1_000_000} MB")
        wav = read_wav(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(f"{key}: {path}: {error.strerror}") from None
    except LocalProtocolError as error:
        raise SettingsError(f"{key}: {path}: {error}") from None
    if wav.channels != 1 or wav.rate_hz not in RATES_HZ or not wav.pcm:
        rates = ", ".join(map(str, RATES_HZ))
        raise SettingsError(f"{key}: {path}: expected a WAV of one channel and 16 bits, at one of {rates} Hz")
    return Sound(wav.pcm, wav.rate_hz)


def thinking_tone() -> Sound:
    """Return two seconds to be repeated: a soft, short tone, then silence."""
    at = np.arange(int(0.12 * _TONE_RATE_HZ)) / _TONE_RATE_HZ
    swell = np.sin(np.pi * at / at[-1])
    samples = np.zeros(2 * _TONE_RATE_HZ)
    samples[: at.size] = 800.0 * swell * np.sin(2 * np.pi * 440.0 * at)
    return Sound(samples.astype("<i2").tobytes(), _TONE_RATE_HZ)


@dataclass(frozen=True, slots=True)
class Welcome:
    """A first sentence that is heard before the model is there."""

    text: str
    sound: Sound | None = None
    "None: the call's mouth speaks it."

    async def pcm(self, call: "Call") -> bytes | None:
        """Return it at the call's rate; None: it can't be said here, and the model has to."""
        if self.sound is not None:
            return self.sound.at(call.rate_hz)
        return await spoken(call, self.text)


class LearntWelcome:
    """A first sentence that the model says to its first caller; the later ones hear that at once, in the same voice."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sound: Sound | None = None

    @property
    def known(self) -> bool:
        """Whether there is nothing more to learn."""
        return self._sound is not None

    async def pcm(self, call: "Call") -> bytes | None:
        """Return it at the call's rate; None: it is not known yet, and the model says it."""
        return None if self._sound is None else self._sound.at(call.rate_hz)

    def learn(self, words: str, pcm: bytes, rate_hz: int) -> bool:
        """Keep what the model said, if these are the words that it was to say."""
        if not self.known and 0 < len(pcm) <= LONGEST_WAV_BYTES and _alike(words, self.text):
            self._sound = Sound(pcm, rate_hz)
        return self.known


def _alike(one: str, other: str) -> bool:
    """Whether two texts have the same words, but for one in ten."""
    these, those = (re.findall(r"\w+", text.lower()) for text in (one, other))
    return difflib.SequenceMatcher(None, these, those).ratio() >= 0.9


async def spoken(call: "Call", text: str) -> bytes | None:
    """Have the call's mouth speak `text`; None: there is no mouth, or it does not come to it in time."""
    if call.mouth is None:
        return None
    with contextlib.suppress(DuetoError, TimeoutError):
        async with asyncio.timeout(SPEAK_S):
            return await call.mouth.speak(text, call.rate_hz)
    return None


class Filler:
    """Fills the silences of one call: with a sound that is repeated, or with a sentence.

    A sound goes out as live audio, a frame for every frame of the caller's: no task, and nothing is queued that an
    answer would have to wait behind.
    """

    def __init__(
        self, call: "Call", what: str | Sound, spawn: Callable[[str, Coroutine[Any, Any, None]], object]
    ) -> None:
        """`spawn` runs and owns a task."""
        self._call = call
        self._what = what
        self._spawn = spawn
        self._loop = b""
        self._at = 0
        self._stop: Callable[[], None] | None = None
        self._wanted = 0

    def begin(self) -> bool:
        """Begin to be heard; whether it is a sound, which goes on until `end`."""
        self.end()
        if isinstance(self._what, str):
            self._wanted += 1
            self._spawn("filler", self._say(self._what, self._wanted))
            return False
        self._loop = self._loop or self._what.at(self._call.rate_hz)
        self._at = 0
        with contextlib.suppress(DuetoError):
            self._stop = self._call.audio_to(self._frame)
        return True

    def end(self) -> None:
        """Be silent; a sentence that has begun is said to its end."""
        self._wanted += 1
        if self._stop is not None:
            self._stop()
            self._stop = None

    def _frame(self, frame: bytes) -> None:
        size = self._call.rate_hz // 25
        self._call.write_now(self._loop[self._at : self._at + size].ljust(size, b"\0"))
        self._at = (self._at + size) % len(self._loop)

    async def _say(self, text: str, wanted: int) -> None:
        pcm = await spoken(self._call, text)
        if pcm and wanted == self._wanted:  # else the answer has come meanwhile
            with contextlib.suppress(DuetoError):
                saying = self._call.utterance()
                saying.add(pcm)
                saying.finish()
