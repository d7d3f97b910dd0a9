"""`websockets` as media server: the same echo, on uvloop as well."""

import logging

import uvloop
from _line import Notes, answer_until_the_end, say_ports
from websockets.asyncio.server import ServerConnection, serve

logging.disable(logging.INFO)


async def echo(connection: ServerConnection) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    """Serve until whoever measures is gone."""
    async with serve(echo, "127.0.0.1", 0, compression=None, backlog=1024) as server:
        say_ports(media=server.sockets[0].getsockname()[1])
        await answer_until_the_end(Notes())


uvloop.run(main())
