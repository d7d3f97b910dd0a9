"""What was sent of a call's audio, and when the caller hears it: the side of the playout ledger that looks back.

The far end plays in real time, so what was sent is heard one frame after the other. That is only reckoned: what the
kernel still holds has not been played, whatever the clock says, and what is put back then is heard later.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, final

from dueto.audio.utterance import Utterance

DUST_S: Final = 1e-9
"Differences of float seconds below this are rounding."


@dataclass(slots=True, eq=False)
class Span:
    """A stretch of one utterance that the caller hears without a gap."""

    utterance: Utterance
    start_s: float
    end_s: float
    size: int
    "Bytes of real audio, without the silence at the end."


@final
class Sent:
    """The account of it, in spans. Made by `Playout`, which writes frames that go one by one into it by itself."""

    __slots__ = ("_bytes_per_s", "_frame_bytes", "_frame_s", "padding_s", "size", "spans", "until_s")

    def __init__(self, bytes_per_s: int, frame_s: float, frame_bytes: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._frame_s = frame_s
        self._frame_bytes = frame_bytes
        self.spans: deque[Span] = deque()
        "Sent and, when last looked at, not wholly heard; in the order of play."
        self.until_s = float("-inf")
        "When the far end has played all of it."
        self.padding_s = 0.0
        "The silence at its end that only makes up for a warm-up."
        self.size = 0
        "Bytes of real audio over the call's life."

    # -- what is sent

    def add(self, utterance: Utterance, frames: int, start_s: float) -> int:
        """So many frames of `utterance` were sent and play from `start_s` on; return how much real audio is in them."""
        size = min(frames * self._frame_bytes, utterance._queued - utterance._sent)
        if utterance._began_at is None:
            utterance._began_at = start_s
        self.until_s = end_s = start_s + frames * self._frame_s
        self.padding_s = 0.0
        last = self.spans[-1] if self.spans else None
        if last is not None and last.utterance is utterance and last.end_s == start_s:
            last.end_s = end_s
            last.size += size
        else:
            self.spans.append(Span(utterance, start_s, end_s, size))
        utterance._sent += size
        self.size += size
        return size

    def go_on(self, until_s: float, size: int) -> None:
        """More of what was sent last has followed without a gap, and plays until then."""
        last = self.spans[-1]
        self.until_s = last.end_s = until_s
        last.size += size
        last.utterance._sent += size
        self.size += size

    def pad(self, frames: int) -> None:
        """So many frames of silence were sent behind it, for a far end that has to warm up."""
        self.padding_s = frames * self._frame_s
        self.until_s += self.padding_s

    # -- what becomes of it

    def note_heard(self, now: float) -> None:
        """Take the spans that are wholly heard off the list, into the utterances' own accounts."""
        spans = self.spans
        while spans and spans[0].end_s <= now + DUST_S:
            span = spans.popleft()
            span.utterance._heard += span.size
            span.utterance._ended_at = span.end_s

    def put_back(self, now: float, backlog_s: float) -> None:
        """The last `backlog_s` of it have not left us: none of that plays before `now`."""
        after_s = self.padding_s
        for span in reversed(self.spans):
            late_s = now + backlog_s - after_s - span.end_s
            after_s += span.end_s - span.start_s
            if late_s > 0:
                if span.utterance._began_at == span.start_s:
                    span.utterance._began_at = span.start_s + late_s
                # what of the span has left was heard before `now`: moving all of it changes no answer
                span.start_s += late_s
                span.end_s += late_s
            if after_s >= backlog_s:
                break
        self.until_s = max(self.until_s, now + backlog_s)

    def forget(self, now: float) -> None:
        """The far end has emptied its buffer: the rest of it is never heard."""
        self.spans.clear()
        self._silent_from(now)

    def take_back(self, now: float) -> list[tuple[Utterance, int]]:
        """The far end is gone: give what it had not played back to the bursty utterances, to be sent once more.

        Returns whose it is and how many bytes, the last first. A frame that was heard in part is given back whole.
        """
        self.note_heard(now)
        given = []
        while self.spans:
            span = self.spans.pop()
            utterance = span.utterance
            if utterance.live or utterance.cleared:
                utterance._heard += self._heard_of(span, now)
                continue
            if utterance._began_at == span.start_s >= now:
                utterance._began_at = None
            frames = round((span.end_s - span.start_s) / self._frame_s)
            heard = max(int((now - span.start_s) / self._frame_s + DUST_S), 0)
            again = min(frames - heard, len(utterance._kept))
            size = max(again * self._frame_bytes - (frames * self._frame_bytes - span.size), 0)
            utterance._frames.extendleft([utterance._kept.pop() for _ in range(again)])
            utterance._sent -= size
            utterance._heard += span.size - size
            self.size -= size
            given.append((utterance, size))
        self._silent_from(now)
        return given

    def _silent_from(self, now: float) -> None:
        self.until_s = min(self.until_s, now)
        self.padding_s = 0.0

    # -- what was heard

    def heard(self, utterance: Utterance, now: float) -> int:
        """Return how many bytes of `utterance` the caller has heard by `now`; once told, it never shrinks."""
        if not utterance.cleared:
            heard = utterance._heard
            for span in self.spans:
                if span.utterance is utterance:
                    heard += self._heard_of(span, now)
            utterance._told = max(utterance._told, heard)
        return utterance._told

    def _heard_of(self, span: Span, now: float) -> int:
        return min(span.size, round((now - span.start_s) * self._bytes_per_s)) if now > span.start_s else 0

    def end_of(self, utterance: Utterance) -> float | None:
        """Return when the last that was sent of `utterance` ends at the caller; None: nothing was."""
        for span in reversed(self.spans):
            if span.utterance is utterance:
                return span.end_s
        return utterance._ended_at

    def sounding(self, now: float) -> Utterance | None:
        """Return the utterance that the caller hears at `now`; None: silence."""
        for span in self.spans:
            if span.start_s <= now < span.end_s:
                return None if span.utterance.cleared else span.utterance
        return None

    def unheard(self) -> set[Utterance]:
        """Return the utterances of which the caller has still something to hear, as far as was looked."""
        return {span.utterance for span in self.spans if not span.utterance.cleared}
