"""The simulated switch: places calls, runs their dialplan, and connects them to a gateway over both legs."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit

from dueto.clock import Clock
from dueto.sim.api import run_api
from dueto.sim.applications import APPLICATIONS
from dueto.sim.call import SimCall
from dueto.sim.caller import Caller
from dueto.sim.channel import Channel
from dueto.sim.core import Action, Core
from dueto.sim.doors import Doors, TcpDoors
from dueto.sim.endpoints import Endpoint, endpoint_of
from dueto.sim.faults import NO_FAULTS, Faults
from dueto.sim.inbound import OPEN, Access, InboundConnection
from dueto.sim.originate import USAGE, Originate, ring
from dueto.sim.ticker import Ticker
from dueto.sim.together import enter, leave
from dueto.sim.virtual import VirtualTimeLoop

AudioDialect = Literal["audio_stream", "audio_stream-binary", "audio_stream-base64", "audio_fork", "audio_fork-binary"]
"The audio module that is loaded, and which build of it: named as dueto's own dialects are."
DEFAULT_MEDIA_URL = "ws://127.0.0.1:8085/stream/{secretary}/{uuid}/{caller}?rate=16000&mix=mono&token={token}"

VIRTUAL_EPOCH_S = 1_800_000_000.25
"Where the wall clock of a run on virtual time begins, so that every run is the same."


class Switch:
    """A FreeSWITCH with an audio module, as far as a gateway can tell.

    Use it as `async with Switch(...) as switch`: leaving ends every call and closes every socket.
    """

    def __init__(
        self,
        control: str = "127.0.0.1:8022",
        media_url: str = DEFAULT_MEDIA_URL,
        *,
        secret: str = "",
        dialect: AudioDialect = "audio_stream-binary",
        start: Literal["dialplan", "gateway"] = "dialplan",
        full: bool = True,
        answer: bool = True,
        dialplan: Sequence[Action] = (),
        extensions: Mapping[str, Sequence[Action]] | None = None,
        endpoints: Mapping[str, Endpoint] | None = None,
        faults: Faults = NO_FAULTS,
        clock: Clock | None = None,
        doors: Doors | None = None,
        seed: int = 1,
        event_tick_s: float = 0.02,
        clears: bool = False,
        record: bool = True,
        epoch_s: float | None = None,
    ) -> None:
        """`control`: what stands behind `socket`, `HOST:PORT[|HOST:PORT]`; empty: no control leg
        (then the call is parked, unless `dialplan` says what it does).

        `media_url`: `{secretary}`, `{uuid}`, `{caller}` and `{token}` (md5 of secret:uuid:secret) are filled in, the
        query's `rate` and `mix` are asked of the module. `start`: who starts the stream, the dialplan on answer or the
        gateway by api. `full`: whether the dialplan's `socket` has that word. `answer`: whether the dialplan answers
        before `socket`. `dialplan`: what follows `socket`. `extensions`: other extensions, for transfers and for
        callers who dial them. `endpoints`: who can be dialled.
        `event_tick_s`: how often a socket looks for events (20 ms on a real switch; 0: at once). `clears`: whether the
        streaming dialect knows stopAudio and killAudio. `record`: keep audio and time lines (not wanted under load).
        `epoch_s`: the wall clock at the start; limits in whole seconds (linger, call_timeout) go by it. None: now.
        """
        self._control, self._media_url, self._secret = control, media_url, secret
        self._start, self._answer = start, answer
        self._socket_flags = "async full" if full else "async"
        self._dialplan = list(dialplan)
        self._extensions = dict(extensions or {})
        self._endpoints = dict(endpoints or {})
        self._dialect, self._faults, self._clock, self._doors = dialect, faults, clock, doors
        self._seed, self._event_tick_s, self._clears, self._record = seed, event_tick_s, clears, record
        self._epoch_s = epoch_s
        self._core: Core | None = None
        self._ticker: Ticker | None = None
        self._calls: dict[str, SimCall] = {}
        self._removals: dict[str, Callable[[], None]] = {}
        self._servers: list[asyncio.Server] = []

    @property
    def calls(self) -> Mapping[str, SimCall]:
        """The calls that are not over, or whose control leg still lingers, by Unique-ID."""
        return self._calls

    @property
    def skipped_s(self) -> float:
        """Time this process lost to stalls too long to be caught up; what was measured meanwhile means little."""
        return self._ticker.skipped_s if self._ticker else 0.0

    @property
    def latest_s(self) -> float:
        """How late a frame of its calls was at most, because this process stood still."""
        return self._ticker.latest_s if self._ticker else 0.0

    async def __aenter__(self) -> Self:
        self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def place(self, caller: Caller | None = None, *, faults: Faults | None = None) -> SimCall:
        """Place a call and return it at once. `faults`: for this call only."""
        caller = caller or Caller()
        core = self._started()
        unique_id = caller.unique_id or core.new_uuid()
        faults = self._faults if faults is None else faults
        call = SimCall(core, caller, self._actions(caller, unique_id, faults), unique_id, faults)
        return self._admit(core, call)

    def _admit(self, core: Core, call: SimCall) -> SimCall:
        core.channels[call.unique_id] = call.channel
        self._calls[call.unique_id] = call
        assert self._ticker is not None
        self._removals[call.unique_id] = self._ticker.add(call.frame)
        core.spawn(self._see_off(call), f"{call.unique_id} see off")
        return call

    # -- the switch's own event socket

    async def listen_inbound(
        self, host: str = "127.0.0.1", port: int = 0, *, access: Access = OPEN, faults: Faults = NO_FAULTS
    ) -> int:
        """Open the switch's own event socket, and return its port. `faults`: of its connections (replies, resets)."""
        core = self._started()
        server = await core.loop.create_server(lambda: InboundConnection(core, access, faults), host, port)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def inbound(self, access: Access = OPEN, faults: Faults = NO_FAULTS) -> InboundConnection:
        """The switch's end of a new connection to that socket, to be joined to a client by a `pipe`."""
        return InboundConnection(self._started(), access, faults)

    def _originate(self, line: str) -> "asyncio.Future[bytes] | bytes":
        core = self._started()
        asked = Originate.parse(line)
        if asked is None:
            return USAGE
        unique_id = asked.options.get("origination_uuid") or core.new_uuid()
        if unique_id in core.channels:
            return b"-ERR DUPLICATE_UUID\n"  # read in the source, not seen
        endpoint = endpoint_of(asked.dial, self._endpoints)
        result: asyncio.Future[bytes] = core.loop.create_future()
        actions = list(asked.actions) or list(self._extensions.get(asked.extension, ()))
        caller = asked.caller(endpoint, unique_id)

        async def rings(channel: Channel) -> None:
            await ring(channel, asked, endpoint, result)
            if asked.conference and channel.up:
                room = channel.far_room = enter(channel, asked.conference)
                channel.on_hangup.append(lambda: leave(channel, room))

        call = SimCall(core, caller, actions, unique_id, self._faults, ring=rings)
        call.channel.dial = asked.dial
        self._admit(core, call)
        return result

    async def aclose(self) -> None:
        """End all calls at once and close every socket."""
        if self._core is None:
            return
        for server in self._servers:
            server.close()
        for listener in tuple(self._core.listeners):
            listener.abort()
        if self._ticker is not None:
            self._ticker.close()
        for call in tuple(self._calls.values()):
            await call.abort()
        for task in tuple(self._core.tasks):
            task.cancel()
        if self._core.tasks:
            await asyncio.wait(tuple(self._core.tasks))
        self._calls.clear()
        await asyncio.sleep(0)  # connection_lost of what was aborted

    async def _see_off(self, call: SimCall) -> None:
        await call.over()
        self._removals.pop(call.unique_id)()
        await call.released()
        self._calls.pop(call.unique_id, None)
        if self._core is not None:
            self._core.channels.pop(call.unique_id, None)

    def _actions(self, caller: Caller, unique_id: str, faults: Faults) -> list[Action]:
        if caller.destination in self._extensions:
            return list(self._extensions[caller.destination])
        actions: list[Action] = []
        url = self.media_url(caller, unique_id)
        if url and self._start == "dialplan":
            query = parse_qs(urlsplit(url).query)
            mix, rate = query.get("mix", ["mono"])[0], query.get("rate", ["16000"])[0]
            rate = {"8000": "8k", "16000": "16k"}.get(rate, rate)
            command = "uuid_audio_fork" if self._dialect.startswith("audio_fork") else "uuid_audio_stream"
            both_ways = f" audio_fork {{}} true true {query.get('rate', ['16000'])[0]}"
            more = both_ways if self._dialect == "audio_fork-binary" else ""
            actions.append(("set", f"api_on_answer={command} {unique_id} start {url} {mix} {rate}{more}"))
        if self._answer:
            actions.append(("answer", ""))
        if self._control and not faults.control_never:
            actions.append(("socket", f"{self._control} {self._socket_flags}"))
        elif not self._dialplan:
            actions.append(("park", ""))  # with no control leg and nothing to do the call would end at once
        return [*actions, *self._dialplan]

    def media_url(self, caller: Caller, unique_id: str) -> str:
        """Return the URL the audio of this call goes to; empty: none."""
        token = hashlib.md5(f"{self._secret}:{unique_id}:{self._secret}".encode()).hexdigest()
        values = {"{secretary}": caller.secretary, "{uuid}": unique_id, "{caller}": caller.number, "{token}": token}
        url = self._media_url
        for name, value in values.items():
            url = url.replace(name, value)
        return url

    def _started(self) -> Core:
        if self._core is None:
            loop = asyncio.get_running_loop()
            virtual = isinstance(loop, VirtualTimeLoop)
            clock = self._clock or (loop.time if virtual else time.monotonic)
            epoch_s = self._epoch_s
            if epoch_s is None:
                epoch_s = VIRTUAL_EPOCH_S if virtual else time.time()
            self._core = Core(
                loop=loop,
                clock=clock,
                doors=self._doors or TcpDoors(),
                rng=random.Random(self._seed),
                applications=APPLICATIONS,
                extensions=self._extensions,
                endpoints=self._endpoints,
                dialect=self._dialect,
                epoch_s=epoch_s,
                started_s=clock(),
                event_tick_s=self._event_tick_s,
                clears=self._clears,
                record=self._record,
                run_api=run_api,
                originate=self._originate,
            )
            self._ticker = Ticker(loop, clock)
        return self._core
