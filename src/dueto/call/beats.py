"""The far end's beats: it plays one of our frames in the moment in which it sends one of the caller's."""

from collections.abc import Callable
from typing import Final, final

from dueto.audio.playout import Playout
from dueto.clock import Clock

Beats = Callable[[Callable[[bytes], object]], Callable[[], None]]
"Has something called with each frame of the caller's, until what is returned is called."

PACKET_MS: Final = 20
"The far end begins to play, out of silence, when its next packet is due."
OFF_BEAT_LAG_MS: Final = 40
"That, and a round of the ticker, which is in no step with the far end."
BEAT_S: Final = 0.03
"The switch's frames beat the time while they come no further apart than this; else the ticker does."
BUNDLED_S: Final = 0.01
"Frames that come closer to each other than this are in a bundle, or come after a stall."
STALE_S: Final = 0.003
"A beat that comes so soon after the first frame was on its way already when that was sent."
_NEVER: Final = float("-inf")


@final
class Beat:
    """Counts what the far end has still to play, and sends a frame down with each of the caller's.

    By the ledger's clock alone it may hold two frames more or fewer. What needs no decision comes from the ledger's
    lane; all else is seen to by `turn`, which is told the time and returns whether there is more to come.
    """

    __slots__ = ("_at", "_began_at", "_clock", "_even_at", "_lane", "_lane_ends_at", "_ledger", "_send_down", "_turn",
                 "unplayed_ms")  # fmt: skip

    def __init__(self, clock: Clock, ledger: Playout, turn: Callable[[float], bool]) -> None:
        self._clock = clock
        self._ledger = ledger
        self._turn = turn
        self.unplayed_ms = 0.0
        "What of ours the far end has still to begin to play, by its beats; lost ones make it too much."
        self._at = self._even_at = _NEVER
        "When the last one came; when the last one came that was neither early nor late."
        self._began_at = _NEVER
        "When something was last sent out of silence."
        self._lane = ledger.voice_lane
        self._lane_ends_at = _NEVER
        self._send_down: Callable[[bytes], None] = _nowhere

    def take(self, frame: bytes) -> None:
        """A frame of the caller's: the far end has just played one of ours."""
        now = self._clock()
        even = BUNDLED_S <= now - self._at < BEAT_S and now < self._lane_ends_at
        if even and (voice := self._lane.next(now)) is not None:  # nearly always
            self._at = self._even_at = now
            self._send_down(voice)
        else:
            self._decide(now)

    def tick(self, now: float) -> bool:
        """Stand in for beats that do not come."""
        return now < self._even_at + BEAT_S or self._turn(now)

    def open_lane(self, now: float, send_down: Callable[[bytes], None], ends_at: float) -> None:
        """A frame was sent as nearly all are: while nothing changes, let those that follow go without a decision."""
        if now == self._even_at:
            self._send_down, self._lane_ends_at = send_down, ends_at
            self._ledger.open_voice_lane(self.unplayed_ms / 1000, OFF_BEAT_LAG_MS / 1000)

    def begins(self, now: float, filler_ms: float, *, beats: bool) -> None:
        """Something is being sent out of silence, to a far end that plays `filler_ms` first."""
        self._began_at = now
        self.unplayed_ms = filler_ms
        self._even_at = now if beats else _NEVER

    def lag_ms(self, now: float) -> float:
        """How much longer than the ledger thinks the far end sounds: with the packet that it has begun to play."""
        if now >= self._even_at + BEAT_S:
            return OFF_BEAT_LAG_MS
        ahead_ms = max(self._ledger.plays_until - now, 0.0) * 1000
        lag_ms = PACKET_MS + self.unplayed_ms - ahead_ms
        if not 0.0 <= lag_ms <= OFF_BEAT_LAG_MS:  # beats were lost, or came too early to be of ours
            self.unplayed_ms, lag_ms = ahead_ms, PACKET_MS
        return lag_ms

    def release(self) -> None:
        """The call is over: let go of whoever decides, and of the stream."""
        self._ledger.close_lanes()
        self._turn, self._send_down = _over, _nowhere

    def _decide(self, now: float) -> None:
        self._ledger.close_lanes()
        since_s, self._at = now - self._at, now
        if now - self._began_at >= STALE_S:
            self.unplayed_ms = max(self.unplayed_ms - PACKET_MS, 0.0)
        if since_s < BUNDLED_S:
            return
        if since_s < BEAT_S:
            self._even_at = now
        self._turn(now)


def _nowhere(frame: bytes) -> None:
    pass


def _over(now: float) -> bool:
    return False
