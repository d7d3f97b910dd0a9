"""Whose turn it is: the side of the playout ledger that decides which utterance may send, and none before it should.

- Turns. Utterances play in the order of opening, each once the earlier is finished and sent. One that is not finished
  and has nothing to send keeps its turn while nobody else waits; otherwise it loses it after `GIVE_WAY_S` of silence
  to the first that can play, and goes on after that one. So an abandoned utterance blocks nobody for ever. A live one
  that never pauses is not abandoned: who wants to speak after it finishes it.
- Thresholds. A bursty utterance (a provider, `say`) waits until some of it is queued, more at its start than after an
  underrun; or until it is finished, or `HOLD_S` long: too little audio is still better than none for ever. A live one
  is never held back, but for a far end that has to warm up.
"""

from collections import deque
from typing import Final, final

from dueto.audio.utterance import Utterance
from dueto.errors import LocalProtocolError

EARLY_S: Final = 0.001
"A tick may come this much too early and still finds its frame due; the lead is exceeded by no more than this."
HOLD_S: Final = 0.5
"The longest an utterance is held back for its threshold, from when it was first seen waiting."
GIVE_WAY_S: Final = 2.0
"The silence after which an unfinished utterance without audio lets another one play."
MAX_OPEN: Final = 256
"Utterances that may be open at once; more than that is a leak."


@final
class Turns:
    """Keeps the utterances in the order in which they play. Made by `Playout`, which says until when sound is sent.

    `start`, `rearm` and `live_start` are the thresholds: how many bytes a bursty utterance needs to begin and to go on
    after an underrun, and a live one in either case.
    """

    __slots__ = ("_live_start", "_rearm", "_start", "order", "starved_since", "underruns")

    def __init__(self, start: int, rearm: int, live_start: int) -> None:
        self._start = start
        self._rearm = rearm
        self._live_start = live_start
        self.order: deque[Utterance] = deque()
        "Not finished, or not yet sent; the first has the turn."
        self.starved_since: float | None = None
        "Since when the first keeps others waiting for nothing."
        self.underruns = 0
        "How often a bursty utterance had a gap. Live ones have gaps of their own, not counted here."

    def join(self, utterance: Utterance) -> None:
        """Let it play after those that are here. Raises: LocalProtocolError: `MAX_OPEN` are open already."""
        if len(self.order) >= MAX_OPEN:
            raise LocalProtocolError(f"{MAX_OPEN} utterances are open and not finished")
        utterance._held |= self._live_start > 0
        self.order.append(utterance)

    def rejoin(self, utterance: Utterance) -> None:
        """It has something to send once more, before all others."""
        if utterance not in self.order:
            self.order.appendleft(utterance)

    def clear(self, now: float, until_s: float) -> list[Utterance]:
        """All turns are over; return those utterances that had not sent all there was, or will be."""
        cut = [utterance for utterance in self.order if utterance._frames or not utterance.finished]
        for utterance in self.order:
            _complete(utterance, now, until_s)
        self.order.clear()
        self.starved_since = None
        return cut

    def at(self, now: float, until_s: float) -> Utterance | None:
        """Return the utterance that may send at `now`, after seeing to whose turn it is; sound was sent `until_s`."""
        order = self.order
        while order:
            head = order[0]
            if head._frames:
                self.starved_since = None
                if (head._held or self._ran_dry(head, now, until_s)) and not self._released(head, now):
                    return None
                return head
            if head.finished:
                order.popleft()
                _complete(head, now, until_s)
                continue
            waiting = next((u for u in order if u._frames or u.finished), None) if len(order) > 1 else None
            if waiting is None:
                self.starved_since = None
                return None
            if self.starved_since is None:
                self.starved_since = now
            if now < max(self.starved_since, until_s) + GIVE_WAY_S:
                return None
            order.remove(waiting)
            order.appendleft(waiting)
        self.starved_since = None
        return None

    def next_at(self, now: float, until_s: float) -> float | None:
        """Where nobody may send at `now`: when somebody may, if nothing is added; None: not before."""
        if not self.order:
            return None
        head = self.order[0]
        if head._frames:
            return (now if head._held_since is None else head._held_since) + HOLD_S
        return None if self.starved_since is None else max(self.starved_since, until_s) + GIVE_WAY_S

    def waits(self) -> bool:
        """Whether anything waits to be sent."""
        return any(utterance._frames for utterance in self.order)

    def has_the_stage(self, utterance: Utterance) -> bool:
        """Whether it is live, the only one there is, and nothing of it waits."""
        order = self.order
        if len(order) != 1 or order[0] is not utterance or not utterance.live or utterance.finished:
            return False
        return not (utterance._frames or utterance._tail)

    def _ran_dry(self, utterance: Utterance, now: float, until_s: float) -> bool:
        """Whether the caller heard a gap in the middle of a bursty utterance; then it is held back once more."""
        if now <= until_s + EARLY_S or not utterance._sent or (utterance.live and not self._live_start):
            return False
        self.underruns += not utterance.live
        utterance._held = True
        return True

    def _released(self, utterance: Utterance, now: float) -> bool:
        """Whether a held utterance may go now."""
        if utterance._held_since is None:
            utterance._held_since = now
        threshold = self._live_start if utterance.live else self._rearm if utterance._sent else self._start
        if (
            utterance.finished
            or utterance._queued - utterance._sent >= threshold
            or now >= utterance._held_since + HOLD_S
        ):
            utterance._held = False
            utterance._held_since = None
            return True
        return False


def _complete(utterance: Utterance, now: float, until_s: float) -> None:
    """One that is finished without a sound is over when what came before it is."""
    if utterance.finished and not utterance._frames and not utterance._sent:
        utterance._ended_at = max(now, until_s)
