"""What a call is: its events, its verbs, its one phase machine, and the desk that joins its two legs."""

from dueto.call.call import Call
from dueto.call.desk import Desk
from dueto.call.events import CallEvent
from dueto.call.house import CallRules, House, Journal
from dueto.call.ports import Agent, Destination, Ear, Mouth, TransferResult

__all__ = [
    "Agent",
    "Call",
    "CallEvent",
    "CallRules",
    "Desk",
    "Destination",
    "Ear",
    "House",
    "Journal",
    "Mouth",
    "TransferResult",
]
