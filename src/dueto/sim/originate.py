"""`originate`: a channel that the switch places because somebody asked it to."""

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dueto.sim.caller import Caller, Line, Script
from dueto.sim.endpoints import CAUSES, SIP_STATUS, Endpoint

if TYPE_CHECKING:
    from dueto.sim.channel import Channel
    from dueto.sim.core import Action

_LINE = re.compile(r"(?:\{(?P<options>[^}]*)\})?(?P<dial>\S+)\s+(?P<what>&(?P<app>\w+)\((?P<argument>.*)\)|\S+)\s*")
_PAIR = re.compile(r"\s*([^=,]+)=('[^']*'|[^,]*)(?:,|$)")
USAGE = (
    b"-USAGE: <call_url> <exten>|&<application_name>(<app_args>) [<dialplan>] [<context>] [<cid_name>] [<cid_num>]\n"
)


@dataclass(frozen=True, slots=True)
class Originate:
    """What an `originate` asks for."""

    options: Mapping[str, str]
    dial: str
    actions: "tuple[Action, ...]"
    "What the channel does once it was answered; empty: it goes to `extension`."
    extension: str = ""

    @classmethod
    def parse(cls, line: str) -> "Originate | None":
        """Read the words after `originate`; None: too few."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            return None
        options = {name.strip(): value.strip("'") for name, value in _PAIR.findall(found["options"] or "")}
        if found["app"]:
            return cls(options, found["dial"], ((found["app"], found["argument"].strip("'")),))
        return cls(options, found["dial"], (), found["what"])

    @property
    def conference(self) -> str:
        """The conference that the far half of a loopback channel sits in; empty: it is no such channel."""
        found = re.fullmatch(r"loopback/conference:([^@/]+)(?:@[^/]*)?/[^/]*/inline", self.dial)
        return found[1] if found else ""

    def caller(self, endpoint: Endpoint, unique_id: str) -> Caller:
        """The channel as a caller: its telephone is the endpoint, its number is who calls it."""
        return Caller(
            number=self.options.get("origination_caller_id_number", "0000000000"),
            name=self.options.get("origination_caller_id_name", ""),
            destination=self.dial.rpartition("/")[2].partition("@")[0],
            unique_id=unique_id,
            rate_hz=endpoint.rate_hz,
            script=endpoint.script or _script(endpoint),
            echoes=endpoint.echoes,
            variables=tuple(self.options.items()),
        )


def _script(endpoint: Endpoint) -> Script | None:
    if endpoint.says == b"" and not endpoint.presses and endpoint.hangs_up_after_s is None:
        return None

    async def answered(line: Line) -> None:
        if endpoint.says:
            await line.say(endpoint.says)
        if endpoint.presses:
            await line.wait(endpoint.presses_after_s)
            await line.press(endpoint.presses)
        if endpoint.hangs_up_after_s is not None:
            await line.wait(endpoint.hangs_up_after_s)
            return
        await line.until_hangup(86_400.0)

    return answered


async def ring(channel: "Channel", asked: Originate, endpoint: Endpoint, result: "asyncio.Future[bytes]") -> None:
    """Let it ring. Afterwards the channel is answered, or hung up with the cause; `result` says the same."""
    core = channel.core
    channel.emit("CHANNEL_ORIGINATE")
    timeout = asked.options.get("originate_timeout") or asked.options.get("leg_timeout") or "60"
    # Whole seconds of the wall clock: a second that has begun counts as one.
    patience_s = math.floor(core.epoch()) + float(timeout) - core.epoch()
    rings_s = endpoint.answer_after_s if endpoint.outcome != "no_answer" else math.inf
    wait_s = min(rings_s, max(patience_s, 0.0))
    until = core.now() + wait_s - 0.001
    timer = core.loop.call_later(wait_s, channel.stir)
    try:
        while channel.up and core.now() < until:
            await channel.idle()
    finally:
        timer.cancel()
    if channel.up and rings_s <= patience_s and endpoint.outcome == "answers":
        channel.answer()
        _tell(result, f"+OK {channel.unique_id}\n")
        return
    cause = channel.hangup_cause or (CAUSES[endpoint.outcome] if rings_s <= patience_s else "NO_ANSWER")
    if status := SIP_STATUS.get(cause):
        channel.set_variable("sip_invite_failure_status", str(status[0]))
    channel.hang_up(cause)
    _tell(result, f"-ERR {cause}\n")


def _tell(result: "asyncio.Future[bytes]", text: str) -> None:
    if not result.done():
        result.set_result(text.encode())
