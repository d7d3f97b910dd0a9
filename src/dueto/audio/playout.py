"""The playout ledger: what was queued, what was sent, and what the caller has heard of it. Pure; `now` is passed in.

Everything that asks "what was heard?" asks here: barge-in, truncation, the transcript, the recording, the hangup when
the sentence is over. One `Playout` per call; times are float seconds on one monotonic scale that never goes back.

Whose turn it is to be sent is decided in `turns`, what was sent and is heard is kept in `sent`. Here is decided when
the next frame goes:

- Pacing. The far end plays in real time, so audio sent is heard one frame after the other. As much is sent ahead as
  the lead allows. After a stall the clock starts anew: what is late is played late, never in a burst.
- Warm-up. Some far ends begin to play, from silence, only once they hold `warm_up_ms`. So nothing is sent into silence
  before there is so much to send, or no more comes: then silence makes up for what is missing.
- Live audio. It neither stops nor plays faster; what a stall left standing ahead of the caller's ear is dropped.
- Short ways. Nearly every frame is like the one before it: it needs no decision, or only to be told so (`lane`).
"""

import math
from collections import deque
from operator import attrgetter
from typing import Final

from dueto.audio.lane import CLOSED, Lane, VoiceLane
from dueto.audio.sent import DUST_S, Sent
from dueto.audio.turns import EARLY_S, Turns
from dueto.audio.utterance import Utterance
from dueto.errors import LocalProtocolError

__all__ = ["Playout", "Utterance"]

STEADY_S: Final = 0.015
"How early a frame may leave where that keeps the steps even: three quarters of a tick."
LIVE_AHEAD_S: Final = 0.06
"How far ahead of the caller's ear live audio may stand for good; more is caught up by dropping some."
CATCH_UP_AFTER_S: Final = 1.0
"How long it may stand there before: a module that sends 200 ms at a time is not late."
NEAR_SILENCE_S: Final = 0.06
"With less than this ahead of the caller's ear, the far end may have run dry without our knowing."


