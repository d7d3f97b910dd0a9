"""What was noted while the calls ran: by both legs, the gateway, the agent and the callers, on one clock."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dueto.clock import Clock, monotonic
from dueto.sim import SimCall

Lane = Literal["caller", "agent", "gateway", "media", "control"]
LANES: tuple[Lane, ...] = ("caller", "agent", "gateway", "media", "control")


@dataclass(frozen=True, slots=True)
class Note:
    """Something happened."""

    at: float
    "Seconds on the clock that switch and gateway share."
    lane: Lane
    name: str
    "In the words of whoever noted it: `CHANNEL_BRIDGE`, `paired`, `says`."
    fields: Mapping[str, Any] = field(default_factory=dict)


class Notebook:
    """Takes notes by call. The gateway's journal writes into it, and so do agent and callers."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._notes: defaultdict[str, list[Note]] = defaultdict(list)

    def journal(self, unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        """Take an entry of the gateway's journal."""
        if event == "transcript":  # of an agent that a provider speaks for: what it understood, what was heard of it
            self.note(unique_id, "agent", "understands" if fields["who"] == "caller" else "was_heard", **fields)
            return
        leg = event.partition("_")[0]
        lane: Lane = "media" if leg == "media" else "control" if leg == "control" else "gateway"
        self.note(unique_id, lane, event, **fields)

    def note(self, unique_id: str, lane: Lane, name: str, /, **fields: object) -> None:
        """Note something that happens now."""
        self._notes[unique_id].append(Note(self._clock(), lane, name, fields))

    def of(self, call: SimCall) -> list[Note]:
        """Return all there is about a call so far, in order: the notes here, and what the switch recorded."""
        notes = [*self._notes[call.unique_id], *_of_the_switch(call)]
        notes.sort(key=lambda note: note.at)
        return notes


def _of_the_switch(call: SimCall) -> list[Note]:
    notes = [Note(call.placed_at, "control", "placed")]
    for at, leg, name, fields in call.events:
        lane: Lane = "media" if leg == "media" else "caller" if leg == "caller" else "control"
        if leg == "switch":
            fields, name = {**fields}, f"dialplan_{name}" if name != "dialplan" else name
        notes.append(Note(at, lane, name, fields))
    return notes
