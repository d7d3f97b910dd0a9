"""What became of one call: sound, moments and figures, and the verdict on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dueto.app.demo.notebook import Lane


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to. Read from what happened on both legs, never from what was meant to happen."""

    asked_again: bool = False
    "What the caller said first was not enough: the agent asked again, and got a further answer."
    chosen_by: Literal["", "speech", "key"] = ""
    "What led to the transfer."
    transferred_to: str = ""
    "The destination whose telephone was connected with the caller, and was heard."
    refused_by: str = ""
    "The destination that was tried before, and did not take the call."
    announced: bool = False
    "Whoever answered was told who is coming, and took the call by pressing a key."
    digits: str = ""
    "Keys that reached the agent."
    heard_itself: bool = False
    "What the caller heard is what it had said."
    hung_up_by: Literal["caller", "agent", "switch"] = "caller"
    agent_told: bool = True
    "The agent learned of the hangup."

    def __str__(self) -> str:
        parts = []
        if self.asked_again:
            parts.append("asked again")
        if self.refused_by:
            parts.append(f"{self.refused_by} did not take it")
        if self.transferred_to:
            parts.append(f"transferred to {self.transferred_to} by {self.chosen_by}")
        if self.announced:
            parts.append("announced, and accepted by key")
        if self.heard_itself:
            parts.append("heard itself")
        if self.digits and not self.transferred_to:
            parts.append(f"pressed {self.digits}")
        if not (self.transferred_to or self.heard_itself or self.digits):
            parts.append("no transfer")
        parts.append(f"{self.hung_up_by} hung up")
        if not self.agent_told:
            parts.append("the agent never learned of it")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Moment:
    """Something on a call's time line."""

    at_s: float
    "Seconds since the call was placed."
    lane: Lane
    name: str
    text: str
    "In words, for the picture; empty: only in the list."
    fields: Mapping[str, Any]
    until_s: float | None = None
    "When it was over, for what takes time."


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; None where it did not happen."""

    pairing_ms: float | None
    "From the first leg at the gateway to the second."
    first_leg: Literal["control", "media", ""]
    hangup_to_agent_ms: float | None
    "From the switch's word of the hangup at the gateway until the agent had it."
    bye_to_agent_ms: float | None
    "From the caller's BYE at the switch until the agent had it: mostly the switch's own 20 ms tick."
    let_go_ms: float | None
    "From the hangup until the gateway had let go of both legs and of the agent."
    silent_ms: float | None
    "From the decision to interrupt the agent to the last that was heard of it; the longest."
    frames_up: int
    frames_down: int
    gaps: int


@dataclass(frozen=True, slots=True)
class Story:
    """One call of the demo, from beginning to end."""

    key: str
    "For file names: `1-sales`."
    title: str
    about: str
    "What this call shows, a sentence."
    caller: str
    unique_id: str
    dialect: str
    started_s: float
    "Seconds since the first call was placed."
    rate_hz: int
    said: bytes = field(repr=False)
    heard: bytes = field(repr=False)
    moments: tuple[Moment, ...] = field(repr=False)
    figures: Figures
    outcome: Outcome
    expected: Outcome
    error: str
    "What the caller's script stumbled over; empty when nothing."
    recording: str = ""
    "The gateway's own recording, as seen from the demo's folder; empty: there is none."

    @property
    def duration_s(self) -> float:
        """The length of the recording."""
        return len(self.said) / (2 * self.rate_hz)

    @property
    def as_expected(self) -> bool:
        """Whether the call went the way it should."""
        return self.outcome == self.expected
