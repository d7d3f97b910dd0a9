"""The limit of an echo: picows on uvloop, and nothing else."""

import uvloop
from _line import Notes, answer_until_the_end, say_ports
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

BINARY, CLOSE = WSMsgType.BINARY, WSMsgType.CLOSE


class BareEcho(WSListener):
    """One stream."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == BINARY:
            transport.send(BINARY, frame.get_payload_as_bytes())
        elif frame.msg_type == CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


async def main() -> None:
    """Serve until whoever measures is gone."""

    def listener(request: WSUpgradeRequest) -> WSListener:
        return BareEcho()

    server = await ws_create_server(listener, "127.0.0.1", 0, backlog=1024)
    say_ports(media=server.sockets[0].getsockname()[1])
    await answer_until_the_end(Notes())


uvloop.run(main())
