"""The usual way to join both legs without dueto: greenswitch in its thread, `websockets` on asyncio in another.

A session is found by its Unique-ID, which the stream's path carries. A hangup crosses from gevent to asyncio by
`run_coroutine_threadsafe`; there it is told to the application, and ends the stream.
"""

import asyncio
import logging
import threading

import gevent
import greenswitch
import uvloop
from _line import READY, Notes, answer_until_the_end, say_ports
from gevent import socket
from gevent.event import Event
from websockets.asyncio.server import ServerConnection, serve

logging.disable(logging.WARNING)
notes = Notes()
streams: dict[str, ServerConnection] = {}
lock = threading.Lock()
loop: asyncio.AbstractEventLoop


async def hung_up(unique_id: str) -> None:
    """Tell the application, and end its stream."""
    notes.hung_up(unique_id)
    with lock:
        stream = streams.pop(unique_id, None)
    if stream is not None:
        await stream.close()


class Application:
    """The control leg of one call."""

    def __init__(self, session: greenswitch.esl.OutboundSession) -> None:
        self.session = session
        self.over = Event()

    def run(self) -> None:
        """Handle the call until it is over."""
        session = self.session
        session.register_handle("CHANNEL_HANGUP", self.on_hangup)
        session.register_handle("DTMF", self.on_digit)
        session.linger()
        session.myevents()
        session.send("api " + READY.format(session.uuid))
        self.over.wait()

    def on_digit(self, event: greenswitch.esl.ESLEvent) -> None:
        """A digit."""
        event.headers.get("DTMF-Digit")

    def on_hangup(self, event: greenswitch.esl.ESLEvent) -> None:
        """The caller has hung up."""
        asyncio.run_coroutine_threadsafe(hung_up(event.headers["Unique-ID"]), loop)
        self.over.set()


async def echo(connection: ServerConnection) -> None:
    """The media leg of one call."""
    unique_id = connection.request.path.split("/")[3]
    with lock:
        streams[unique_id] = connection
    async for message in connection:
        await connection.send(message)


def control(listening: threading.Event, ports: list[int]) -> None:
    """greenswitch's thread."""
    with socket.create_server(("127.0.0.1", 0)) as free:  # it takes no 0 for a port
        ports.append(free.getsockname()[1])
    server = greenswitch.OutboundESLServer(bind_port=ports[0], application=Application, max_connections=100_000)
    serving = gevent.spawn(server.listen)
    while not server._running:
        gevent.sleep(0.01)
    listening.set()
    serving.join()


async def main() -> None:
    """Serve until whoever measures is gone."""
    global loop
    loop = asyncio.get_running_loop()
    listening, ports = threading.Event(), list[int]()
    threading.Thread(target=control, args=(listening, ports), daemon=True).start()
    await asyncio.to_thread(listening.wait)
    async with serve(echo, "127.0.0.1", 0, compression=None, backlog=1024) as server:
        say_ports(control=ports[0], media=server.sockets[0].getsockname()[1])
        await answer_until_the_end(notes)


uvloop.run(main())
