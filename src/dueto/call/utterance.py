"""Something the agent says while it is still being made: a model's answer, piece by piece."""

import contextlib
import math

from dueto.audio.resample import Resampler
from dueto.call.player import Saying
from dueto.errors import LocalProtocolError


class Utterance:
    """Made by `call.utterance(...)`. Add to it, finish it, and ask what was heard of it.

    answer = call.utterance(rate_hz=24000)
    answer.add(pcm)             # as it comes, faster or slower than it can be heard
    answer.finish()
    await answer.heard()        # or raises Interrupted(heard_ms)
    """

    def __init__(self, saying: Saying, rate_hz: int, call_rate_hz: int) -> None:
        self._saying = saying
        self._resampler = Resampler(rate_hz, call_rate_hz)
        self._odd = b""

    def add(self, pcm: bytes) -> None:
        """Say more: L16, little-endian, mono, at the rate that was asked for, of any length. Once cut, nothing is said.

        Raises: LocalProtocolError: it is finished, or two minutes of audio are waiting already.
        """
        if self._odd:
            pcm = self._odd + pcm
        self._odd = pcm[len(pcm) & ~1 :]
        if pcm := self._resampler.process(pcm[: len(pcm) & ~1]):
            self._saying.add(pcm)

    def finish(self) -> None:
        """Nothing more comes. Again: nothing to do."""
        if not self._saying.finished and self._resampler.delay_ms:
            tail_ms = math.ceil(self._resampler.delay_ms)
            with contextlib.suppress(LocalProtocolError):  # no more can wait: it ends a few ms sooner
                self._saying.add(self._resampler.process(bytes(2 * self._resampler.from_hz // 1000 * tail_ms)))
        self._saying.finish()

    async def heard(self) -> None:
        """Wait until the caller has heard all of it. Safe to cancel: it is said all the same.

        Raises: Interrupted: it was cut; NotCapable, LegClosed, ReplyTimeout: it can't be heard.
        """
        await self._saying.heard()

    @property
    def heard_ms(self) -> int:
        """How much of it the caller has heard by now."""
        return self._saying.heard_ms

    @property
    def queued_ms(self) -> int:
        """How much of it there is so far, heard or not."""
        return self._saying.queued_ms

    @property
    def began_at(self) -> float | None:
        """When the caller hears, or heard, its first sound, on the call's clock; None while that is not known."""
        return self._saying.began_at

    @property
    def done(self) -> bool:
        """Whether it was heard, cut, or failed."""
        return self._saying.done

    @property
    def interrupted(self) -> bool:
        """Whether it ended before all of it was heard."""
        return self._saying.interrupted
