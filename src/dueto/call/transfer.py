"""What became of a transfer, read from the completion of this very bridge."""

import re

from dueto.call.ports import Outcome, TransferResult
from dueto.wire.esl import Event

_OUTCOMES: dict[str, Outcome] = {
    "USER_BUSY": "busy",
    "NO_ANSWER": "no_answer",
    "NO_USER_RESPONSE": "no_answer",
    "ALLOTTED_TIMEOUT": "no_answer",
    "PROGRESS_TIMEOUT": "no_answer",
    "CALL_REJECTED": "rejected",
    "NORMAL_TEMPORARY_FAILURE": "unreachable",
    "NO_ROUTE_DESTINATION": "unreachable",
    "UNALLOCATED_NUMBER": "unreachable",
    "USER_NOT_REGISTERED": "unreachable",
    "SUBSCRIBER_ABSENT": "unreachable",
    "DESTINATION_OUT_OF_ORDER": "unreachable",
    "NETWORK_OUT_OF_ORDER": "unreachable",
    "GATEWAY_DOWN": "unreachable",
    "RECOVERY_ON_TIMER_EXPIRE": "unreachable",
    "ORIGINATOR_CANCEL": "cancelled",
}
_BY_STATUS: dict[int, Outcome] = {
    404: "unreachable",
    408: "no_answer",
    480: "no_answer",
    486: "busy",
    487: "cancelled",
    503: "unreachable",
    600: "busy",
    603: "rejected",
}
REFERRED = "BLIND_TRANSFER"
"The hangup cause of a channel whose telephone followed a REFER."
VARIABLES_OF_THIS_ATTEMPT = ("originate_disposition", "last_bridge_proto_specific_hangup_cause")
"Unset before a bridge: they stay on the channel, and a second bridge must not be judged by the first one's."


def outcome_of(cause: str) -> Outcome:
    """Return what `cause` (a hangup cause in the switch's words) means to who wanted to talk to somebody."""
    return _OUTCOMES.get(cause, "failed")


def referred(completion: Event) -> TransferResult:
    """Read a CHANNEL_EXECUTE_COMPLETE of `deflect`: what the caller's telephone told of its own attempt, if anything.

    `mod_sofia` keeps the last NOTIFY's status line in `sip_refer_reply`, and hangs up after a 200 with BLIND_TRANSFER
    (`sofia.c`); newer ones hang up whatever the status was (`mod_sofia.c`).
    """
    if completion.get("Answer-State") == "ringing":
        return TransferResult("failed", "the caller's telephone takes a REFER only once it was answered")
    said = re.match(r"SIP/2\.0 ([0-9]{3})\b", completion.variable("sip_refer_reply"))
    status = int(said[1]) if said is not None else None
    if status is None or status < 300:
        return TransferResult("let_go", sip_code=status)
    return TransferResult(_BY_STATUS.get(status, "failed"), sip_code=status)


def failed_bridge(completion: Event) -> TransferResult:
    """Read a CHANNEL_EXECUTE_COMPLETE of a bridge during which no CHANNEL_BRIDGE came."""
    cause = completion.variable("originate_disposition")
    said = re.fullmatch(r"sip:([0-9]{3})", completion.variable("last_bridge_proto_specific_hangup_cause"))
    return TransferResult(outcome_of(cause), cause, int(said[1]) if said is not None else None)
