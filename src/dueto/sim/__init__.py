"""A simulated switch to test a gateway against: both legs, callers, endpoints, faults, and a virtual clock."""

from dueto.sim.call import Happening, SimCall
from dueto.sim.caller import Caller, Line, NotHeard, Script
from dueto.sim.core import Action
from dueto.sim.counters import Counters
from dueto.sim.datagrams import MemoryNetwork
from dueto.sim.doors import (
    Doors,
    HttpHeaders,
    MediaConnection,
    MediaListener,
    MediaOpener,
    MemoryDoors,
    TcpDoors,
    UpgradeRefused,
)
from dueto.sim.endpoints import Endpoint
from dueto.sim.faults import Faults
from dueto.sim.inbound import Access, InboundConnection, User
from dueto.sim.pipes import MemoryTransport, PipeFaults, pipe
from dueto.sim.sounds import NoSuchSound, tone
from dueto.sim.switch import AudioDialect, Switch
from dueto.sim.virtual import VirtualTimeDeadlock, VirtualTimeLoop, run_virtual

__all__ = [
    "Access",
    "Action",
    "AudioDialect",
    "Caller",
    "Counters",
    "Doors",
    "Endpoint",
    "Faults",
    "Happening",
    "HttpHeaders",
    "InboundConnection",
    "Line",
    "MediaConnection",
    "MediaListener",
    "MediaOpener",
    "MemoryDoors",
    "MemoryNetwork",
    "MemoryTransport",
    "NoSuchSound",
    "NotHeard",
    "PipeFaults",
    "Script",
    "SimCall",
    "Switch",
    "TcpDoors",
    "UpgradeRefused",
    "User",
    "VirtualTimeDeadlock",
    "VirtualTimeLoop",
    "pipe",
    "run_virtual",
    "tone",
]
