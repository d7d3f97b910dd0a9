"""The load where there is no C compiler: told the same, answers the same, carries fewer calls. See `calls.c`.

calls.py SCRIPT CONTROL_PORT MEDIA_PORT FIRST
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, cast

import uvloop
from bench.machine import Spread
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from dueto.wire.esl.switch_end import CommandDecoder, encode_api_response, encode_goodbye, encode_reply

SLOTS, STEP_S, LOOKS_EVERY_S, CLOSES_AFTER_S, SHORT_TALK_S = 20, 0.001, 0.02, 1.0, 0.1
STAMP = struct.Struct("<qi")
FILLER = bytes((at * 91) & 255 if at % 2 == 0 else (at * 37) & 15 for at in range(640 - STAMP.size))
SERIES = ("echo_ms", "late_ms", "gap_ms", "setup_ms")
COUNTS = ("placed", "failed", "events", "bytes", "stuck", "sent", "back", "wrong", "heard")


class Call(asyncio.Protocol):
    """One call: the switch's end of its control leg; its stream is a `Stream`."""

    def __init__(self, load: "Load", number: int) -> None:
        self.load, self.number = load, number
        self.id = f"{number:08x}-0d0e-4000-8000-{number:012x}"
        self.began_s = time.monotonic()
        self.control: asyncio.Transport | None = None
        self.media: WSTransport | None = None
        self.up = self.hung = self.gone = False
        self.sent = self.next = 0
        self.heard_s = 0.0
        self._decoder = CommandDecoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.control = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self.control is not None
        for command in self._decoder.feed(data):
            match command.word:
                case "connect":
                    self.say(self.load.script["CONN"][0])
                case "api":
                    self.control.write(encode_api_response(b"+OK Success\n"))
                    if not self.up and self.media is None:
                        self.load.known(self)
                case "exit":
                    self.control.write(encode_reply("+OK bye") + encode_goodbye(self.id))
                    self.control.close()
                case _:
                    self.control.write(encode_reply("+OK"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.control = None
        self.load.went(self)

    def say(self, block: bytes) -> None:
        """Say something recorded, under this call's id."""
        if self.control is not None:
            data = block.replace(self.load.script["ID  "][0], self.id.encode())
            self.load.counts["bytes"] += len(data)
            self.control.write(data)

    def hang_up(self) -> None:
        """CHANNEL_HANGUP, handed to the kernel this instant."""
        self.hung = True
        if self.control is not None:
            data = self.load.script["HANG"][0].replace(self.load.script["ID  "][0], self.id.encode())
            os.write(self.control.get_extra_info("socket").fileno(), data)

    def end(self) -> None:
        """All that follows a hangup; who does not let go then is left."""
        self.say(self.load.script["ENDI"][0])
        asyncio.get_running_loop().call_later(CLOSES_AFTER_S, self.leave)

    def leave(self) -> None:
        """Close what is still open."""
        if self.control is not None:
            self.control.abort()
        if self.media is not None:
            self.media.disconnect(graceful=False)


class Stream(WSListener):
    """The audio module's end of a call's stream."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.call.media = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self.call.load.frame(self.call, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE and not transport.is_close_frame_sent:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.call.media = None
        self.call.load.went(self.call)


class Load:
    """All calls, and the command that is being done."""

    def __init__(self, script: str, control_port: str, media_port: str, first: str) -> None:
        self.script: dict[str, list[bytes]] = {}
        data, at = Path(script).read_bytes(), 0
        while at < len(data):
            tag, size = data[at : at + 4].decode(), int.from_bytes(data[at + 4 : at + 8], "little")
            self.script.setdefault(tag, []).append(data[at + 8 : at + 8 + size])
            at += 8 + size
        self.control_port, self.media_port = int(control_port), int(media_port)
        self.first = self.next = int(first)
        self.live: dict[Call, None] = {}
        self.slots: list[list[Call]] = [[] for _ in range(SLOTS)]
        self.open = self.opening = 0
        self.talks = self.listens = False
        self.doing = ""
        self.background, self.background_s, self.background_done = 0.0, 0.0, 0
        self.at = 0
        self.dialling: set[asyncio.Task[None]] = set()
        self.begin()

    def begin(self) -> None:
        """A new command: everything is counted from here."""
        self.counts = dict.fromkeys(COUNTS, 0)
        self.series: dict[str, list[float]] = {name: [] for name in SERIES}
        self.hangups: list[tuple[int, int]] = []
        self.began_s, self.cpu_s = time.monotonic(), time.process_time()

    def answer(self) -> str:
        """Return the line that answers the command."""
        answer: dict[str, Any] = {"seconds": time.monotonic() - self.began_s, "live": len(self.live)}
        answer |= {"load_cpu_s": time.process_time() - self.cpu_s, "hangups": self.hangups, **self.counts}
        for name, values in self.series.items():
            spread = Spread.of(values) if values else None
            answer[name] = spread and {
                "count": spread.count, "p50": spread.p50, "p99": spread.p99, "max": spread.most
            }  # fmt: skip
        return json.dumps(answer)

    # -- calls

    def place(self) -> None:
        """Begin one more call."""
        call = Call(self, self.next)
        self.next += 1
        self.open += 1
        self.opening += 1
        task = asyncio.get_running_loop().create_task(self._dial(call))
        self.dialling.add(task)
        task.add_done_callback(self.dialling.discard)

    async def _dial(self, call: Call) -> None:
        try:
            if self.control_port:
                await asyncio.get_running_loop().create_connection(lambda: call, "127.0.0.1", self.control_port)
            else:
                await self._stream(call)
        except Exception as error:
            print(f"call {call.number}: {error!r}", file=sys.stderr)
            self.went(call)

    async def _stream(self, call: Call) -> None:
        try:
            path = self.script["PATH"][call.number - self.first].decode()
            await ws_connect(lambda: Stream(call), f"ws://127.0.0.1:{self.media_port}{path}")
        except Exception as error:
            print(f"call {call.number}: {error!r}", file=sys.stderr)
            call.leave()
            return self.went(call)
        return self.came_up(call)

    def known(self, call: Call) -> None:
        """The application knows its channel: the stream is next, if there is one."""
        if not self.media_port:
            return self.came_up(call)
        task = asyncio.get_running_loop().create_task(self._stream(call))
        self.dialling.add(task)
        task.add_done_callback(self.dialling.discard)
        return None

    def came_up(self, call: Call) -> None:
        """All legs are there."""
        if call.up or call.gone:
            return None
        call.up = True
        self.opening -= 1
        self.counts["placed"] += 1
        self.series["setup_ms"].append((time.monotonic() - call.began_s) * 1000)
        loop = asyncio.get_running_loop()
        if self.doing == "setups":
            call.hang_up()
            return call.end()
        self.live[call] = None
        self.slots[call.number % SLOTS].append(call)
        if self.doing == "soak":
            for block in self.script["EVNT"][:5]:
                call.say(block)
            loop.call_later(SHORT_TALK_S, self.end_short, call)
        return None

    def end_short(self, call: Call) -> None:
        """A call of a soak has talked enough."""
        if not call.gone:
            self.live.pop(call, None)
            call.hang_up()
            call.end()

    def went(self, call: Call) -> None:
        """A leg is gone."""
        if call.gone:
            return
        self.live.pop(call, None)
        if not call.up:
            self.opening -= 1
            self.counts["failed"] += 1
        elif call.control is not None or call.media is not None:
            return
        call.gone = True
        self.open -= 1

    def frame(self, call: Call, data: bytes) -> None:
        """A frame came down."""
        now_s = time.monotonic()
        self.counts["heard"] += 1
        if self.listens:
            if call.heard_s:
                self.series["gap_ms"].append((now_s - call.heard_s) * 1000)
            call.heard_s = now_s
            return
        if len(data) != 640:
            self.counts["wrong"] += 1
            return
        stamp_ns, number = STAMP.unpack_from(data)
        self.series["echo_ms"].append((time.monotonic_ns() - stamp_ns) / 1e6)
        self.counts["back"] += 1
        self.counts["wrong"] += number != call.next
        call.next = number + 1

    # -- what goes on

    def speak(self, slot: int) -> None:
        """The calls of one slot send their frame."""
        calls = self.slots[slot]
        for call in calls:
            if call.media is not None and not call.hung:
                call.media.send(WSMsgType.BINARY, STAMP.pack(time.monotonic_ns(), call.sent) + FILLER)
                call.sent += 1
                self.counts["sent"] += 1
        calls[:] = [call for call in calls if call.media is not None and not call.hung]

    def event(self) -> bool:
        """One event, on the next call's control leg."""
        if not self.live:
            return False
        calls = tuple(self.live) if self.at % 64 == 0 or len(self._calls) != len(self.live) else self._calls
        self._calls = calls
        calls[self.at % len(calls)].say(self.script["EVNT"][self.at % len(self.script["EVNT"])])
        self.at += 1
        self.counts["events"] += 1
        return True

    _calls: tuple[Call, ...] = ()

    async def tick(self) -> None:
        """Every millisecond: a slot speaks, background events are written."""
        began_s, number = time.monotonic(), 0
        while True:
            number += 1
            due_s = began_s + number * STEP_S
            await asyncio.sleep(max(due_s - time.monotonic(), 0))
            if self.talks:
                self.series["late_ms"].append((time.monotonic() - due_s) * 1000)
                self.speak(number % SLOTS)
            if self.background:
                wanted = (time.monotonic() - self.background_s) * self.background
                while self.background_done < wanted and self.event():
                    self.background_done += 1

    async def do(self, line: str) -> None:
        """Do what a line says."""
        word, *rest = line.split()
        a, b, c = [float(text) for text in rest] + [0.0] * (3 - len(rest))
        self.begin()
        self.doing = word
        match word:
            case "place":
                await self._place(int(a), int(b or 50))
            case "measure":
                await asyncio.sleep(a)
            case "talk":
                self.talks = bool(a)
            case "listen":
                self.listens = bool(a)
            case "background":
                self.background, self.background_s, self.background_done = a, time.monotonic(), 0
            case "events":
                await self._events(int(a), b)
            case "hangup":
                await self._hang_up(int(a), b)
            case "setups":
                await self._set_up(a, int(b), c)
            case "soak":
                await self._soak(int(a), int(b))
            case "flood":
                await self._flood(a)
            case _:
                raise SystemExit(f"no such command: {line}")
        self.doing = ""

    async def _place(self, wanted: int, in_flight: int) -> None:
        for _ in range(wanted):
            await self._until(lambda: self.opening < in_flight)
            self.place()
        await self._until(lambda: not self.opening)

    async def _events(self, wanted: int, rate: float) -> None:
        self.at = 0
        for number in range(wanted):
            await asyncio.sleep(max(self.began_s + number / rate - time.monotonic(), 0))
            self.event()

    async def _hang_up(self, wanted: int, rate: float) -> None:
        loop = asyncio.get_running_loop()
        for number in range(wanted):
            await asyncio.sleep(max(self.began_s + number / rate - time.monotonic(), 0))
            if self.live:
                call = next(iter(self.live))
                del self.live[call]
                self.hangups.append((call.number, time.monotonic_ns()))
                call.hang_up()
                loop.call_later(LOOKS_EVERY_S, call.end)
        await asyncio.sleep(0.2)

    async def _set_up(self, seconds: float, in_flight: int, rate: float) -> None:
        begun, until_s = 0, self.began_s + seconds
        while time.monotonic() < until_s:
            if self.opening < in_flight and (not rate or begun < (time.monotonic() - self.began_s) * rate + 1):
                self.place()
                begun += 1
            else:
                await asyncio.sleep(STEP_S)
        await self._until(lambda: not self.opening or time.monotonic() > until_s + 3)

    async def _soak(self, wanted: int, at_once: int) -> None:
        for _ in range(wanted):
            await self._until(lambda: self.open < at_once)
            self.place()
        await self._until(lambda: not self.open)

    async def _flood(self, seconds: float) -> None:
        while time.monotonic() < self.began_s + seconds:
            for call in tuple(self.live):
                if call.control is not None and call.control.get_write_buffer_size() < 65536:
                    call.say(self.script["EVNT"][0])
                    self.counts["events"] += 1
            await asyncio.sleep(0)

    async def _until(self, true: Any) -> None:
        while not true():  # noqa: ASYNC110 - a millisecond is near enough here
            await asyncio.sleep(STEP_S)


async def main() -> None:
    """Do as told until nobody tells any more."""
    load = Load(*sys.argv[1:])
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    held = deque[bytes]()

    def told() -> None:
        data = os.read(0, 4096)
        held.append(data)
        if not data:
            return lines.put_nowait(None)
        *whole, rest = b"".join(held).split(b"\n")
        held.clear()
        held.append(rest)
        for line in whole:
            lines.put_nowait(line.decode())
        return None

    loop = asyncio.get_running_loop()
    loop.add_reader(0, told)
    ticking = loop.create_task(load.tick())
    while (line := await lines.get()) is not None:
        await load.do(line)
        sys.stdout.write(load.answer() + "\n")
        sys.stdout.flush()
    ticking.cancel()
    os._exit(0)


uvloop.run(main())
