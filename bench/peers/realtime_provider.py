"""Not measured: stands in for OpenAI Realtime, over TLS. Hears, and speaks without end, paced like the real one.

It answers the set-up; once it has heard a fifth of a second it begins one answer, and sends its sound in deltas of
100 ms: the first half second at once, the rest as time goes by. What it hears it only counts. Its certificate is of an
authority made for this run.

    realtime_provider.py certificate=PEM
"""

import asyncio
import base64
import itertools
import ssl
import sys
import time

import uvloop
from _line import Notes, answer_until_the_end, say_ports
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

DELTA_MS, AHEAD, BEFORE_IT_ANSWERS = 100, 5, 10
SOUND = base64.b64encode(b"".join(((at * 37) % 4096 - 2048).to_bytes(2, "little", signed=True) for at in range(2400)))
DELTA = (
    b'{"type":"response.output_audio.delta","event_id":"event_9","response_id":"resp_1","item_id":"item_1",'
    b'"output_index":0,"content_index":0,"delta":"' + SOUND + b'"}'
)
ITEM = (
    b'{"id":"item_1","object":"realtime.item","type":"message","status":"in_progress","role":"assistant","content":[]}'
)
UPDATED = b'{"type":"session.updated","event_id":"event_2","session":{}}'
ANSWER = (
    b'{"type":"response.created","event_id":"event_3","response":{"id":"resp_1","status":"in_progress","output":[]}}',
    b'{"type":"response.output_item.added","event_id":"event_4","response_id":"resp_1","output_index":0,"item":%s}'
    % ITEM,
    b'{"type":"conversation.item.added","event_id":"event_5","previous_item_id":null,"item":%s}' % ITEM,
)
notes = Notes()
speaking: "list[set[Session]]" = [set() for _ in range(DELTA_MS // 5)]
numbers = itertools.count()


class Session(WSListener):
    """One conversation."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.slot = speaking[next(numbers) % len(speaking)]
        self.heard = 0
        transport.send(WSMsgType.TEXT, b'{"type":"session.created","event_id":"event_1","session":{}}')

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.heard += 1
            if self.heard <= BEFORE_IT_ANSWERS:
                if b'"session.update"' in frame.get_payload_as_bytes()[:60]:
                    transport.send(WSMsgType.TEXT, UPDATED)
                if self.heard == BEFORE_IT_ANSWERS:
                    for event in (*ANSWER, *[DELTA] * AHEAD):
                        transport.send(WSMsgType.TEXT, event)
                    self.slot.add(self)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.slot.discard(self)


async def speak() -> None:
    """Every 5 ms another slot of the conversations gets its delta."""
    began, at = time.monotonic(), 0
    while True:
        at += 1
        await asyncio.sleep(max(began + at * 0.005 - time.monotonic(), 0))
        for session in tuple(speaking[at % len(speaking)]):
            session.transport.send(WSMsgType.TEXT, DELTA)


async def main() -> None:
    """Serve until whoever measures is gone."""

    def listener(request: WSUpgradeRequest) -> WSListener:
        return Session()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(dict(word.split("=", 1) for word in sys.argv[1:])["certificate"])
    server = await ws_create_server(listener, "127.0.0.1", 0, ssl=context, backlog=1024)
    say_ports(provider=server.sockets[0].getsockname()[1])
    speaker = asyncio.create_task(speak())
    await answer_until_the_end(notes)
    speaker.cancel()


uvloop.run(main())
