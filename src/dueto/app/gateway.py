"""The gateway: everything built from one configuration, started, drained and closed."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType

import structlog
from prometheus_client import CollectorRegistry, generate_latest

from dueto.agents.media_streams.placing import Placing
from dueto.agents.profiles import LoadedAgent
from dueto.app import parts
from dueto.app.addresses import Address, why_deaf
from dueto.app.http import Answer, Request
from dueto.app.journal import LogJournal, fan_out
from dueto.app.logs import call_logger
from dueto.app.metrics import Metrics
from dueto.app.serving import check_for_serving
from dueto.app.settings import Settings
from dueto.app.staff import Equipment, Staff
from dueto.app.status import StatusServer
from dueto.app.twilio_api import TwilioApi
from dueto.call import Agent, Desk, House, Journal, Mouth
from dueto.call.dialects import DialectFinder
from dueto.call.placing import Dialled, mint, place
from dueto.clock import Clock, monotonic
from dueto.errors import NotCapable, SettingsError
from dueto.legs.esl_outbound import ControlServer
from dueto.legs.media_server import MediaServer
from dueto.legs.ticker import Ticker
from dueto.wire.media import AUDIO_STREAM, DIALECTS, StreamPath


class Gateway:
    """Both doors, the desk between them, and an agent.

        async with Gateway(Settings(), agent=my_agent) as gateway:
            await gateway.serve_forever()

    `agent` overrides `agent.use`, `mouth` is what `call.say("text")` speaks with (else the agent's own, else flite or
    espeak-ng); `journal` is told everything that is logged or counted.
    Raises: SettingsError: the configuration can't serve; the text says what to change.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        agent: Agent | None = None,
        mouth: Mouth | None = None,
        journal: Journal | None = None,
        clock: Clock = monotonic,
        worker: str = "",
        takes_back: bool = True,
    ) -> None:
        """`worker`: the name of the process this is one of; connections come by `adopt` then, not by listening.
        `takes_back`: whether calls of an earlier life are looked for."""
        check_for_serving(settings, agent_given=agent is not None)
        self.settings = settings
        self.control_port = self.media_port = self.metrics_port = self.twilio_port = 0
        "The ports that are listened on, once started: those of the settings, or free ones where those said 0."
        self.exchange = parts.exchange(settings)
        rules = parts.call_rules(settings)
        equipment = Equipment(os.environ, parts.keepers(settings), self.exchange, mouth, parts.spare_mouth)
        staff = Staff(settings, rules, equipment, agent=agent)
        first = staff.otherwise
        self.agent = LoadedAgent(first.name, first.agent, first.mouth, staff.start, staff.aclose)
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry)
        journals: list[Journal] = [LogJournal(), self._metrics.journal, *([journal] if journal is not None else [])]
        self._timelines = parts.timelines(settings)
        if self._timelines is not None:
            journals.append(self._timelines.journal)
        self.link = parts.switch_link(settings, fan_out(*journals))
        house = House(
            agent=self.agent.run,
            agent_name=self.agent.name,
            rules=rules,
            path=StreamPath(settings.media.path),
            dialect=DIALECTS.get(settings.media.dialect, AUDIO_STREAM),
            finder=DialectFinder() if settings.media.dialect == "auto" else None,
            destinations=first.destinations,
            mouth=first.mouth,
            keys=first.keys,
            switch=self.link,
            unicast=parts.packet_door(settings, clock),
            journal=fan_out(*journals),
            clock=clock,
            ticker=Ticker(clock=clock),
            logger=call_logger,
            recorder=parts.recorder(settings),
            worker=worker,
        )
        router = staff.router
        self.desk = Desk(house if router is None else router.settle(house), takes_back=takes_back)
        self._control = parts.control_server(settings, self.desk)
        self._media = (
            MediaServer(self.desk, house.path, house.dialect, default_rate_hz=settings.media.rate_hz)
            if house.unicast is None
            else None
        )
        if self.link is not None:
            self.link.on_up(self.desk.switch_up)
        self._status: StatusServer | None = None
        self._placing = Placing(self.exchange, self.dial)
        self._twilio = TwilioApi(
            settings.twilio.listen_address,
            self.exchange,
            lambda event, fields: house.journal("", event, fields),
            self._placing if self.link is not None else None,
        )
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Open the doors. Raises: SettingsError: a port is taken, or an address is not this machine's."""
        await self.agent.start()
        settings = self.settings
        address = settings.control.listen_address
        if self.desk.house.worker:
            self.desk.house.whereabouts.control = settings.control.public_address or str(address)
        elif settings.correlation.control == "expected":
            self.control_port = await _listening("control", address, self._control.start(address.host, address.port))
            here = "" if address.is_wildcard else f"{address.host}:{self.control_port}"
            self.desk.house.whereabouts.control = settings.control.public_address or here
        if self._media is not None:
            address = settings.media.listen_address
            self.media_port = await _listening("media", address, self._media.start(address.host, address.port))
        if self.link is not None:
            self.link.start()  # only now: calls that are taken back find our doors open
        if settings.metrics.listen_address is not None:
            self._status = StatusServer(settings.metrics.listen_address, self._registry, self._ready)
            await self._status.start()
            self.metrics_port = self._status.address.port
        await self._twilio.start()
        self.twilio_port = self._twilio.port

    def asked_by_bot(self, request: Request) -> Answer:
        """Answer a request to Twilio's REST API that came by another door than `[twilio] listen`."""
        return self._twilio.answer(request)

    async def serve_forever(self) -> None:
        """Wait until `aclose`, or `drain`, is done."""
        await self._closed.wait()

    async def dial(
        self,
        dial: str,
        *,
        agent: Agent | None = None,
        caller_id: str = "",
        caller_name: str = "",
        timeout_s: float = 60.0,
        detect_s: float = 0.0,
        variables: Mapping[str, str] | None = None,
        unique_id: str = "",
    ) -> Dialled:
        """Place a call: `dial("sofia/gateway/trunk/5511999990000", agent=...)`; answered, it is an ordinary `Call`.

        Returns once the agent (the gateway's own by default) talks to whoever answered, or once it is known why nobody
        did: `busy`, `no_answer`, `rejected`, `unreachable`, ... With `detect_s` up to so many seconds are listened to
        before the agent begins, and `answered_by` tells person from machine. `unique_id`: the channel's, a UUID that
        is new; one is made otherwise. Cancelling ends the call.
        Raises: NotCapable: what the configuration lacks. LegClosed: the switch's event socket is down.
        LocalProtocolError: `dial`, or a variable, holds what no dial string may.
        """
        link, house = self.desk.house.switch, self.desk.house
        if link is None:
            raise NotCapable("placing a call needs the switch's own event socket: [switch] address and password")
        if self.desk.draining or self.desk.full:
            raise NotCapable("no call is placed while the gateway is draining, or full")

        async def job(command: str, argument: str, job_timeout_s: float) -> str:
            return await link.job(command, argument, timeout_s=job_timeout_s)

        given = {"origination_caller_id_number": caller_id, "origination_caller_id_name": caller_name}
        unique_id = unique_id or mint()
        house.journal(unique_id, "dialling", {"timeout_s": timeout_s})
        name = house.agent_name if agent is None else getattr(agent, "__name__", type(agent).__name__)
        dialled = await place(
            self.desk,
            replace(house, agent_name=name),
            job,
            dial,
            agent or house.agent,
            unique_id=unique_id,
            variables={"ignore_early_media": "true", **given, **(variables or {})},
            timeout_s=timeout_s,
            stream_base_url=self._stream_base_url,
            detect_s=detect_s,
        )
        fields = {"outcome": dialled.outcome, "cause": dialled.hangup_cause, "answered_by": dialled.answered_by}
        house.journal(unique_id, "dialled", fields)
        return dialled

    @property
    def _stream_base_url(self) -> str:
        """Where a switch on this very machine or network finds our media door, if nobody said more."""
        address = self.settings.media.listen_address
        return "" if address.is_wildcard or self._media is None else f"ws://{address.host}:{self.media_port}"

    async def adopt(self, connection: socket.socket) -> None:
        """Serve a control connection that another process accepted, and on which it said `connect`.

        Raises: NotCapable: the engine is not the native one.
        """
        if not isinstance(self._control, ControlServer):
            raise NotCapable("only the native engine takes connections that another process accepted")
        await self._control.adopt(connection)

    def metrics(self) -> bytes:
        """What was counted, in Prometheus' text format."""
        return generate_latest(self._registry)

    async def retire(self) -> None:
        """Take no new calls, let the running ones go on for as long as they like, close."""
        self.desk.draining = True
        self.desk.house.journal("", "retiring", {"calls": len(self.desk)})
        await self.desk.empty()
        await self.aclose()

    async def drain(self) -> None:
        """Take no new calls, let the running ones finish for `call.drain_s`, return the rest to the dialplan, close."""
        self.desk.draining = True
        self.desk.house.journal("", "draining", {"calls": len(self.desk), "drain_s": self.settings.call.drain_s})
        await self._control.stop_listening()  # the switch's `HOST1|HOST2` goes on to the next
        if self._media is not None:
            await self._media.stop_listening()
        await self.desk.drain(self.settings.call.drain_s)
        await self.aclose()

    async def aclose(self) -> None:
        """Close everything now; agents are cancelled, channels stay with the switch."""
        for close in self._last_steps():
            try:
                await close()
            except Exception as error:  # what fails keeps nothing behind it from closing
                structlog.get_logger().error("closing_failed", error=error, exc_info=error)
        self._closed.set()

    def _last_steps(self) -> Iterator[Callable[[], Awaitable[None]]]:
        media, recorder = self._media, self.desk.house.recorder
        yield self._control.stop_listening
        if media is not None:
            yield media.stop_listening
        yield self.desk.aclose
        yield self._control.aclose  # only now: the calls let go over it
        for server in (self.link, self._status, self._twilio):
            if server is not None:
                yield server.aclose
        yield self._placing.aclose
        if recorder is not None:
            yield recorder.aclose
        yield self.agent.aclose
        if self._timelines is not None:
            yield self._timelines.aclose

    async def __aenter__(self) -> "Gateway":
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _ready(self) -> tuple[bool, str]:
        if self.desk.draining:
            return False, "draining"
        return (False, "full") if self.desk.full else (True, "ready")


async def _listening(leg: str, address: Address, starting: Awaitable[int]) -> int:
    try:
        return await starting
    except OSError as error:
        raise SettingsError(f"[{leg}] listen: {why_deaf(address, error)}") from None
