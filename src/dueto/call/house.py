"""What all calls of one gateway share: how they are to behave, and whom they may ask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dueto.call.dialects import DialectFinder
from dueto.call.keys import Key
from dueto.call.ports import Agent, Destination, Mouth
from dueto.call.recorder import Recorder
from dueto.clock import Clock, monotonic
from dueto.legs.ports import PacketDoor, SwitchLink
from dueto.legs.ticker import Ticker
from dueto.wire.media import AUDIO_STREAM_BINARY, Dialect, StreamPath

if TYPE_CHECKING:
    from dueto.call.call import Call


WORKER = "dueto_worker"
"The channel variable that names the process which has the call."


class Journal(Protocol):
    """Where everything worth a log line or a metric goes; the call knows no more of either."""

    def __call__(self, unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        """Note `event`; `unique_id` is empty where no call is concerned. Must not raise."""
        ...


def no_journal(unique_id: str, event: str, fields: Mapping[str, object]) -> None:
    """Note nothing."""


class Route(Protocol):
    """Chooses who takes a call."""

    async def __call__(self, call: "Call") -> "House":
        """Return the house of this call: its agent, destinations, rules. Bounded in time by itself. May not fail."""
        ...

    def foresee(self, call: "Call") -> Agent | None:
        """Return whom it will choose for a call whose stream is still on the way; None: nobody can tell yet."""
        ...


class _Silent:
    """A logger for calls that have none."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **fields: None


def no_logger(unique_id: str) -> Any:
    """Return a logger that says nothing."""
    return _Silent()


@dataclass(frozen=True, slots=True)
class CallRules:
    """How calls behave; the names are those of the settings."""

    control_expected: bool = True
    warn_after_s: float = 5.0
    give_up_after_s: float = 30.0
    "0: never."
    on_missing_media: Literal["return_to_dialplan", "hangup"] = "return_to_dialplan"
    while_waiting: str = "silence"
    "`silence`, or a `tone_stream://` the switch plays until the media leg is here."
    hangup_grace_s: float = 0.25
    closing_s: float = 5.0
    when_done: Literal["hangup", "return_to_dialplan"] = "hangup"
    when_failed: str = "return_to_dialplan"
    "That, `hangup`, or the name of a destination."
    max_lag_ms: int = 400
    rate_hz: int = 16000
    stream_start: Literal["dialplan", "gateway"] = "dialplan"
    public_url: str = ""
    token_required: bool = True
    secret: str = field(default="", repr=False)
    max_calls: int = 1000


@dataclass(slots=True)
class Whereabouts:
    """Where the switch finds us; known at the latest once the doors are open."""

    control: str = ""
    "`HOST:PORT` for its `socket` application, or several with `|` between them; empty: nobody told us."


@dataclass(frozen=True, slots=True)
class House:
    """The rules and the shared services."""

    agent: Agent
    agent_name: str = "agent"
    tenant: str = ""
    "Whose calls these are: the NAME of a `[tenants.NAME]`; empty: nobody's in particular."
    route: "Route | None" = None
    "Asked when the agent is to begin: who takes this call, under which rules."
    rules: CallRules = field(default_factory=CallRules)
    path: StreamPath = field(default_factory=lambda: StreamPath("/stream/{secretary}/{uuid}/{caller}"))
    dialect: Dialect = AUDIO_STREAM_BINARY
    finder: DialectFinder | None = None
    "Finds the dialect out, call by call; None: it is `dialect`."
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    mouth: Mouth | None = None
    journal: Journal = no_journal
    clock: Clock = monotonic
    ticker: Ticker = field(default_factory=Ticker)
    logger: Callable[[str], Any] = no_logger
    "Makes `call.log` from a Unique-ID."
    keys: Mapping[str, Key] = field(default_factory=dict)
    "The DTMF map, asked before the agent."
    switch: SwitchLink | None = None
    "The switch's own event socket, if one is configured."
    unicast: PacketDoor | None = None
    "Where streams come from that need no audio module; None: one dials us."
    marks: bool = True
    "Whether a gateway that comes back takes these calls back."
    local_time: Callable[[], datetime] = datetime.now
    "For opening hours."
    recorder: Recorder | None = None
    "Keeps recordings, if the configuration says where."
    worker: str = ""
    "Which of several processes this is: its channels carry it in `WORKER`, so that they find it when they dial again."
    whereabouts: Whereabouts = field(default_factory=Whereabouts)

    @property
    def mark(self) -> str:
        """What our channels carry in `dueto_owner`, so that we know them again after a restart; empty: they don't."""
        return self.whereabouts.control if self.switch is not None and self.marks else ""
