"""What a call is: its events, its verbs, its one phase machine, and the desk that joins its two legs."""

from dueto.call.call import Call
from dueto.call.desk import Desk
from dueto.call.events import CallEvent
from dueto.call.gather import Gathered
from dueto.call.house import CallRules, House, Journal
from dueto.call.placing import Dialled
from dueto.call.ports import Accept, Agent, Destination, Ear, Mouth, TransferResult
from dueto.call.presence import Presence

__all__ = [
    "Accept",
    "Agent",
    "Call",
    "CallEvent",
    "CallRules",
    "Desk",
    "Destination",
    "Dialled",
    "Ear",
    "Gathered",
    "House",
    "Journal",
    "Mouth",
    "Presence",
    "TransferResult",
]