class Playout:
    """Paces one call's audio and keeps the account of it.

    `rate_hz` is that of all audio (L16, mono); `lead_ms` how far ahead of the caller's ear is sent, at least a frame;
    `max_queued_ms` bounds what bursty utterances may let wait together, `max_live_ms` what a live one may.
    """

    def __init__(
        self,
        rate_hz: int,
        *,
        frame_ms: int = 20,
        lead_ms: float = 160,
        start_ms: float = 100,
        rearm_ms: float = 60,
        max_queued_ms: float = 120_000,
        max_live_ms: float = 2_000,
        warm_up_ms: float = 0,
    ) -> None:
        if rate_hz * frame_ms % 1000:
            raise ValueError(f"{frame_ms} ms at {rate_hz} Hz is not a whole number of samples")
        if lead_ms < max(frame_ms, warm_up_ms):
            raise ValueError(
                f"a lead of {lead_ms} ms holds no frame of {frame_ms} ms, or no warm-up of {warm_up_ms} ms"
            )
        self.rate_hz = rate_hz
        self.frame_ms = frame_ms
        self.generation = 0
        "Grows with every `clear`: a frame of an older one must not be sent any more."
        self.dropped_ms = 0
        "What all live utterances lost together."
        self._bytes_per_s = 2 * rate_hz
        self._frame_bytes = self._bytes_per_s * frame_ms // 1000
        self._frame_s = frame_ms / 1000
        self._lead_s = lead_ms / 1000
        self._ahead_s = self._lead_s + EARLY_S - self._frame_s  # a frame that starts no later than this may go
        self._warm_up_s = warm_up_ms / 1000
        self.lane = Lane(self._frame_s, min(LIVE_AHEAD_S + self._warm_up_s, self._ahead_s))
        "Where the frames of a live utterance go that is all there is; open by `open_lane`, until anything changes."
        self.voice_lane = VoiceLane(self._frame_s)
        "Where those of a bursty one come from that plays on; open by `open_voice_lane`, until anything changes."
        live_start = self._bytes(warm_up_ms)
        self._turns = Turns(self._bytes(max(start_ms, warm_up_ms)), self._bytes(max(rearm_ms, warm_up_ms)), live_start)
        self._sent = Sent(self._bytes_per_s, self._frame_s, self._frame_bytes)
        self._max_queued = self._bytes(max_queued_ms)
        self._max_live = max(self._bytes(max_live_ms), self._frame_bytes + live_start)
        self._kept_frames = math.ceil(lead_ms / frame_ms) + 1
        self._run_since = float("-inf")
        "When the far end was last seen to begin out of silence, or to come so near it that it may have."
        self._unsettled = False
        "The far end may be waiting for more before it plays what it has."
        self._ahead_since: float | None = None
        self._waiting = 0
        self._next_id = 1

    @property
    def sent_ms(self) -> int:
        """What has been sent over the call's life, without the silence that fills up last frames."""
        self._write_down()
        return self._sent.size * 1000 // self._bytes_per_s

    @property
    def waiting_ms(self) -> int:
        """What is still to be sent, all utterances together."""
        self._write_down()
        return self._waiting * 1000 // self._bytes_per_s

    @property
    def plays_until(self) -> float:
        """When the far end has played all it was sent, silence that makes up for a warm-up included."""
        self._write_down()
        return self._sent.until_s

    @property
    def sounds_until(self) -> float:
        """When the last of what was sent ends at the caller; in the past: it is silent."""
        self._write_down()
        return self._sent.until_s - self._sent.padding_s

    @property
    def underruns(self) -> int:
        """How often a bursty utterance had a gap. Live ones have gaps of their own, not counted here."""
        return self._turns.underruns

    def open(self, *, live: bool = False, interruptible: bool = True) -> Utterance:
        """Begin an utterance; it plays after those opened before it.

        Raises: LocalProtocolError: `MAX_OPEN` are open already.
        """
        self.close_lanes()
        utterance = Utterance(self._next_id, live, interruptible, self._bytes_per_s)
        utterance._kept = deque(maxlen=self._kept_frames)
        self._turns.join(utterance)
        self._next_id += 1
        return utterance

    def add(self, utterance: Utterance, pcm: bytes | bytearray | memoryview) -> None:
        """Queue more of `utterance`: L16, little-endian, mono, of any size; a part of a frame waits for the rest.

        A live utterance that has more than `max_live_ms` waiting afterwards loses the oldest of it.

        Raises: LocalProtocolError: it is finished or cleared, or (not live) more than `max_queued_ms` would wait;
            nothing was queued.
        """
        if utterance.live:
            self.close_lanes()
        else:  # more of what plays on, or of what comes after it
            self._write_down()
        if utterance.cleared or utterance.finished:
            raise LocalProtocolError(f"{utterance!r} takes no more audio")
        size = pcm.nbytes if isinstance(pcm, memoryview) else len(pcm)
        if not utterance.live and self._waiting + size > self._max_queued:
            raise LocalProtocolError(f"more than {self._max_queued * 1000 // self._bytes_per_s} ms would be waiting")
        data = utterance._tail + pcm if utterance._tail else bytes(pcm)
        frames, step = utterance._frames, self._frame_bytes
        if len(data) == step:
            frames.append(data)
            utterance._tail = b""
        else:
            whole = len(data) - len(data) % step
            frames.extend([data[at : at + step] for at in range(0, whole, step)])
            utterance._tail = data[whole:]
        utterance._queued += size
        self._waiting += size
        if utterance.live:
            while utterance._queued - utterance._sent > self._max_live:
                self._drop_oldest(utterance)

    def pass_on(self, utterance: Utterance, frame: bytes, now: float) -> bool:
        """Send a whole frame of a live utterance at once, past the queue, if that is what `add` and `due` would do.

        True: it counts as sent, send it. False: nothing has changed; `add` it.
        """
        self.close_lanes()
        sent, turns, size = self._sent, self._turns, len(frame)
        if size != self._frame_bytes or not turns.has_the_stage(utterance):
            return False
        start_s = sent.until_s
        if start_s - now <= self.lane.ahead_s:
            self._ahead_since = None
            if start_s < now:
                if self._warm_up_s:
                    return False
                start_s = now
        elif start_s - now > self._ahead_s or self._stands(now):
            return False
        utterance._queued += size
        spans = sent.spans
        if spans and (last := spans[-1]).end_s == start_s and last.utterance is utterance:
            last.end_s = sent.until_s = start_s + self._frame_s
            last.size += size
            utterance._sent += size
            sent.size += size
            sent.padding_s = 0.0
        else:
            sent.note_heard(now)
            sent.add(utterance, 1, start_s)
        turns.starved_since = None
        return True

    def open_lane(self) -> None:
        """After a frame was passed on: let those that are like it go by `lane`, at a fraction of the cost."""
        if self._ahead_since is None:
            self.lane.until_s = self._sent.until_s
            self.lane.frame_bytes = self._frame_bytes

    def open_voice_lane(self, held_s: float, slack_s: float) -> None:
        """After `carry_on` gave a frame: let those that follow come from `voice_lane`, at a fraction of the cost.

        `held_s`: what the far end still has, by its own count, whenever one of them falls due. That is what the lead
        has to hold, as if `carry_on` was told the difference to this account as its lag: up to `slack_s`.
        """
        sent = self._sent
        if len(sent.spans) != 1 or not self._just_one(held_s - DUST_S) or not self._just_one(held_s + DUST_S):
            return
        utterance, least_s = sent.spans[0].utterance, max(held_s - slack_s, NEAR_SILENCE_S) + DUST_S
        most_s = min(self._ahead_s + STEADY_S, held_s) - DUST_S  # more than the far end can have: look at it again
        self.voice_lane.open(utterance._frames, utterance._kept, sent.until_s, least_s, most_s)

    def close_lanes(self) -> None:
        """Write down what went by the lanes, and let no more pass. Everything that changes anything begins so."""
        self._write_down()
        self.lane.frame_bytes = CLOSED
        self.voice_lane.close()

    def _write_down(self) -> None:
        """Write down what went by the lanes. Every answer begins so."""
        lane, voices = self.lane, self.voice_lane
        if lane.frames != lane.noted:
            size, lane.noted = (lane.frames - lane.noted) * self._frame_bytes, lane.frames
            self._sent.spans[-1].utterance._queued += size
            self._sent.go_on(lane.until_s, size)
        elif voices.taken != voices.noted:
            size, voices.noted = (voices.taken - voices.noted) * self._frame_bytes, voices.taken
            utterance = self._sent.spans[-1].utterance
            size = min(size, utterance._queued - utterance._sent)
            self._waiting -= size
            self._sent.go_on(voices.until_s, size)

    def catches_up(self, utterance: Utterance, frame: bytes, now: float) -> bool:
        """Drop a frame of a live utterance, if that is what it takes to be live again.

        After a stall everything comes at once, and as live audio neither stops nor plays faster, what stands ahead of
        the caller's ear then would stand there for the rest of the call. True: dropped, and counted; not to be added.
        """
        self.close_lanes()
        order = self._turns.order
        if not utterance.live or not order or order[0] is not utterance or not self._stands(now):
            return False
        size = len(frame) // 2 * 2
        if size < len(frame):  # the rest of its last sample is still to come
            self.add(utterance, frame[size:])
        utterance._dropped += size
        self.dropped_ms += size * 1000 // self._bytes_per_s
        return True

    def _stands(self, now: float) -> bool:
        """Whether live audio has been too far ahead for too long."""
        if self._sent.until_s - now <= self.lane.ahead_s and self._waiting < self._frame_bytes:
            self._ahead_since = None
            return False
        if self._ahead_since is None:
            self._ahead_since = now
        return now - self._ahead_since >= CATCH_UP_AFTER_S

    def finish(self, utterance: Utterance) -> None:
        """Nothing more comes: its last frame is filled up with silence. Again, or after a clear: nothing to do."""
        if utterance.finished or utterance.cleared:
            return
        self.close_lanes()
        utterance.finished = True
        tail, utterance._tail = utterance._tail, b""
        if len(tail) % 2:  # half a sample can't be played
            tail = tail[:-1]
            utterance._queued -= 1
            self._waiting -= 1
        if tail:
            utterance._frames.append(tail.ljust(self._frame_bytes, b"\0"))

    def due(
        self,
        now: float,
        backlog_ms: float = 0.0,
        *,
        ticks: bool = False,
        filler_ms: float = 0.0,
        lag_ms: float = 0.0,
    ) -> list[bytes]:
        """Return the frames to send right now, in order; they count as sent.

        `backlog_ms` is what the kernel and the write buffer still hold of what was sent: not heard yet, for certain.
        `ticks`: somebody asks every 20 ms, more or less; a frame that has to go before he comes again goes now, or a
        ticker a moment early would send none, and two the next time. `filler_ms`: what the far end, if it is silent,
        plays first. `lag_ms`: by how much it plays later than this account has it; the lead must hold that, too.
        """
        self.close_lanes()
        sent, turns = self._sent, self._turns
        lead_s, ahead_s = self._lead_s + EARLY_S - lag_ms / 1000, self._ahead_s - lag_ms / 1000
        if backlog_ms > 0:
            sent.put_back(now, backlog_ms / 1000)
        sent.note_heard(now)
        out: list[bytes] = []
        while (utterance := turns.at(now, sent.until_s)) is not None:
            start_s = max(sent.until_s, now + filler_ms / 1000)
            room = int((lead_s - (start_s - now)) / self._frame_s + DUST_S)
            if room <= 0:
                early_s = start_s - now - ahead_s
                if not ticks or out or early_s > STEADY_S:
                    break
                room = 1
            frames = utterance._frames
            if room == 1 or len(frames) == 1:
                count = 1
                out.append(frames.popleft())
            else:
                count = min(room, len(frames))
                out.extend([frames.popleft() for _ in range(count)])
            if not utterance.live:
                utterance._kept.extend(out[-count:])
            if start_s - now < NEAR_SILENCE_S:
                self._run_since = start_s
            self._waiting -= sent.add(utterance, count, start_s)
        if self._warm_up_s and (out or self._unsettled):
            out += self._made_up(now)
        return out

    def carry_on(self, now: float, backlog_ms: float = 0.0, *, lag_ms: float = 0.0) -> bytes | None:
        """Return the next frame of a bursty utterance that is playing, if it is all that a ticker would get from `due`.

        It counts as sent; `backlog_ms` and `lag_ms` as there. None: no frame has been touched; ask `due`. Nearly every
        frame of what is said goes this way, at a third of the cost of the other.
        """
        self.close_lanes()
        sent, turns = self._sent, self._turns
        order, spans, start_s = turns.order, sent.spans, sent.until_s
        if not order or not spans or self._warm_up_s or start_s <= now:
            return None
        utterance, last = order[0], spans[-1]
        frames = utterance._frames
        if not frames or utterance.live or utterance._held or last.utterance is not utterance:
            return None
        if utterance.finished and len(frames) == 1:  # with its last frame the turn passes to the next
            return None
        if backlog_ms > 0:
            sent.put_back(now, backlog_ms / 1000)
            start_s = sent.until_s
        if not self._just_one(start_s - now + lag_ms / 1000):
            return None
        if last.end_s != start_s or start_s - now < NEAR_SILENCE_S or spans[0].end_s <= now + DUST_S:
            return None
        frame = frames.popleft()
        utterance._kept.append(frame)
        size = min(self._frame_bytes, utterance._queued - utterance._sent)
        last.end_s = sent.until_s = start_s + self._frame_s
        last.size += size
        utterance._sent += size
        sent.size += size
        sent.padding_s = 0.0
        self._waiting -= size
        turns.starved_since = None
        return frame

    def _just_one(self, held_s: float) -> bool:
        """Whether one frame is due, or nearly, and no more than one, while the far end holds so much."""
        return -self._frame_s < held_s - self._ahead_s <= STEADY_S

    def far_end_lost(self, now: float) -> None:
        """The far end is gone, with all that it had not played: of bursty utterances that is sent again to the next.

        A frame that was heard in part is heard again from its beginning.
        """
        self.close_lanes()
        for utterance, size in self._sent.take_back(now):
            self._waiting += size
            self._turns.rejoin(utterance)

    def next_due(self, now: float) -> float | None:
        """Return when `due` may give something next, if nothing else happens meanwhile; None: not before more is added.

        Never too late by this; where it was too early (a turn changed hands), ask again.
        """
        self.close_lanes()
        until_s = self._sent.until_s
        if self._turns.at(now, until_s) is not None:
            next_at: float | None = now
        else:
            next_at = self._turns.next_at(now, until_s)
        return None if next_at is None else max(now, next_at, until_s + self._frame_s - self._lead_s)

    def heard_ms(self, utterance: Utterance, now: float) -> int:
        """Return how much of `utterance` the caller has heard by `now`; it never shrinks, nor passes `sent_ms`."""
        self._write_down()
        return self._sent.heard(utterance, now) * 1000 // self._bytes_per_s

    def heard_at(self, utterance: Utterance) -> float | None:
        """Return the time at which the last frame of `utterance` ends at the caller.

        None while that is not known (not finished, or not all sent), and if it was cleared. It still moves to a later
        time when the kernel turns out to hold back what was sent.
        """
        self._write_down()
        if utterance.cleared or not utterance.finished or utterance._frames:
            return None
        return self._sent.end_of(utterance)

    def current(self, now: float) -> Utterance | None:
        """Return the utterance that the caller hears at `now`; None: silence."""
        self._write_down()
        return self._sent.sounding(now)

    def idle(self, now: float) -> bool:
        """Whether the caller hears nothing and no frame waits to be sent. An open utterance may still bring more."""
        return self.sounds_until <= now + DUST_S and not self._turns.waits()

    def clear(self, now: float, *, drops_sent: bool) -> list[tuple[Utterance, int]]:
        """Cut off everything that is not heard yet; return each utterance it hit with its ms heard, by age.

        `drops_sent`: the far end empties its buffer too, so what was sent and not played is never heard. Otherwise it
        will be, and counts as heard; an utterance that was finished and sent to its end then goes on unhurt.
        """
        self.close_lanes()
        self.generation += 1
        sent = self._sent
        sent.note_heard(now)
        hit = set(self._turns.clear(now, sent.until_s))
        if drops_sent:
            hit |= sent.unheard()
        result = []
        for utterance in sorted(hit, key=attrgetter("id")):
            if not drops_sent:
                utterance._told = utterance._sent
            result.append((utterance, self.heard_ms(utterance, now)))
            utterance.cleared = True
            utterance._frames.clear()
            utterance._tail = b""
        self._waiting = 0
        if drops_sent:
            sent.forget(now)
            self._unsettled = False
        return result

    def _bytes(self, ms: float) -> int:
        return int(ms * self._bytes_per_s / 1000)

    def _made_up(self, now: float) -> list[bytes]:
        """Return the silence without which the far end would not begin to play what was just sent."""
        sent, order = self._sent, self._turns.order
        missing_s = self._warm_up_s - (sent.until_s - self._run_since)
        head = order[0] if order else None
        near = self._run_since > now  # else it was silent for certain
        more = head is not None and (near or (bool(head._frames) and not head._held))
        self._unsettled = missing_s > DUST_S and more
        if missing_s <= DUST_S or self._unsettled:
            return []
        count = math.ceil(missing_s / self._frame_s - DUST_S)
        sent.pad(count)
        return [bytes(self._frame_bytes)] * count

    def _drop_oldest(self, utterance: Utterance) -> None:
        utterance._frames.popleft()
        utterance._queued -= self._frame_bytes
        utterance._dropped += self._frame_bytes
        self._waiting -= self._frame_bytes
        self.dropped_ms += self.frame_ms
