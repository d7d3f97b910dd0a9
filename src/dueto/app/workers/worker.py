"""A worker: a whole gateway, except that its control connections are handed to it."""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog

from dueto.agents.profiles import Profile
from dueto.app.gateway import Gateway
from dueto.app.sections import ControlSettings, TenantSettings
from dueto.app.serve import settle
from dueto.app.settings import Settings
from dueto.app.workers.checks import share_of_ports, with_port
from dueto.app.workers.pipe import Pipe, take
from dueto.app.workers.relayed import fields_of_answer, request_of
from dueto.errors import SettingsError

REPORT_S = 0.02
"How long a change in the number of calls may wait to be told: many come at once."


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker is told of its place, by the parent, on its command line."""

    name: str
    "Never used twice in the life of a parent."
    slot: int
    "Its ports are the configured ones and this."
    of: int
    "How many workers serve."
    lines_fd: int
    connections_fd: int
    takes_back: bool
    "Whether it looks for calls of an earlier life: only one of the first does."

    def __str__(self) -> str:
        return f"{self.name}:{self.slot}:{self.of}:{self.lines_fd}:{self.connections_fd}:{int(self.takes_back)}"

    @classmethod
    def parse(cls, text: str) -> "Post":
        """Raises: ValueError: it is none."""
        name, *numbers = text.split(":")
        slot, of, lines_fd, connections_fd, takes_back = map(int, numbers)
        return cls(name, slot, of, lines_fd, connections_fd, bool(takes_back))


Shared = TypeVar("Shared", ControlSettings, Profile, TenantSettings)


def settings_of(settings: Settings, post: Post) -> Settings:
    """Return a worker's own settings: its media ports, its share of each number of calls, nothing else to listen on."""
    media, control = settings.media, settings.control
    listen = media.listen_address
    if media.dialect == "unicast":
        update = {"unicast_ports": share_of_ports(media.unicast_range, post.slot, post.of)}
    else:
        update = {
            "listen": str(type(listen)(listen.host, listen.port + post.slot)),
            "public_url": with_port(media.public_url, post.slot),
        }
    own = media.model_copy(update=update)
    return settings.model_copy(
        update={
            "media": own,
            "control": _shared(control, post.of),
            "agents": {name: _shared(profile, post.of) for name, profile in settings.agents.items()},
            "tenants": {name: _shared(tenant, post.of) for name, tenant in settings.tenants.items()},
            "metrics": settings.metrics.model_copy(update={"listen": ""}),
            "twilio": settings.twilio.model_copy(update={"listen": ""}),
        }
    )


def _shared(section: Shared, workers: int) -> Shared:
    """Return a section whose calls at once are shared out among the workers."""
    return section.model_copy(update={"max_calls": math.ceil(section.max_calls / workers)})


class Worker:
    """Serves what it is handed until it is told to stop, or its parent is gone."""

    def __init__(self, settings: Settings, post: Post) -> None:
        self._post = post
        self._gateway = Gateway(
            settings_of(settings, post), journal=self._noted, worker=post.name, takes_back=post.takes_back
        )
        self._connections = socket.socket(fileno=post.connections_fd)
        self._connections.setblocking(False)
        self._taken = 0
        self._took = asyncio.Event()
        self._adopting: set[asyncio.Task[None]] = set()
        self._reporting: asyncio.TimerHandle | None = None
        self._pipe: Pipe | None = None
        self._ending: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raises: SettingsError: it can't serve; the parent is told so."""
        loop = asyncio.get_running_loop()
        lines = socket.socket(fileno=self._post.lines_fd)
        self._pipe = pipe = await Pipe.over(lines)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal's: the parent decides what it means
        loop.add_signal_handler(signal.SIGTERM, self._end_by, "drain", 0)
        try:
            await self._gateway.start()
            settle()
            loop.add_reader(self._connections.fileno(), self._take)
            pipe.write(ready=True, media_port=self._gateway.media_port)
            await self._obey(pipe)
        except SettingsError as error:
            pipe.write(failed=str(error))
            raise
        finally:
            loop.remove_reader(self._connections.fileno())
            if self._reporting is not None:
                self._reporting.cancel()
            for adopting in self._adopting:
                adopting.cancel()
            await self._gateway.aclose()
            pipe.close()
            self._connections.close()

    async def _obey(self, pipe: Pipe) -> None:
        """Do what the parent says, until the calls are over that it wanted to be the last."""
        while True:
            reading = asyncio.create_task(pipe.read())
            waiting: set[asyncio.Task[object]] = {reading, *([self._ending] if self._ending else [])}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not reading.done():
                    reading.cancel()
            if self._ending is not None and self._ending.done():
                with contextlib.suppress(TimeoutError):
                    self._ending.result()
                return
            order = reading.result()
            if order is None:  # the parent is gone: nobody hands us anything any more
                structlog.get_logger().warning("parent_gone", calls=len(self._gateway.desk))
                self._end_by("retire", 0)
                if self._ending is not None:
                    await self._ending
                return
            if order.get("ask") == "metrics":
                pipe.write(to=order["number"], text=self._gateway.metrics().decode())
            elif order.get("ask") == "request":
                answer = self._gateway.asked_by_bot(request_of(order))
                pipe.write(to=order["number"], **fields_of_answer(answer))
            elif (how := order.get("end")) in ("retire", "drain"):
                self._end_by(str(how), int(order.get("passed", 0)))
            elif how == "close":
                return

    def _end_by(self, how: str, passed: int) -> None:
        """Begin to end; a drain overtakes a retirement."""
        if self._ending is not None:
            if how != "drain":
                return
            self._ending.cancel()
        self._ending = asyncio.create_task(self._end(how, passed), name=how)

    async def _end(self, how: str, passed: int) -> None:
        while self._taken < passed:  # what was passed on before we were told is ours to serve
            self._took.clear()
            await self._took.wait()
        while self._adopting:
            await asyncio.wait(tuple(self._adopting))
        await (self._gateway.retire() if how == "retire" else self._gateway.drain())

    def _take(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (connection := take(self._connections)) is not None:
                self._taken += 1
                self._took.set()
                adopting = loop.create_task(self._gateway.adopt(connection), name="adopt")
                self._adopting.add(adopting)
                adopting.add_done_callback(self._adopted)
        except (EOFError, OSError):
            loop.remove_reader(self._connections.fileno())
        self._report_soon()

    def _adopted(self, task: asyncio.Task[None]) -> None:
        self._adopting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # the switch was quicker to leave
            structlog.get_logger().warning("adoption_failed", error=str(error))

    def _noted(self, unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        if event in ("control_connected", "call_ended"):
            self._report_soon()

    def _report_soon(self) -> None:
        if self._reporting is None and self._pipe is not None:
            self._reporting = asyncio.get_running_loop().call_later(REPORT_S, self._report)

    def _report(self) -> None:
        self._reporting = None
        if self._pipe is not None:
            self._pipe.write(calls=len(self._gateway.desk), taken=self._taken)
