"""A desk and a simulated switch joined by memory pipes, on the virtual clock: thousands of calls in seconds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dueto.call import Agent, CallRules, Desk, House
from dueto.errors import Refused
from dueto.legs.esl_outbound import OutboundLeg, OutboundOptions
from dueto.legs.ports import DEAF, Listener, MediaSink
from dueto.legs.ticker import Ticker
from dueto.sim import (
    HttpHeaders,
    MediaConnection,
    MediaListener,
    MemoryDoors,
    MemoryNetwork,
    PipeFaults,
    Switch,
    UpgradeRefused,
)
from dueto.wire.media import AUDIO_STREAM_BINARY, Dialect, StreamRequest

SECRET = "a secret of the tests"
URL = "ws://127.0.0.1:8085/stream/{secretary}/{uuid}/{caller}?rate=8000&mix=mono&token={token}"


class MediaTwin:
    """Both ends of a WebSocket in memory: the gateway's `MediaLeg` here, the module's `MediaConnection` in `far`.

    As on a socket nothing arrives in the turn of the loop in which it was sent, order is kept, and what is under way
    when an end breaks off is lost.
    """

    def __init__(self, request: StreamRequest, dialect: Dialect, listener: MediaListener, offers: str = "") -> None:
        self.request = request
        self.dialect = dialect
        self.peer = "memory"
        self.base_url = ""
        self.offers = offers
        self.filler_ms = 0
        self.closed = False
        self.listener: Listener = DEAF
        self.far = _FarEnd(self, listener)
        self._sink: MediaSink | None = None

    def attach(self, sink: MediaSink) -> None:
        self._sink = sink

    def send_audio(self, frame: bytes) -> None:
        if not self.closed:
            self.far.post("on_binary", frame)

    def send_text(self, text: str) -> None:
        if not self.closed:
            self.far.post("on_text", text)

    def backlog_bytes(self) -> int:
        return 0

    def close(self, code: int = 1000, reason: str = "") -> None:
        if not self.closed:
            self.closed = True
            self.far.post("on_close", code, reason)
            asyncio.get_running_loop().call_soon(self._tell_closed, code, reason or "closed by us")

    def arrived(self, name: str, *arguments: Any) -> None:
        """Something came from the module."""
        if self.closed or self._sink is None:
            return
        if name == "closed":
            code, reason = arguments
            self.closed = True
            if code != 1006:
                self.far.post("on_close", code, reason)
            self._tell_closed(code, reason)
        elif name == "audio":
            self.listener.message(*arguments)
        else:
            getattr(self._sink, name)(self, *arguments)

    def _tell_closed(self, code: int, reason: str) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.media_closed(self, code, reason)


class _FarEnd:
    """The module's connection."""

    def __init__(self, twin: MediaTwin, listener: MediaListener) -> None:
        self._twin = twin
        self._listener = listener
        self._over = False
        self._paused: list[tuple[str, tuple[Any, ...]]] | None = None

    def post(self, name: str, *arguments: Any) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, name, *arguments)

    def _deliver(self, name: str, *arguments: Any) -> None:
        if self._over:
            return
        if self._paused is not None:
            self._paused.append((name, arguments))
            return
        self._over = name == "on_close"
        getattr(self._listener, name)(*arguments)

    def _send(self, name: str, *arguments: Any) -> None:
        if not self._over:
            asyncio.get_running_loop().call_soon(self._twin.arrived, name, *arguments)

    def send_binary(self, data: bytes) -> None:
        self._send("audio", data)

    def send_text(self, text: str) -> None:
        self._send("media_text", text)

    def ping(self, payload: bytes) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self._send("closed", code, reason)

    def abort(self) -> None:
        if not self._over:
            self._send("closed", 1006, "aborted")
            asyncio.get_running_loop().call_soon(self._listener.on_close, None, "")
        self._over = True

    def unsent_bytes(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._paused = self._paused if self._paused is not None else []

    def resume_reading(self) -> None:
        waiting, self._paused = self._paused or [], None
        for name, arguments in waiting:
            self._deliver(name, *arguments)


@dataclass
class Virtual:
    """What a test may look at."""

    desk: Desk
    doors: MemoryDoors
    journal: list[tuple[str, str, Mapping[str, object]]]
    noted: asyncio.Event

    def names(self, unique_id: str | None = None) -> list[str]:
        """The names of what was journalled, in order."""
        return [name for uid, name, _ in self.journal if unique_id in (None, uid)]

    async def until_noted(self, name: str, *, times: int = 1) -> None:
        """Wait until `name` was journalled `times` times."""
        while self.names().count(name) < times:
            self.noted.clear()
            await self.noted.wait()

    def switch(self, **more: Any) -> Switch:
        """A simulated switch in the same process."""
        return Switch(**({"media_url": URL, "secret": SECRET, "doors": self.doors, "record": False} | more))


def virtual_doors(
    desk: Desk, dialect: Dialect, *, faults: PipeFaults | None = None, network: MemoryNetwork | None = None
) -> MemoryDoors:
    """Doors in memory that lead to `desk`."""

    async def media(url: str, headers: HttpHeaders, listener: MediaListener) -> MediaConnection:
        try:
            target = url.split("//", 1)[1].partition("/")[2]
            request = desk.house.path.parse("/" + target, default_rate_hz=16000)
            desk.admit_media(request)
        except Refused as refused:
            desk.refused("media", refused.reason, "memory")
            raise UpgradeRefused(str(refused)) from None
        twin = MediaTwin(request, dialect, listener, dict(headers).get("Sec-WebSocket-Protocol", ""))
        listener.on_open(twin.far)
        desk.media_came(twin)
        return twin.far

    return MemoryDoors(lambda: OutboundLeg(desk, OutboundOptions()), media, faults=faults, network=network)


@contextlib.asynccontextmanager
async def virtual_desk(
    agent: Agent,
    *,
    rules: CallRules | None = None,
    dialect: Dialect = AUDIO_STREAM_BINARY,
    pipe_faults: PipeFaults | None = None,
    keep_journal: bool = True,
    network: MemoryNetwork | None = None,
    **house_fields: Any,
) -> AsyncIterator[Virtual]:
    """Stand a desk up on the running virtual loop."""
    journal: list[tuple[str, str, Mapping[str, object]]] = []
    noted = asyncio.Event()

    def note(unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        if keep_journal or event == "task_failed":
            journal.append((unique_id, event, dict(fields)))
            noted.set()

    clock = asyncio.get_running_loop().time
    house = House(
        agent=agent,
        rules=replace(rules or CallRules(), secret=SECRET),
        dialect=dialect,
        journal=note,
        clock=clock,
        ticker=Ticker(clock=clock),
        **house_fields,
    )
    desk = Desk(house)
    try:
        yield Virtual(desk, virtual_doors(desk, dialect, faults=pipe_faults, network=network), journal, noted)
        async with asyncio.timeout(20):  # whatever the switch did, every call comes to its end by itself
            await desk.empty()
    finally:
        await desk.aclose()
    assert not [entry for entry in journal if entry[1] == "task_failed"]
