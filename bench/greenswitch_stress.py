"""Stress the greenswitch engine: calls from a switch in another thread, hangups at random moments, both sides slow.

    python -m bench.greenswitch_stress --calls 100 --seconds 20

Every call gets ten events a second and gives commands all the time, some of which are cancelled; it ends at a random
moment in one of five ways, and another one takes its place. Meanwhile the asyncio loop and gevent's hub are blocked
again and again. At the end nothing may be missing, out of order, told twice, or alive. A watchdog prints every thread's
stack and ends the process if the run does not.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import sys
import threading
import time
import weakref
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dueto.errors import LegClosed, ReplyTimeout
from dueto.legs.esl_outbound import OutboundOptions
from dueto.legs.greenswitch_engine import GreenswitchServer
from dueto.legs.ports import ControlLeg
from dueto.wire.esl import Event
from dueto.wire.esl.switch_end import (
    CommandDecoder,
    encode_api_response,
    encode_connect_answer,
    encode_event,
    encode_goodbye,
    encode_linger_notice,
    encode_reply,
)

ENDINGS = ("caller", "caller_linger_first", "close", "reset", "gateway")
"Who ends a call, and how: a hangup as a switch tells it, its notice first, a bare end of stream, RST, or our side."
EVENT_EVERY_S = 0.1
PADDING = "x" * 2000
"An event of a real switch is 2 kB and more."


@dataclass
class CallLog:
    """One call from both sides. The switch's thread writes the first half, the engine's loop the second."""

    unique_id: str
    ending: str
    sent: int = 0
    hangup_sent: bool = False
    silent: bool = False
    exits: int = 0
    came: int = 0
    seen: int = 0
    disorder: int = 0
    hangups: int = 0
    lingering: int = 0
    closed: int = 0
    commands: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def faults(self) -> list[str]:
        """What must not be."""
        found = []
        if self.came != 1:
            found.append(f"came {self.came} times")
        if self.closed != 1:
            found.append(f"told {self.closed} times that it closed")
        if self.disorder:
            found.append(f"{self.disorder} events out of order")
        if self.ending != "reset" and self.seen != self.sent:
            found.append(f"{self.sent} events sent, {self.seen} seen")
        if self.ending != "reset" and self.hangup_sent and self.hangups != 1:
            found.append(f"told {self.hangups} times of the hangup")
        if self.exits > 1:
            found.append(f"{self.exits} exits")
        if self.commands != sum(self.outcomes.values()):
            found.append(f"{self.commands} commands, {sum(self.outcomes.values())} outcomes")
        return [f"{self.unique_id} ({self.ending}): {fault}" for fault in found]


@dataclass
class Result:
    """What a run showed."""

    calls: list[CallLog] = field(default_factory=list)
    event_ms: "array[float]" = field(default_factory=lambda: array("f"))
    reply_ms: "array[float]" = field(default_factory=lambda: array("f"))
    rss_kb: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    alive: int = 0
    "Legs and sessions that are still there after the last call."

    def faults(self) -> list[str]:
        """Everything that went wrong, call by call."""
        left = [f"{self.alive} objects outlived their calls"] if self.alive else []
        return [fault for call in self.calls for fault in call.faults()] + self.failed + left


class SwitchThread:
    """The switch's side in a thread and a loop of its own, so that blocking ours does not slow it down."""

    def __init__(self, port: int, result: Result, calls: int, seconds: float, seed: int) -> None:
        self._port, self._result, self._calls, self._seconds = port, result, calls, seconds
        self._random = random.Random(seed)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self.logs: dict[str, CallLog] = {}

    def start(self) -> None:
        self._thread.start()

    async def join(self) -> None:
        await asyncio.to_thread(self._thread.join)

    def _live(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._result.failed.append(f"the switch failed: {error!r}")
            raise

    async def _run(self) -> None:
        over_at = time.monotonic() + self._seconds
        async with asyncio.TaskGroup() as lines:
            for line in range(self._calls):
                lines.create_task(self._line(line, over_at))

    async def _line(self, line: int, over_at: float) -> None:
        number = 0
        while time.monotonic() < over_at:
            log = CallLog(f"line {line} call {number}", self._random.choice(ENDINGS))
            self.logs[log.unique_id] = log
            self._result.calls.append(log)
            await self._call(log, self._random.uniform(0.05, 3.0))
            number += 1

    async def _call(self, log: CallLog, lasts_s: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        opened = asyncio.Event()
        answering = asyncio.ensure_future(self._answer(log, reader, writer, opened))
        try:
            await opened.wait()
            ends_at = time.monotonic() + lasts_s
            while (left := ends_at - time.monotonic()) > 0:
                self._event(log, writer)
                await asyncio.sleep(min(EVENT_EVERY_S, left))
            await self._end(log, writer, answering)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            writer.close()

    def _event(self, log: CallLog, writer: asyncio.StreamWriter) -> None:
        if writer.is_closing():
            return
        identity = [("Event-Name", "DTMF"), ("Unique-ID", log.unique_id), ("Pad", PADDING)]
        writer.write(encode_event([*identity, ("Number", str(log.sent)), ("Stamp", str(time.monotonic_ns()))]))
        log.sent += 1

    async def _end(self, log: CallLog, writer: asyncio.StreamWriter, answering: asyncio.Future[None]) -> None:
        headers = [("Unique-ID", log.unique_id), ("Hangup-Cause", "NORMAL_CLEARING")]
        hangup = encode_event([("Event-Name", "CHANNEL_HANGUP"), *headers])
        complete = encode_event([("Event-Name", "CHANNEL_HANGUP_COMPLETE"), *headers])
        notice = encode_linger_notice(log.unique_id, "sofia/x", 10)
        match log.ending:
            case "reset":
                writer.transport.abort()
            case "close":
                log.hangup_sent = True
                writer.write(hangup)
                log.silent = True
                writer.write_eof()  # closing with commands unread would be a reset, which may overtake the hangup
                await answering
            case "gateway":
                writer.write(encode_event([("Event-Name", "YOUR_TURN"), ("Unique-ID", log.unique_id)]))
                await answering
            case _:
                log.hangup_sent = True
                ordered = (notice, hangup) if log.ending == "caller_linger_first" else (hangup, notice)
                writer.write(b"".join((*ordered, complete)))
                await answering

    async def _answer(
        self, log: CallLog, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: asyncio.Event
    ) -> None:
        decoder = CommandDecoder()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for command in decoder.feed(data):
                    if log.silent:
                        continue
                    match command.word:
                        case "connect":
                            identity = [("Event-Name", "CHANNEL_DATA"), ("Unique-ID", log.unique_id)]
                            writer.write(encode_connect_answer(identity))
                        case "api":
                            writer.write(encode_api_response(command.rest.encode()))
                        case "exit":
                            log.exits += 1
                            writer.write(encode_reply("+OK bye") + encode_goodbye(log.unique_id))
                            writer.close()
                        case _:
                            writer.write(encode_reply("+OK"))
                            if command.word == "event":
                                opened.set()


class Gateway:
    """Our side: listens to every call, gives commands, lets go."""

    def __init__(self, result: Result, seed: int) -> None:
        self.result = result
        self.logs: Mapping[str, CallLog] = {}
        self.alive: weakref.WeakSet[object] = weakref.WeakSet()
        self.working: set[asyncio.Task[None]] = set()
        self._random = random.Random(seed)

    def control_came(self, leg: ControlLeg) -> None:
        log = self.logs[leg.unique_id]
        log.came += 1
        self.alive.add(leg)
        leg.attach(self)
        task = asyncio.get_running_loop().create_task(self._work(leg, log))
        self.working.add(task)
        task.add_done_callback(self.working.discard)

    def refused(self, leg: str, reason: str, peer: str) -> None:
        self.result.failed.append(f"refused: {reason}")

    def control_event(self, leg: ControlLeg, event: Event) -> None:
        log = self.logs[leg.unique_id]
        match event.name:
            case "DTMF":
                log.disorder += int(event.get("Number")) != log.seen
                log.seen += 1
                self.result.event_ms.append((time.monotonic_ns() - int(event.get("Stamp"))) / 1e6)
            case "CHANNEL_HANGUP":
                log.hangups += 1
                leg.notify_session_ended("hung up")
            case "YOUR_TURN":
                leg.notify_session_ended("enough")
                leg.notify_session_ended("twice is once")

    def control_lingering(self, leg: ControlLeg) -> None:
        self.logs[leg.unique_id].lingering += 1

    def control_closed(self, leg: ControlLeg, reason: str) -> None:
        self.logs[leg.unique_id].closed += 1

    async def _work(self, leg: ControlLeg, log: CallLog) -> None:
        while not leg.closed:
            tasks = [asyncio.ensure_future(self._ask(leg, log, number)) for number in range(3)]
            await asyncio.sleep(0)
            if self._random.random() < 0.3:
                tasks[0].cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(self._random.uniform(0.0, 0.2))

    async def _ask(self, leg: ControlLeg, log: CallLog, number: int) -> None:
        log.commands += 1
        words = f"echo {number} of {log.unique_id}"
        began = time.monotonic()
        outcome = "?"
        try:
            outcome = "answered" if await leg.api("eval", words) == f"eval {words}" else "somebody else's answer"
            self.result.reply_ms.append((time.monotonic() - began) * 1000)
        except asyncio.CancelledError:
            outcome = "cancelled"
        except LegClosed:
            outcome = "closed"
        except ReplyTimeout:
            outcome = "no reply"
        finally:
            log.outcomes[outcome] += 1


async def stress(calls: int, seconds: float, *, seed: int = 1, blocks_ms: int = 50) -> Result:
    """Run `calls` lines for `seconds`, blocking the loop and the hub for `blocks_ms` twice a second each."""
    result = Result()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: result.failed.append(f"{context.get('exception')!r}"))
    gateway = Gateway(result, seed)
    server = GreenswitchServer(gateway, OutboundOptions())
    port = await server.start("127.0.0.1", 0)
    switch = SwitchThread(port, result, calls, seconds, seed)
    gateway.logs = switch.logs
    nuisance = loop.create_task(_nuisance(server, gateway, result, blocks_ms / 1000))
    switch.start()
    await switch.join()
    nuisance.cancel()
    await asyncio.gather(nuisance, return_exceptions=True)
    async with asyncio.timeout(30):
        await asyncio.gather(*gateway.working)
    await server.aclose()
    if len(server):
        result.failed.append(f"{len(server)} connections are still there")
    if any(thread.name == "dueto greenswitch" for thread in threading.enumerate()):
        result.failed.append("the hub's thread lives on")
    for log in result.calls:
        for outcome in ("no reply", "somebody else's answer", "?"):
            if log.outcomes[outcome]:
                result.failed.append(f"{log.unique_id}: {log.outcomes[outcome]} times {outcome}")
    gc.collect()
    result.alive = len(gateway.alive)
    return result


async def _nuisance(server: GreenswitchServer, gateway: Gateway, result: Result, block_s: float) -> None:
    turn = 0
    while True:
        await asyncio.sleep(0.25)
        turn += 1
        gateway.alive.update(filter(None, (relay._session for relay in server._relays)))
        if turn % 2:
            time.sleep(block_s)  # noqa: ASYNC251  # on purpose: a slow asyncio loop
        else:
            server._hub.call_soon(time.sleep, block_s)  # a greenlet that does not yield
        if turn % 4 == 0:
            result.rss_kb.append(_rss_kb())


def _rss_kb() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _at(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def _print(result: Result, seconds: float) -> None:
    endings = Counter(call.ending for call in result.calls)
    outcomes: Counter[str] = Counter()
    for call in result.calls:
        outcomes += call.outcomes
    half = result.rss_kb[len(result.rss_kb) // 2 :] or [0]
    print(f"{len(result.calls)} calls in {seconds:.0f} s: {dict(endings)}")
    print(f"{sum(call.seen for call in result.calls)} events, {sum(outcomes.values())} commands: {dict(outcomes)}")
    for name, values in (("switch to sink", result.event_ms), ("command to reply", result.reply_ms)):
        print(f"{name}: p50 {_at(values, 0.5):.2f} ms, p99 {_at(values, 0.99):.2f} ms, worst {_at(values, 1.0):.2f} ms")
    print(f"resident memory: {half[0]} kB at half time, {half[-1]} kB at the end")


def main() -> int:
    """Run, print, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blocks-ms", type=int, default=50, help="how long loop and hub are blocked, twice a second")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.seconds + 60, exit=True)
    result = asyncio.run(stress(options.calls, options.seconds, seed=options.seed, blocks_ms=options.blocks_ms))
    faulthandler.cancel_dump_traceback_later()
    _print(result, options.seconds)
    faults = result.faults()
    for fault in faults[:20]:
        print("FAULT", fault)
    print("no fault" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
