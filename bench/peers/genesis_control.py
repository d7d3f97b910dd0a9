"""genesis, used as its documentation shows: an Outbound server, one coroutine per call, handlers registered.

`slow`: the handler of each event takes five seconds (for the flood that nobody can follow).
"""

import asyncio
import contextlib
import logging
import sys

from _line import CONTROL_HEADERS, READY, Notes, answer_until_the_end, say_ports
from genesis import Outbound, Session

logging.disable(logging.WARNING)
SLOW = "slow" in sys.argv
notes = Notes()


async def handle(session: Session) -> None:
    """Handle one call until it is over."""
    over = asyncio.Event()

    async def on_event(event: dict[str, str]) -> None:
        for name in CONTROL_HEADERS:
            event.get(name)
        notes.events += 1
        if SLOW:
            await asyncio.sleep(5)

    async def on_hangup(event: dict[str, str]) -> None:
        notes.hung_up(event["Unique-ID"])
        over.set()

    for kind in ("CHANNEL_STATE", "CHANNEL_EXECUTE", "DTMF"):  # `on` would miss the first: its Channel hears that one
        session.register_channel_handler(session.uuid, kind, on_event)
    session.register_channel_handler(session.uuid, "CHANNEL_HANGUP", on_hangup)
    await session.send("api " + READY.format(session.uuid))
    await over.wait()
    with contextlib.suppress(Exception):  # the switch may be faster
        await session.send("exit")


async def main() -> None:
    """Serve until whoever measures is gone."""
    server = Outbound(handle, "127.0.0.1", 0)
    await server.start(block=False)
    say_ports(control=server.server.sockets[0].getsockname()[1])
    await answer_until_the_end(notes)


asyncio.run(main())
