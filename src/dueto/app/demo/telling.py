"""From what was noted of a call to its story: moments, figures, and the outcome."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from dueto.app.demo.listening import echoes, sounding_s
from dueto.app.demo.notebook import Lane, Note
from dueto.app.demo.story import Figures, Moment, Outcome
from dueto.app.demo.words import in_words
from dueto.sim import SimCall

ANSWERED_S = 0.5
"This much must be heard of whoever the caller was connected with."
LEAD_S = 0.3
"What the agent said may still be heard this long after the bridge."
_ANSWERS = ("understands", "takes_digit")
_SPEAKS = ("says", "was_heard")
_ENDS: dict[tuple[Lane, str], tuple[str, ...]] = {
    ("agent", "says"): ("said", "interrupted", "cut", "told_of_hangup"),
    ("agent", "transfers"): ("transfer_result", "told_of_hangup"),
    ("caller", "says"): ("said", "hangup"),
}
"What takes time, and the notes that end it."


def moments_of(notes: Sequence[Note], began: float) -> tuple[Moment, ...]:
    """Return the notes as moments since `began`; what takes time has its end."""
    moments = []
    for position, note in enumerate(notes):
        ends = _ENDS.get((note.lane, note.name), ())
        end = next((n.at for n in notes[position + 1 :] if n.lane == note.lane and n.name in ends), None)
        moments.append(
            Moment(
                at_s=note.at - began,
                lane=note.lane,
                name=note.name,
                text=in_words(note),
                fields=note.fields,
                until_s=None if end is None else end - began,
            )
        )
    return tuple(moments)


def figures_of(call: SimCall, notes: Sequence[Note]) -> Figures:
    """Measure a call that is over."""
    control, media = _at(notes, "control", "control_connected"), _at(notes, "media", "media_connected")
    told, gone = _at(notes, "agent", "told_of_hangup"), _at(notes, "gateway", "call_ended")
    delivered = next((note for note in notes if note.name == "hangup_delivered"), None)
    silences = [float(note.fields["silence_ms"]) for note in notes if note.name == "barge_in"]
    first: Literal["control", "media", ""] = ""
    if control is not None and media is not None:
        first = "control" if control < media else "media"
    hung_up = call.hung_up_at or None
    return Figures(
        pairing_ms=_ms(control, media) if first == "control" else _ms(media, control),
        first_leg=first,
        hangup_to_agent_ms=delivered.fields["to_agent_ms"] if delivered is not None else None,
        bye_to_agent_ms=_ms(hung_up, told),
        let_go_ms=_ms(hung_up, gone),
        silent_ms=max(silences, default=None),
        frames_up=call.counters.frames_up,
        frames_down=call.counters.frames_down,
        gaps=call.counters.gaps,
    )


def outcome_of(call: SimCall, notes: Sequence[Note], telephones: Mapping[str, str]) -> Outcome:
    """Judge a call that is over. `telephones`: the dial string of each destination."""
    target = _reached(call, notes, telephones)
    turns = [note for note in notes if note.lane == "agent" and note.name in (*_ANSWERS, *_SPEAKS)]
    by_caller = any(note.lane == "caller" and note.name == "hangup" for note in notes)
    by_agent = _at(notes, "gateway", "agent_finished") is not None
    return Outcome(
        asked_again=_asked_again(turns),
        chosen_by=_choice(turns) if target else "",
        transferred_to=target,
        refused_by=_refused(notes),
        announced=bool(target)
        and any(n.name == "transfer_answered" and n.fields["answer"] == "accepted" for n in notes),
        digits="".join(str(note.fields["digit"]) for note in notes if note.lane == "gateway" and note.name == "dtmf"),
        heard_itself=not target and echoes(call.said, call.heard, call.rate_hz),
        hung_up_by="caller" if by_caller else "agent" if by_agent else "switch",
        agent_told=any(note.name == "hangup_delivered" for note in notes),
    )


def _reached(call: SimCall, notes: Sequence[Note], telephones: Mapping[str, str]) -> str:
    """Return the destination that was connected with the caller and heard by it; empty: none."""
    bridged_at = _at(notes, "control", "CHANNEL_BRIDGE")
    if bridged_at is None or not call.bridged_to:
        return ""
    if sounding_s(call.heard, call.rate_hz, bridged_at - call.placed_at + LEAD_S) < ANSWERED_S:
        return ""
    return next((name for name, dial in telephones.items() if call.bridged_dial.endswith(dial)), "")


def _refused(notes: Sequence[Note]) -> str:
    """Return the destination that a transfer did not reach; empty: none."""
    tried = [note for note in notes if note.lane == "gateway" and note.name == "transfer"]
    return next((str(note.fields["target"]) for note in tried if note.fields["outcome"] != "bridged"), "")


def _asked_again(turns: Sequence[Note]) -> bool:
    """Return whether the agent answered something of the caller's by speaking, and then needed more from it."""
    answers = [position for position, turn in enumerate(turns) if turn.name in _ANSWERS]
    return any(any(turn.name in _SPEAKS for turn in turns[one:other]) for one, other in pairwise(answers))


def _choice(turns: Sequence[Note]) -> Literal["", "speech", "key"]:
    answers = [turn.name for turn in turns if turn.name in _ANSWERS]
    if not answers:
        return ""
    return "key" if answers[-1] == "takes_digit" else "speech"


def _at(notes: Sequence[Note], lane: Lane, name: str) -> float | None:
    return next((note.at for note in notes if note.lane == lane and note.name == name), None)


def _ms(begin: float | None, end: float | None) -> float | None:
    return (end - begin) * 1000 if begin is not None and end is not None else None
