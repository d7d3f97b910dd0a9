"""The two kinds of connection. The control leg is useful alone: docs/legs.md shows an event-socket server."""

from dueto.legs.esl_outbound import ControlServer, OutboundLeg, OutboundOptions
from dueto.legs.event_stream import Calls, EventStream
from dueto.legs.ports import (
    ControlCapabilities,
    ControlDoor,
    ControlLeg,
    ControlSink,
    MediaDoor,
    MediaLeg,
    MediaSink,
)

__all__ = [
    "Calls",
    "ControlCapabilities",
    "ControlDoor",
    "ControlLeg",
    "ControlServer",
    "ControlSink",
    "EventStream",
    "MediaDoor",
    "MediaLeg",
    "MediaSink",
    "OutboundLeg",
    "OutboundOptions",
]
