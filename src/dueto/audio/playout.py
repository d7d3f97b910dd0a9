"""The playout ledger: what was queued, what was sent, and what the caller has heard of it. Pure; `now` is passed in.

Everything that asks "what was heard?" asks here: barge-in, truncation, the transcript, the recording, the hangup when
the sentence is over. One `Playout` per call; times are float seconds on one monotonic scale that never goes back.

How it decides:

- Pacing. The far end plays in real time, so audio sent is heard one frame after the other. As much is sent ahead as
  the lead allows. After a stall the clock starts anew: what is late is played late, never in a burst.
- Thresholds. A bursty utterance (a provider, `say`) waits until some of it is queued (`start_ms`; `rearm_ms` after an
  underrun), or until it is finished, or `HOLD_S` long: too little audio is still better than none for ever. A live one
  is never held back.
- Turns. Utterances play in the order of opening, each once the earlier is finished and sent. One that is not finished
  and has nothing to send keeps its turn while nobody else waits; otherwise it loses it after `GIVE_WAY_S` of silence
  to the first that can play, and goes on after that one. So an abandoned utterance blocks nobody for ever. A live one
  that never pauses is not abandoned: who wants to speak after it finishes it.
- Warm-up. Some far ends begin to play, from silence, only once they hold `warm_up_ms`. So nothing is sent into silence
  before there is so much to send, or no more comes: then silence makes up for what is missing.
- Loss. A far end that is gone takes along what it had not played: it is sent again to the next one (`far_end_lost`).
- Backlog. What the kernel still holds has not been played, whatever the clock says; then the clock is put back.
"""

import math
from collections import deque
from typing import Final

from dueto.audio.lane import CLOSED, Lane, VoiceLane
from dueto.audio.utterance import Span, Utterance
from dueto.errors import LocalProtocolError

__all__ = ["Playout", "Utterance"]

