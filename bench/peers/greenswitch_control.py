"""greenswitch, used as its README shows: OutboundESLServer, one application object per call, handlers registered.

`slow`: the handler of each event takes five seconds (for the flood that nobody can follow).
"""

import logging
import sys

import gevent.monkey

gevent.monkey.patch_all()

import gevent  # noqa: E402
import greenswitch  # noqa: E402
from _line import CONTROL_HEADERS, READY, Notes, say, say_ports  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.fileobject import FileObject  # noqa: E402

logging.disable(logging.WARNING)
SLOW = "slow" in sys.argv
notes = Notes()


class Application:
    """One call."""

    def __init__(self, session: greenswitch.esl.OutboundSession) -> None:
        self.session = session
        self.over = Event()

    def run(self) -> None:
        """Handle the call until it is over."""
        session = self.session
        session.register_handle("*", self.on_event)
        session.register_handle("CHANNEL_HANGUP", self.on_hangup)
        session.linger()
        session.myevents()
        session.send("api " + READY.format(session.uuid))
        self.over.wait()

    def on_event(self, event: greenswitch.esl.ESLEvent) -> None:
        """Read six headers of every event."""
        for name in CONTROL_HEADERS:
            event.headers.get(name)
        notes.events += 1
        if SLOW:
            gevent.sleep(5)

    def on_hangup(self, event: greenswitch.esl.ESLEvent) -> None:
        """The caller has hung up."""
        notes.hung_up(event.headers["Unique-ID"])
        self.over.set()


def main() -> None:
    """Serve until whoever measures is gone."""
    with socket.create_server(("127.0.0.1", 0)) as free:  # it takes no 0 for a port
        port = free.getsockname()[1]
    server = greenswitch.OutboundESLServer(bind_port=port, application=Application, max_connections=100_000)
    gevent.spawn(server.listen)
    while not server._running:
        gevent.sleep(0.01)
    say_ports(control=port)
    for _ in FileObject(sys.stdin, "rb"):
        say(notes.answer())


main()
