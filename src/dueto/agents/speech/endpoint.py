"""Finds where speech begins and ends, from how likely each window of audio is speech. Pure."""

from collections import deque
from dataclasses import dataclass

from dueto.agents.speech.narrowband import HEARD_HZ

WINDOW_SAMPLES = 256
WINDOW_BYTES = 2 * WINDOW_SAMPLES
WINDOW_MS = WINDOW_SAMPLES * 1000 // HEARD_HZ
"32 ms: what the detector takes at 8 kHz."


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """When it is speech, and when it is over. Lengths count in windows of 32 ms."""

    on: float = 0.5
    "A window at least this likely is speech."
    off: float = 0.35
    "One below this is a pause; between the two it stays what it was."
    min_speech: int = 3
    "This many windows of speech within `within` begin an utterance: 96 ms; a click is shorter."
    within: int = 5
    pause: int = 14
    "This many windows of pause end it: 448 ms; people rest 200-300 ms within a phrase."
    before: int = 8
    "Kept from before the first window of speech: 256 ms; soft consonants begin unnoticed."
    doubt: int = 6
    "After this many windows of pause it is likely over: recognition may begin, and is thrown away if speech goes on."
    after: int = 5
    "Kept of the pause; not more than `doubt`, so that what is recognised early is what is recognised."
    longest: int = 250
    "8 s; then it is cut and the rest is an utterance of its own."


@dataclass(frozen=True, slots=True)
class Began:
    """An utterance has begun."""

    started_ms: int
    "Of its first window of speech, since the first audio."


@dataclass(frozen=True, slots=True)
class Paused:
    """The utterance may be over. If nothing more comes, the `Utterance` will be just this."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class Utterance:
    """An utterance is over."""

    pcm: bytes
    "L16 at 8 kHz, with a little silence on both sides."
    started_ms: int
    ended_ms: int
    "The end of the last window of speech."


class Endpointer:
    """Takes windows one by one; says when an utterance has begun, and hands it over when it is over."""

    def __init__(self, rules: EndpointRules | None = None) -> None:
        self._rules = rules or EndpointRules()
        self._window = 0
        "The number of the next window."
        self._kept: deque[bytes] = deque(maxlen=self._rules.before + self._rules.within)
        self._recent: deque[bool] = deque(maxlen=self._rules.within)
        self._utterance: list[bytes] | None = None
        self._first = 0
        "The first window of speech."
        self._last = 0
        "The latest window of speech."
        self._speaking = False

    def feed(self, window: bytes, likely: float) -> Began | Paused | Utterance | None:
        """Take the next 256 samples and how likely they are speech, 0.0 to 1.0."""
        rules = self._rules
        self._speaking = likely >= rules.on or (self._speaking and likely >= rules.off)
        number = self._window
        self._window += 1
        if self._utterance is None:
            return self._waiting(window, number)
        self._utterance.append(window)
        if self._speaking:
            self._last = number
        if number - self._last >= rules.pause or len(self._utterance) >= rules.longest + rules.before:
            return self._over()
        return Paused(self._kept_of(self._utterance)) if number - self._last == rules.doubt else None

    def _waiting(self, window: bytes, number: int) -> Began | None:
        self._kept.append(window)
        self._recent.append(self._speaking)
        if sum(self._recent) < self._rules.min_speech:
            return None
        self._first = number - len(self._recent) + 1 + self._recent.index(True)
        self._last = number
        kept = list(self._kept)
        self._utterance = kept[-(number - self._first + 1 + self._rules.before) :]
        return Began(self._first * WINDOW_MS)

    def _over(self) -> Utterance:
        windows = self._utterance or []
        # The rest of the pause may be the soft beginning of what comes next.
        self._kept.clear()
        self._kept.extend(windows[len(windows) - self._beyond :])
        self._recent.clear()
        self._utterance = None
        return Utterance(self._kept_of(windows), self._first * WINDOW_MS, (self._last + 1) * WINDOW_MS)

    @property
    def _beyond(self) -> int:
        """How many windows of the pause are not kept."""
        return max(self._window - 1 - self._last - self._rules.after, 0)

    def _kept_of(self, windows: list[bytes]) -> bytes:
        return b"".join(windows[: len(windows) - self._beyond])
