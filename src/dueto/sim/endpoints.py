"""Who may be called by `bridge`, and what they do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dueto.sim.caller import Script


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A telephone the simulated switch can dial."""

    outcome: Literal["answers", "busy", "no_answer", "unreachable", "rejects"] = "answers"
    answer_after_s: float = 0.3
    "How long it rings before it answers, or (busy, rejects) before it refuses."
    hangs_up_after_s: float | None = None
    "How long after the answer it hangs up; None: it leaves that to the caller."
    presses: str = ""
    "The keys it presses, ..."
    presses_after_s: float = 0.5
    "... so long after the answer."
    script: Script | None = None
    "What it does once it has answered, in place of all that; only where the channel was placed by `originate`."
    rate_hz: int = 8000
    echoes: bool = False
    "Whether it says back what it hears; only where the channel was placed by `originate`."
    says: bytes | str | Path = b""
    "What it says after the answer: L16 at the call's rate, or a WAV."


CAUSES = {
    "busy": "USER_BUSY",
    "no_answer": "NO_ANSWER",
    "unreachable": "NORMAL_TEMPORARY_FAILURE",
    "rejects": "CALL_REJECTED",
}
SIP_STATUS = {
    "USER_BUSY": (486, "Busy Here"),
    "CALL_REJECTED": (603, "Decline"),
    "NORMAL_TEMPORARY_FAILURE": (503, "Service Unavailable"),
}
DIALSTATUS = {
    "SUCCESS": "SUCCESS",
    "USER_BUSY": "BUSY",
    "NO_ANSWER": "NOANSWER",
    "ORIGINATOR_CANCEL": "CANCEL",
}
"What `variable_DIALSTATUS` says; any other cause stands there itself."


def endpoint_of(dial: str, endpoints: Mapping[str, Endpoint]) -> Endpoint:
    """Who answers `dial`: a configured endpoint, the far half of a loopback channel, or nobody.

    Of `loopback/ACTIONS/CONTEXT/inline` only this is looked at: whether it hangs up, answers, echoes, or lets it ring.
    """
    if (found := endpoints.get(dial)) is not None:
        return found
    if not dial.startswith("loopback/"):
        return Endpoint("unreachable", answer_after_s=0.02)
    if "hangup:USER_BUSY" in dial:
        return Endpoint("busy", answer_after_s=0.1)
    if "ring_ready" in dial:
        return Endpoint("no_answer")
    return Endpoint("answers", answer_after_s=0.1, echoes="echo" in dial)
