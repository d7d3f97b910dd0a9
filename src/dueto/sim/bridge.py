"""The `bridge` application and the leg it makes."""

import math
import re
from typing import TYPE_CHECKING

from dueto.audio import frame_bytes
from dueto.sim.endpoints import CAUSES, DIALSTATUS, SIP_STATUS, Endpoint, endpoint_of
from dueto.sim.sounds import Sound, load

if TYPE_CHECKING:
    from dueto.sim.channel import Channel

_OPTIONS = re.compile(r"^\s*([{\[<])(.*?)[}\]>]")


class BLeg:
    """The called side of a bridge, as far as the caller's channel can tell."""

    def __init__(self, channel: "Channel", unique_id: str, dial: str, endpoint: Endpoint) -> None:
        self.unique_id = unique_id
        self.dial = dial
        self.endpoint = endpoint
        self.cause = ""
        "Why it ended, or never came to be; empty while it lives."
        self.answered = False
        self.heard: list[bytes] = []
        self._channel = channel
        self._sound = Sound(load(endpoint.says, channel.rate_hz), frame_bytes(channel.rate_hz))

    def hang_up(self, cause: str = "NORMAL_CLEARING") -> None:
        """End it; the caller's channel notices with its next frame."""
        self.cause = self.cause or cause
        self._channel.stir()

    def speak(self) -> bytes | None:
        """Return what it says in this frame; None: nothing."""
        return None if self._sound.is_over() else self._sound.read()


def parse_dial(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the options in braces and the dial strings to be tried one after the other."""
    options: dict[str, str] = {}
    while (found := _OPTIONS.match(text)) is not None:
        for pair in found[2].split(","):
            name, _, value = pair.partition("=")
            options[name.strip()] = value.strip()
        text = text[found.end() :]
    return options, [part.strip() for part in re.split(r"[|,]", text) if part.strip()]


async def bridge(channel: "Channel", argument: str) -> bool:
    """Call somebody and connect the two; returns when they are apart again."""
    options, dials = parse_dial(argument)
    leg: BLeg | None = None
    cause = "DESTINATION_OUT_OF_ORDER"
    channel.set_variable("originate_disposition", "failure")
    channel.set_variable("DIALSTATUS", "INVALIDARGS")
    for dial in dials:
        endpoint = endpoint_of(dial, channel.core.endpoints)
        leg = BLeg(channel, options.get("origination_uuid") or channel.core.new_uuid(), dial, endpoint)
        cause = await _ring(channel, leg, options)
        if cause == "SUCCESS" or not channel.up:
            break
        leg = None
    if not channel.staying:
        cause = "ORIGINATOR_CANCEL"
    channel.set_variable("originate_disposition", cause)
    channel.set_variable("DIALSTATUS", DIALSTATUS.get(cause, cause))
    if cause != "SUCCESS" or leg is None:
        channel.set_variable("originate_failed_cause", cause)
        channel.set_variable("last_bridge_hangup_cause", cause)
        if channel.staying and not _continues(channel, cause):
            channel.hang_up(cause)
        return True
    await _talk(channel, leg)
    return True


async def _ring(channel: "Channel", leg: BLeg, options: dict[str, str]) -> str:
    """Let it ring; return `SUCCESS` or the cause why nobody came. Nothing is taken from the queue meanwhile."""
    core, endpoint = channel.core, leg.endpoint
    core.b_legs[leg.unique_id] = leg
    before, channel.call_state = channel.call_state, "RING_WAIT"
    channel.set_variable("originate_signal_bond", leg.unique_id)
    channel.set_variable("originated_legs", f"{leg.unique_id};Outbound Call;{leg.dial.rpartition('/')[2]}")
    if endpoint.outcome in ("answers", "no_answer"):
        channel.callee = leg.dial.rpartition("/")[2].partition("@")[0]
        channel.profile_changed()
    timeout = options.get("leg_timeout") or options.get("originate_timeout") or channel.variables.get("call_timeout")
    # Whole seconds of the wall clock: a second that has begun counts as one.
    patience_s = math.floor(core.epoch()) + float(timeout or 60) - core.epoch()
    rings_s = endpoint.answer_after_s if endpoint.outcome != "no_answer" else math.inf
    timer = core.loop.call_later(min(rings_s, max(patience_s, 0.0)), channel.stir)
    until = core.now() + min(rings_s, max(patience_s, 0.0)) - 0.001
    try:
        while channel.staying and not leg.cause and core.now() < until:
            await channel.idle()
    finally:
        timer.cancel()
    if channel.up:
        channel.call_state = before
    if not leg.cause and channel.staying and rings_s <= patience_s and endpoint.outcome == "answers":
        leg.answered = True
        return "SUCCESS"
    cause = leg.cause or (CAUSES.get(endpoint.outcome, "ORIGINATOR_CANCEL") if rings_s <= patience_s else "NO_ANSWER")
    del core.b_legs[leg.unique_id]
    if status := SIP_STATUS.get(cause):
        channel.set_variable("sip_invite_failure_status", str(status[0]))
        channel.set_variable("sip_invite_failure_phrase", status[1])
        channel.set_variable("last_bridge_proto_specific_hangup_cause", f"sip:{status[0]}")
    channel.set_variable("originate_causes", f"{leg.unique_id};{cause}")
    return cause


def _continues(channel: "Channel", cause: str) -> bool:
    wanted = channel.variables.get("continue_on_fail", "")
    return wanted.lower() in ("true", "yes", "1") or cause in wanted.upper().split(",")


async def _talk(channel: "Channel", leg: BLeg) -> None:
    core = channel.core
    ids = (("Bridge-A-Unique-ID", channel.unique_id), ("Bridge-B-Unique-ID", leg.unique_id))
    other = (
        ("Other-Type", "originatee"),
        ("Other-Leg-Direction", "outbound"),
        ("Other-Leg-Caller-ID-Number", channel.number),
        ("Other-Leg-Destination-Number", leg.dial.rpartition("/")[2]),
        ("Other-Leg-Unique-ID", leg.unique_id),
        ("Other-Leg-Source", "mod_sofia"),
        ("Other-Leg-Channel-Name", f"sofia/internal/{leg.dial.rpartition('/')[2]}"),
    )
    for name in ("signal_bond", "last_bridge_to", "bridge_uuid"):
        channel.set_variable(name, leg.unique_id)
    channel.set_variable("bridge_channel", f"sofia/internal/{leg.dial.rpartition('/')[2]}")
    channel.answer()
    channel.b_leg = leg
    channel.emit("CHANNEL_BRIDGE", second=ids, other=other)
    timer = None
    if (after_s := leg.endpoint.hangs_up_after_s) is not None:
        timer = core.loop.call_later(after_s, leg.hang_up)
    try:
        await channel.attend(lambda: bool(leg.cause), breakable=False)
    finally:
        if timer is not None:
            timer.cancel()
        channel.b_leg = None
        core.b_legs.pop(leg.unique_id, None)
    cause = leg.cause or channel.hangup_cause or "NORMAL_CLEARING"
    by_b, leg.cause = bool(leg.cause), cause
    channel.set_variable("last_bridge_hangup_cause", cause)
    channel.set_variable("bridge_hangup_cause", cause)
    channel.emit("CHANNEL_UNBRIDGE", second=ids, other=other)
    if by_b and channel.staying and channel.variables.get("hangup_after_bridge") == "true":
        channel.hang_up(cause)
