"""What a bot behind Media Streams costs: its stream alone, then a hundred calls bridged to a bot at once.

    python -m bench.media_streams [--calls 100] [--seconds 10] [--rate 8000]

First one stream without sockets: microseconds per 20 ms frame up, and per 40 ms message of the bot down. Then as
bench/providers: a gateway in a process of its own on one core, the bot (which talks without a pause, 40 ms a message,
a mark every second) and the callers on another. Measured at the caller. The bar: p99 of the gaps under 25 ms, nothing
missing.
"""

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, ClassVar

from bench.providers import GATEWAY_CORE, MOST_GAP_MS, OTHERS_CORE, Nowhere, call_all, per_call_us, pin, serve
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from dueto.agents.media_streams import Account, Exchange, MediaStreamsAgent, MediaStreamsProfile, messages
from dueto.agents.media_streams.stream import BotStream
from dueto.app.logs import configure_logs
from dueto.app.serve import new_event_loop
from dueto.audio import ulaw_encode
from dueto.sim import tone

FRAME_S = 0.02
PIECE_S = 0.04
"What pipecat sends at a time."
AHEAD = 25
"Messages at first: a second ahead, as bots are that have their speech from a model."


class _Silent:
    """A call that takes what is said, and does nothing with it."""

    done = False
    queued_ms = heard_ms = 0

    def utterance(self, **how: object) -> "_Silent":
        return self

    def add(self, pcm: bytes) -> None:
        pass

    def finish(self) -> None:
        pass


async def alone() -> None:
    """Print what a stream costs per message."""
    silent: Any = _Silent()
    stream = BotStream(silent, Account(), "CA" + "0" * 32, "ws://nowhere", {})
    link: Any = Nowhere()
    stream._link = link
    frame, said = tone(8000, FRAME_S, 300.0), _said("MZ" + "0" * 32)
    print(f"{'frame up':<34}{per_call_us(lambda: stream._hear(frame)):>8.2f} us")
    print(f"{'40 ms of the bot down':<34}{per_call_us(lambda: stream._message(said)):>8.2f} us")
    part = messages.Frame("1", "20", ulaw_encode(frame))
    encode = per_call_us(lambda: messages.encode(messages.Media("1", part, "MZ")))
    print(f"{'  of these: the JSON up':<34}{encode:>8.2f} us")
    print(f"{'  of these: the JSON down':<34}{per_call_us(lambda: messages.decode(said)):>8.2f} us")
    if stream._timer is not None:
        stream._timer.cancel()


def _said(sid: str) -> bytes:
    payload = base64.b64encode(ulaw_encode(tone(8000, PIECE_S, 440.0))).decode()
    return json.dumps({"event": "media", "streamSid": sid, "media": {"payload": payload}}).encode()


class PacedBot(WSListener):
    """Talks without a pause from its `start` on; what it hears it only counts."""

    talking: ClassVar["set[PacedBot]"] = set()

    def __init__(self) -> None:
        super().__init__()
        self._transport: WSTransport | None = None
        self._sid = ""
        self._message = b""
        self._sent = 0
        self.marks = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        kind = frame.get_payload_as_memoryview()[:14].tobytes()
        if kind == b'{"event":"star':
            self._sid = json.loads(frame.get_payload_as_bytes())["streamSid"]
            self._message = _said(self._sid)
            for _ in range(AHEAD):
                self.say_more()
            self.talking.add(self)
        elif kind == b'{"event":"mark':
            self.marks += 1

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        self.talking.discard(self)

    def say_more(self) -> None:
        """40 ms more; a mark every second."""
        if self._transport is None:
            return
        self._transport.send(WSMsgType.TEXT, self._message)
        self._sent += 1
        if self._sent % 25 == 0:
            mark = {"event": "mark", "streamSid": self._sid, "mark": {"name": str(self._sent)}}
            self._transport.send(WSMsgType.TEXT, json.dumps(mark).encode())


async def _talk(line: Connection) -> None:
    server = await ws_create_server(lambda request: PacedBot(), "127.0.0.1", 0, backlog=512)
    line.send(server.sockets[0].getsockname()[1])
    began, at = time.monotonic(), 0
    while not line.poll():
        talking = tuple(PacedBot.talking)
        for slot in range(8):  # spread over the 40 ms, as they would come
            for one in talking[slot::8]:
                one.say_more()
            at += 1
            await asyncio.sleep(max(began + at * PIECE_S / 8 - time.monotonic(), 0))
    server.close()


def _bot_process(line: Connection) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_talk(line))


def _gateway_process(line: Connection, bot_port: int) -> None:
    pin(GATEWAY_CORE)
    profile = MediaStreamsProfile(use="media_streams", url=f"ws://127.0.0.1:{bot_port}/ws")
    with open(os.devnull, "w") as nobody, asyncio.Runner(loop_factory=new_event_loop) as runner:
        configure_logs("json", nobody)  # made as in service, and not written down
        runner.run(serve(line, MediaStreamsAgent(profile, Exchange())))


def bridged(calls: int, seconds: float, rate_hz: int) -> dict[str, float]:
    """Run the whole of it once."""
    context = get_context("spawn")
    line, theirs = context.Pipe()
    bot = context.Process(target=_bot_process, args=(theirs,), daemon=True)
    bot.start()
    gateway_line, gateway_theirs = context.Pipe()
    gateway = context.Process(target=_gateway_process, args=(gateway_theirs, line.recv()), daemon=True)
    gateway.start()
    media_port = gateway_line.recv()
    pin(OTHERS_CORE)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(call_all(media_port, calls, seconds, rate_hz, gateway.pid or 0))
    finally:
        for other, process in ((gateway_line, gateway), (line, bot)):
            other.send(None)
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def main() -> int:
    """Run both parts; exit code 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=8000, choices=(8000, 16000))
    options = parser.parse_args()
    asyncio.run(alone())
    found = bridged(options.calls, options.seconds, options.rate)
    print(f"{options.calls} calls at {options.rate} Hz, at the caller:")
    print(f"  gaps p50 {found['p50']:.1f}, p99 {found['p99']:.1f}, max {found['max']:.1f} ms")
    print(
        f"  missing {found['missing_percent']:.2f} %, gateway {found['cpu_ms_per_call_s']:.2f} ms CPU per call-second"
    )
    print(f"  the load itself was late by at most {found['late_ms']:.1f} ms")
    met = found["p99"] < MOST_GAP_MS and found["missing_percent"] < 1.0
    print(f"bar, p99 under {MOST_GAP_MS:.0f} ms and nothing missing: {'met' if met else 'MISSED'}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
