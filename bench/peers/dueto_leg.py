"""dueto's control leg alone, with a subscriber that reads six headers of every event (or, `slow`, reads none).

`slow` is a reader of an EventStream that never gets beyond the first event.
"""

import asyncio
import sys

from _line import CONTROL_HEADERS, READY, Notes, answer_until_the_end, say_ports

from dueto.app.serve import new_event_loop, settle
from dueto.legs.esl_outbound import ControlServer, OutboundLeg, OutboundOptions
from dueto.legs.event_stream import Calls, EventStream
from dueto.legs.ports import ControlDoor, ControlLeg, ControlSink
from dueto.wire.esl import Api, Event

notes = Notes()


class Subscriber(ControlSink, ControlDoor):
    """Takes every leg, and hears every event of it."""

    def control_came(self, leg: ControlLeg) -> None:
        leg.attach(self)
        command, _, argument = READY.format(leg.unique_id).partition(" ")
        leg.post(Api(command, argument))

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        for name in CONTROL_HEADERS:
            event.get(name)
        notes.events += 1

    def control_lingering(self, leg: ControlLeg) -> None:
        leg.notify_session_ended("hung up")

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        pass

    def refused(self, leg: str, reason: str, peer: str) -> None:
        raise AssertionError(f"refused: {reason}")


async def too_slow(leg: OutboundLeg, events: EventStream) -> None:
    """Read one event, and think about it for good."""
    await leg.api(*READY.format(leg.unique_id).split(" ", 1))
    async for _ in events:
        notes.events += 1
        await asyncio.Event().wait()


async def main() -> None:
    """Serve until whoever measures is gone."""
    server = ControlServer(Calls(too_slow) if "slow" in sys.argv else Subscriber(), OutboundOptions())
    say_ports(control=await server.start("127.0.0.1", 0))
    settle()
    await answer_until_the_end(notes)


with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
