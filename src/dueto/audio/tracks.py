"""Two tracks on one time line: what the caller said, and what he heard of us. Pure; times are passed in."""

from typing import Final

from dueto.audio.pcm import join_stereo

CALLER_SLACK_S: Final = 0.1
"The caller's frames come unevenly; up to here one follows the other as if they did not."
CALLER_AHEAD_S: Final = 0.5
"After a hold the switch sends up to half a second at once; more than that ahead of the time line is dropped."
AGENT_SLACK_S: Final = 0.002
"The ledger's times are exact, up to rounding."


class _Track:
    def __init__(self, rate_hz: int, slack_s: float, ahead_s: float) -> None:
        self._bytes_per_s = 2 * rate_hz
        self._slack = self._size(slack_s)
        self._ahead = self._size(ahead_s)
        self._audio = bytearray()

    def _size(self, seconds: float) -> int:
        return 2 * round(seconds * self._bytes_per_s / 2)

    def put(self, pcm: bytes, after_s: float) -> None:
        """Lay `pcm` down `after_s` behind what was taken last; what should have been taken already is lost."""
        at, end = self._size(after_s), len(self._audio)
        if abs(at - end) <= self._slack or 0 < end - at <= self._ahead:
            at = end
        elif end - at > self._ahead > 0:
            return
        if at < 0:
            pcm, at = pcm[-at:], 0
        self._audio += bytes(max(at - end, 0))
        self._audio[at : at + len(pcm)] = pcm

    def cut(self, after_s: float) -> None:
        """Forget what was laid down from there on."""
        del self._audio[max(self._size(after_s), 0) :]

    def take(self, size: int) -> bytes:
        taken = bytes(self._audio[:size])
        del self._audio[:size]
        return taken.ljust(size, b"\0")


class TwoTracks:
    """Caller left, agent right, L16 at `rate_hz`, from `start_s` on. What is laid down too late to be taken is lost."""

    def __init__(self, rate_hz: int, start_s: float) -> None:
        self._start_s = start_s
        self._rate_hz = rate_hz
        self._taken = 0
        "Samples."
        self._caller = _Track(rate_hz, CALLER_SLACK_S, CALLER_AHEAD_S)
        self._agent = _Track(rate_hz, AGENT_SLACK_S, 0.0)

    def caller(self, pcm: bytes, at_s: float) -> None:
        """What the caller said; it began at about `at_s`."""
        self._caller.put(pcm, self._after(at_s))

    def agent(self, pcm: bytes, at_s: float) -> None:
        """What the caller hears of us from exactly `at_s` on."""
        self._agent.put(pcm, self._after(at_s))

    def cut(self, at_s: float) -> None:
        """From `at_s` on he hears nothing of what was laid down so far."""
        self._agent.cut(self._after(at_s))

    def take(self, until_s: float) -> bytes:
        """Return what lies before `until_s` and was not taken yet, samples interleaved; silence where nothing does."""
        samples = max(round((until_s - self._start_s) * self._rate_hz) - self._taken, 0)
        self._taken += samples
        return join_stereo(self._caller.take(2 * samples), self._agent.take(2 * samples))

    def _after(self, at_s: float) -> float:
        return at_s - self._start_s - self._taken / self._rate_hz
