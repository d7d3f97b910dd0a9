"""What all channels, sockets and streams of one simulated switch share."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dueto.clock import Clock
from dueto.sim.doors import Doors
from dueto.sim.sounds import StoredFile

if TYPE_CHECKING:
    from dueto.sim.bridge import BLeg
    from dueto.sim.channel import Channel
    from dueto.sim.control import ControlConnection
    from dueto.sim.endpoints import Endpoint
    from dueto.sim.together import Room

Action = tuple[str, str]
"One line of a dialplan: application and argument."
Application = Callable[["Channel", str], Awaitable[bool]]
"Runs on a channel; False: it was broken off."


@dataclass(eq=False)
class Core:
    """The switch's shared state. Its parts know it; it knows none of them."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    doors: Doors
    rng: random.Random
    applications: Mapping[str, Application]
    extensions: Mapping[str, Sequence[Action]]
    endpoints: "Mapping[str, Endpoint]"
    dialect: str
    epoch_s: float
    "The wall clock's time when the clock stood at `started_s`."
    started_s: float
    event_tick_s: float = 0.02
    frame_s: float = 0.02
    temp_dir: str = "/var/lib/fs/tmp"
    clears: bool = False
    "Whether the streaming dialect knows `stopAudio` and `killAudio`."
    record: bool = True
    session: int = 0
    channels: "dict[str, Channel]" = field(default_factory=dict)
    b_legs: "dict[str, BLeg]" = field(default_factory=dict)
    rooms: "dict[str, Room]" = field(default_factory=dict)
    listeners: "list[ControlConnection]" = field(default_factory=list)
    "Inbound event sockets: they get the events of every channel."
    originate: "Callable[[str], asyncio.Future[bytes] | bytes]" = lambda line: b"-ERR no reply\n"
    files: dict[str, StoredFile] = field(default_factory=dict)
    tasks: set["asyncio.Task[Any]"] = field(default_factory=set)
    run_api: "Callable[[Channel, str], object]" = lambda channel, line: None
    _sequence: int = 500

    @property
    def audio_module(self) -> str:
        """The audio module that is loaded."""
        return "mod_audio_fork" if self.dialect.startswith("audio_fork") else "mod_audio_stream"

    def now(self) -> float:
        """Seconds on the switch's clock."""
        return self.clock()

    def epoch(self) -> float:
        """The wall clock, in seconds since 1970."""
        return self.epoch_s + self.clock() - self.started_s

    def next_sequence(self) -> int:
        """Return the next `Event-Sequence`: it rises over the whole switch, with gaps."""
        self._sequence += self.rng.choice((1, 1, 1, 2, 3))
        return self._sequence

    def next_session(self) -> int:
        """Count sessions."""
        self.session += 1
        return self.session

    def new_uuid(self) -> str:
        """Return a UUID; with the same seed the same ones."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run `work` as a task that the switch owns and ends."""
        task = self.loop.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