STEADY_S: Final = 0.015
"How early a frame may leave where that keeps the steps even: three quarters of a tick."
EARLY_S: Final = 0.001
"A tick may come this much too early and still finds its frame due; the lead is exceeded by no more than this."
HOLD_S: Final = 0.5
"The longest an utterance is held back for its threshold, from when it was first seen waiting."
GIVE_WAY_S: Final = 2.0
"The silence after which an unfinished utterance without audio lets another one play."
LIVE_AHEAD_S: Final = 0.06
"How far ahead of the caller's ear live audio may stand for good; more is caught up by dropping some."
CATCH_UP_AFTER_S: Final = 1.0
"How long it may stand there before: a module that sends 200 ms at a time is not late."
NEAR_SILENCE_S: Final = 0.06
"With less than this ahead of the caller's ear, the far end may have run dry without our knowing."
MAX_OPEN: Final = 256
"Utterances that may be open at once; more than that is a leak."
_DUST_S: Final = 1e-9
"Differences of float seconds below this are rounding."


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
        self.underruns = 0
        "How often a bursty utterance had a gap. Live ones have gaps of their own, not counted here."
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
        self._start = self._bytes(max(start_ms, warm_up_ms))
        self._rearm = self._bytes(max(rearm_ms, warm_up_ms))
        self._live_start = self._bytes(warm_up_ms)
        self._max_queued = self._bytes(max_queued_ms)
        self._max_live = max(self._bytes(max_live_ms), self._frame_bytes + self._live_start)
        self._kept_frames = math.ceil(lead_ms / frame_ms) + 1
        self._run_since = float("-inf")
        "When the far end was last seen to begin out of silence, or to come so near it that it may have."
        self._padding_s = 0.0
        "Of what was sent, the silence at its end that only makes up for a warm-up."
        self._unsettled = False
        "The far end may be waiting for more before it plays what it has."
        self._order: deque[Utterance] = deque()
        "Not finished, or not yet sent; the first has the turn."
        self._spans: deque[Span] = deque()
        "Sent and, when last looked at, not wholly heard; in the order of play."
        self._play_until = float("-inf")
        self._starved_since: float | None = None
        self._ahead_since: float | None = None
        self._waiting = 0
        self._sent = 0
        self._next_id = 1

    @property
    def sent_ms(self) -> int:
        """What has been sent over the call's life, without the silence that fills up last frames."""
        self._write_down()
        return self._sent * 1000 // self._bytes_per_s

    @property
    def waiting_ms(self) -> int:
        """What is still to be sent, all utterances together."""
        self._write_down()
        return self._waiting * 1000 // self._bytes_per_s

    @property
    def plays_until(self) -> float:
        """When the far end has played all it was sent, silence that makes up for a warm-up included."""
        self._write_down()
        return self._play_until

    @property
    def sounds_until(self) -> float:
        """When the last of what was sent ends at the caller; in the past: it is silent."""
        self._write_down()
        return self._play_until - self._padding_s

    def open(self, *, live: bool = False, interruptible: bool = True) -> Utterance:
        """Begin an utterance; it plays after those opened before it.

        Raises: LocalProtocolError: `MAX_OPEN` are open already.
        """
        if len(self._order) >= MAX_OPEN:
            raise LocalProtocolError(f"{MAX_OPEN} utterances are open and not finished")
        self.close_lanes()
        utterance = Utterance(self._next_id, live, interruptible, self._bytes_per_s)
        utterance._held |= self._live_start > 0
        utterance._kept = deque(maxlen=self._kept_frames)
        self._next_id += 1
        self._order.append(utterance)
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
        size = len(frame)
        if size != self._frame_bytes or not self._has_the_stage(utterance):
            return False
        start_s = self._play_until
        if start_s - now <= self.lane.ahead_s:
            self._ahead_since = None
            if start_s < now:
                if self._live_start:
                    return False
                start_s = now
        elif start_s - now > self._ahead_s or self._stands(now):
            return False
        self._play_until = end_s = start_s + self._frame_s
        spans = self._spans
        if spans and (last := spans[-1]).end_s == start_s and last.utterance is utterance:
            last.end_s = end_s
            last.size += size
        else:
            self._close_spans(now)
            spans.append(Span(utterance, start_s, end_s, size))
        utterance._queued += size
        utterance._sent += size
        self._sent += size
        self._padding_s = 0.0
        self._starved_since = None
        return True

    def _has_the_stage(self, utterance: Utterance) -> bool:
        """Whether it is live, the only one there is, and nothing of it waits."""
        order = self._order
        if len(order) != 1 or order[0] is not utterance or not utterance.live or utterance.finished:
            return False
        return not (utterance._frames or utterance._tail)

    def open_lane(self) -> None:
        """After a frame was passed on: let those that are like it go by `lane`, at a fraction of the cost."""
        if self._ahead_since is None:
            self.lane.until_s = self._play_until
            self.lane.frame_bytes = self._frame_bytes

    def open_voice_lane(self, held_s: float, slack_s: float) -> None:
        """After `carry_on` gave a frame: let those that follow come from `voice_lane`, at a fraction of the cost.

        `held_s`: what the far end still has, by its own count, whenever one of them falls due. That is what the lead
        has to hold, as if `carry_on` was told the difference to this account as its lag: up to `slack_s`.
        """
        if len(self._spans) != 1 or abs(held_s - self._ahead_s) > STEADY_S - _DUST_S:
            return
        utterance, least_s = self._spans[0].utterance, max(held_s - slack_s, NEAR_SILENCE_S) + _DUST_S
        most_s = self._ahead_s + STEADY_S - _DUST_S  # where this account is ahead of the far end's, it is what counts
        self.voice_lane.open(utterance._frames, utterance._kept, self._play_until, least_s, most_s)

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
            utterance = self._passed(lane.until_s, size)
            utterance._queued += size
        elif voices.taken != voices.noted:
            size, voices.noted = (voices.taken - voices.noted) * self._frame_bytes, voices.taken
            utterance = self._spans[-1].utterance
            size = min(size, utterance._queued - utterance._sent)
            self._waiting -= size
            self._passed(voices.until_s, size)

    def _passed(self, until_s: float, size: int) -> Utterance:
        """Account for what follows the last frame without a gap, by a lane; return whose it is."""
        last = self._spans[-1]
        self._play_until = last.end_s = until_s
        last.size += size
        last.utterance._sent += size
        self._sent += size
        return last.utterance

    def catches_up(self, utterance: Utterance, frame: bytes, now: float) -> bool:
        """Drop a frame of a live utterance, if that is what it takes to be live again.

        After a stall everything comes at once, and as live audio neither stops nor plays faster, what stands ahead of
        the caller's ear then would stand there for the rest of the call. True: dropped, and counted; not to be added.
        """
        self.close_lanes()
        if not utterance.live or not self._order or self._order[0] is not utterance or not self._stands(now):
            return False
        utterance._dropped += len(frame)
        self.dropped_ms += len(frame) * 1000 // self._bytes_per_s
        return True

    def _stands(self, now: float) -> bool:
        """Whether live audio has been too far ahead for too long."""
        if self._play_until - now <= self.lane.ahead_s and self._waiting < self._frame_bytes:
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
        lead_s, ahead_s = self._lead_s + EARLY_S - lag_ms / 1000, self._ahead_s - lag_ms / 1000
        if backlog_ms > 0:
            self._put_back(now, backlog_ms / 1000)
        self._close_spans(now)
        out: list[bytes] = []
        while (utterance := self._turn(now)) is not None:
            start_s = max(self._play_until, now + filler_ms / 1000)
            room = int((lead_s - (start_s - now)) / self._frame_s + _DUST_S)
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
            self._sent_now(utterance, count, start_s, now)
        if self._live_start and (out or self._unsettled):
            out += self._made_up(now)
        return out

    def carry_on(self, now: float, backlog_ms: float = 0.0, *, lag_ms: float = 0.0) -> bytes | None:
        """Return the next frame of a bursty utterance that is playing, if it is all that a ticker would get from `due`.

        It counts as sent; `backlog_ms` and `lag_ms` as there. None: no frame has been touched; ask `due`. Nearly every
        frame of what is said goes this way, at a third of the cost of the other.
        """
        self.close_lanes()
        order, spans = self._order, self._spans
        if not order or not spans or self._live_start or self._play_until <= now:
            return None
        utterance, last = order[0], spans[-1]
        frames = utterance._frames
        if not frames or utterance.live or utterance._held or last.utterance is not utterance:
            return None
        if backlog_ms > 0:
            self._put_back(now, backlog_ms / 1000)
        start_s = self._play_until
        if not -STEADY_S < start_s - now - self._ahead_s + lag_ms / 1000 <= STEADY_S:
            return None
        if last.end_s != start_s or start_s - now < NEAR_SILENCE_S or spans[0].end_s <= now + _DUST_S:
            return None
        frame = frames.popleft()
        utterance._kept.append(frame)
        size = min(self._frame_bytes, utterance._queued - utterance._sent)
        last.end_s = self._play_until = start_s + self._frame_s
        last.size += size
        utterance._sent += size
        self._sent += size
        self._waiting -= size
        self._padding_s = 0.0
        self._starved_since = None
        return frame

    def far_end_lost(self, now: float) -> None:
        """The far end is gone, with all that it had not played: of bursty utterances that is sent again to the next.

        A frame that was heard in part is heard again from its beginning.
        """
        self.close_lanes()
        self._close_spans(now)
        for span in reversed(tuple(self._spans)):
            utterance = span.utterance
            self._spans.pop()
            if utterance.live or utterance.cleared:
                continue
            frames = round((span.end_s - span.start_s) / self._frame_s)
            heard = max(int((now - span.start_s) / self._frame_s + _DUST_S), 0)
            again = min(frames - heard, len(utterance._kept))
            size = max(again * self._frame_bytes - (frames * self._frame_bytes - span.size), 0)
            utterance._frames.extendleft([utterance._kept.pop() for _ in range(again)])
            utterance._sent -= size
            utterance._heard += span.size - size
            utterance._ended_at = None
            self._sent -= size
            self._waiting += size
            if utterance not in self._order:
                self._order.appendleft(utterance)
        self._play_until = min(self._play_until, now)
        self._padding_s = 0.0

    def next_due(self, now: float) -> float | None:
        """Return when `due` may give something next, if nothing else happens meanwhile; None: not before more is added.

        Never too late by this; where it was too early (a turn changed hands), ask again.
        """
        self.close_lanes()
        if self._turn(now) is not None:
            return max(now, self._play_until + self._frame_s - self._lead_s)
        if not self._order:
            return None
        head = self._order[0]
        if head._frames:
            held_since = now if head._held_since is None else head._held_since
            return max(now, held_since + HOLD_S, self._play_until + self._frame_s - self._lead_s)
        if self._starved_since is None:
            return None
        return max(now, max(self._starved_since, self._play_until) + GIVE_WAY_S)

    def heard_ms(self, utterance: Utterance, now: float) -> int:
        """Return how much of `utterance` the caller has heard by `now`; it never shrinks, nor passes `sent_ms`."""
        self._write_down()
        if not utterance.cleared:
            heard = utterance._heard
            for span in self._spans:
                if span.utterance is utterance and now > span.start_s:
                    heard += min(span.size, round((now - span.start_s) * self._bytes_per_s))
            utterance._told = max(utterance._told, heard)
        return utterance._told * 1000 // self._bytes_per_s

    def heard_at(self, utterance: Utterance) -> float | None:
        """Return the time at which the last frame of `utterance` ends at the caller.

        None while that is not known (not finished, or not all sent), and if it was cleared. It still moves to a later
        time when the kernel turns out to hold back what was sent.
        """
        self._write_down()
        if utterance.cleared or not utterance.finished or utterance._frames:
            return None
        for span in reversed(self._spans):
            if span.utterance is utterance:
                return span.end_s
        return utterance._ended_at

    def current(self, now: float) -> Utterance | None:
        """Return the utterance that the caller hears at `now`; None: silence."""
        self._write_down()
        for span in self._spans:
            if span.start_s <= now < span.end_s:
                return None if span.utterance.cleared else span.utterance
        return None

    def idle(self, now: float) -> bool:
        """Whether the caller hears nothing and no frame waits to be sent. An open utterance may still bring more."""
        return self.sounds_until <= now + _DUST_S and not any(utterance._frames for utterance in self._order)

    def clear(self, now: float, *, drops_sent: bool) -> list[tuple[Utterance, int]]:
        """Cut off everything that is not heard yet; return each utterance it hit with its ms heard, by age.

        `drops_sent`: the far end empties its buffer too, so what was sent and not played is never heard. Otherwise it
        will be, and counts as heard; an utterance that was finished and sent to its end then goes on unhurt.
        """
        self.close_lanes()
        self.generation += 1
        self._close_spans(now)
        hit = [utterance for utterance in self._order if utterance._frames or not utterance.finished]
        for utterance in self._order:
            self._complete(utterance, now)
        if drops_sent:
            sounding = {span.utterance for span in self._spans if not span.utterance.cleared}
            hit = list(sounding.union(hit))
        hit.sort(key=lambda utterance: utterance.id)
        result = []
        for utterance in hit:
            if not drops_sent:
                utterance._told = utterance._sent
            result.append((utterance, self.heard_ms(utterance, now)))
            utterance.cleared = True
            utterance._frames.clear()
            utterance._tail = b""
        self._order.clear()
        self._waiting = 0
        self._starved_since = None
        if drops_sent:
            self._spans.clear()
            self._play_until = min(self._play_until, now)
            self._padding_s = 0.0
            self._unsettled = False
        return result

    def _bytes(self, ms: float) -> int:
        return int(ms * self._bytes_per_s / 1000)

    def _turn(self, now: float) -> Utterance | None:
        """Return the utterance that may send at `now`, after seeing to whose turn it is."""
        order = self._order
        while order:
            head = order[0]
            if head._frames:
                self._starved_since = None
                if (head._held or self._ran_dry(head, now)) and not self._released(head, now):
                    return None
                return head
            if head.finished:
                order.popleft()
                self._complete(head, now)
                continue
            waiting = next((u for u in order if u._frames or u.finished), None) if len(order) > 1 else None
            if waiting is None:
                self._starved_since = None
                return None
            if self._starved_since is None:
                self._starved_since = now
            if now < max(self._starved_since, self._play_until) + GIVE_WAY_S:
                return None
            order.remove(waiting)
            order.appendleft(waiting)
        self._starved_since = None
        return None

    def _complete(self, utterance: Utterance, now: float) -> None:
        """One that is finished without a sound is over when what came before it is."""
        if utterance.finished and not utterance._frames and not utterance._sent:
            utterance._ended_at = max(now, self._play_until)

    def _ran_dry(self, utterance: Utterance, now: float) -> bool:
        """Whether the caller heard a gap in the middle of a bursty utterance; then it is held back once more."""
        if now <= self._play_until + EARLY_S or not utterance._sent or (utterance.live and not self._live_start):
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

    def _made_up(self, now: float) -> list[bytes]:
        """Return the silence without which the far end would not begin to play what was just sent."""
        missing_s = self._warm_up_s - (self._play_until - self._run_since)
        head = self._order[0] if self._order else None
        near = self._run_since > now  # else it was silent for certain
        self._unsettled = missing_s > _DUST_S and head is not None and (bool(head._frames) or near)
        if missing_s <= _DUST_S or self._unsettled:
            return []
        count = math.ceil(missing_s / self._frame_s - _DUST_S)
        self._play_until += count * self._frame_s
        self._padding_s = count * self._frame_s
        return [bytes(self._frame_bytes)] * count

    def _sent_now(self, utterance: Utterance, count: int, start_s: float, now: float) -> None:
        """Account for `count` frames of `utterance` that play from `start_s` on."""
        if start_s - now < NEAR_SILENCE_S:
            self._run_since = start_s
        self._padding_s = 0.0
        size = min(count * self._frame_bytes, utterance._queued - utterance._sent)
        if utterance._began_at is None:
            utterance._began_at = start_s
        end_s = start_s + count * self._frame_s
        last = self._spans[-1] if self._spans else None
        if last is not None and last.utterance is utterance and last.end_s == start_s:
            last.end_s = end_s
            last.size += size
        else:
            self._spans.append(Span(utterance, start_s, end_s, size))
        utterance._sent += size
        self._sent += size
        self._waiting -= size
        self._play_until = end_s

    def _drop_oldest(self, utterance: Utterance) -> None:
        utterance._frames.popleft()
        utterance._queued -= self._frame_bytes
        utterance._dropped += self._frame_bytes
        self._waiting -= self._frame_bytes
        self.dropped_ms += self.frame_ms

    def _close_spans(self, now: float) -> None:
        """Take what is wholly heard off the list, into the utterance's own account."""
        while self._spans and self._spans[0].end_s <= now + _DUST_S:
            span = self._spans.popleft()
            span.utterance._heard += span.size
            span.utterance._ended_at = span.end_s

    def _put_back(self, now: float, backlog_s: float) -> None:
        """The last `backlog_s` of what was sent have not left us: none of it plays before `now`."""
        after_s = 0.0
        for span in reversed(self._spans):
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
        self._play_until = max(self._play_until, now + backlog_s)
