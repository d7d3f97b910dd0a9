"""The dialplan applications the simulated switch knows. A coroutine each; False: it was broken off."""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dueto.sim import dialplan
from dueto.sim.bridge import bridge
from dueto.sim.control import ControlConnection
from dueto.sim.endpoints import CAUSES, SIP_STATUS, endpoint_of
from dueto.sim.sounds import NoSuchSound, open_sound
from dueto.sim.together import conference, exchange

if TYPE_CHECKING:
    from dueto.sim.channel import Channel
    from dueto.sim.core import Action, Application


async def set_(channel: "Channel", argument: str) -> bool:
    name, _, value = argument.partition("=")
    channel.set_variable(name.strip(), value)
    return True


async def unset(channel: "Channel", argument: str) -> bool:
    channel.set_variable(argument.strip(), None)
    return True


async def answer(channel: "Channel", _argument: str) -> bool:
    channel.answer()
    return True


async def pre_answer(channel: "Channel", _argument: str) -> bool:
    channel.pre_answer()
    return True


async def ring_ready(channel: "Channel", _argument: str) -> bool:
    if channel.answer_state == "ringing":
        channel.progress_epoch = channel.core.epoch()
        channel.profile_changed()
        channel.emit("CHANNEL_PROGRESS")
    return True


async def hangup(channel: "Channel", argument: str) -> bool:
    channel.hang_up(argument.strip().upper() or "NORMAL_CLEARING")
    return True


async def nothing(_channel: "Channel", _argument: str) -> bool:
    """Applications with no effect that could be told from outside (`break` runs nested, and ends nothing)."""
    return True


async def sleep(channel: "Channel", argument: str) -> bool:
    core = channel.core
    until = core.now() + int(argument or 0) / 1000 - 0.001
    timer = core.loop.call_later(max(0.0, until - core.now()), channel.stir)
    try:
        return await channel.attend(lambda: core.now() >= until)
    finally:
        timer.cancel()


async def park(channel: "Channel", _argument: str) -> bool:
    return await channel.park(lambda: False)


async def transfer(channel: "Channel", argument: str) -> bool:
    dialplan.transfer(channel, argument.split())
    return True


async def deflect(channel: "Channel", argument: str) -> bool:
    """REFER: the caller's telephone calls `argument` itself, and says in `sip_refer_reply` what came of it."""
    if not channel.answered:
        return True
    endpoint = endpoint_of(argument, channel.core.endpoints)
    channel.record.note("caller", "referred", to=argument, outcome=endpoint.outcome)
    if endpoint.outcome == "answers":
        channel.set_variable("sip_refer_reply", "SIP/2.0 200 OK\r\n")
        channel.hang_up("BLIND_TRANSFER")
    else:
        status, phrase = SIP_STATUS.get(CAUSES.get(endpoint.outcome, ""), (480, "Temporarily Unavailable"))
        channel.set_variable("sip_refer_reply", f"SIP/2.0 {status} {phrase}\r\n")
    return True


async def playback(channel: "Channel", argument: str) -> bool:
    try:
        sound = open_sound(argument, channel.rate_hz, channel.core.files)
    except NoSuchSound:
        channel.respond("FILE NOT FOUND")
        return True
    channel.pre_answer()
    told = (("Playback-File-Path", argument), ("Playback-File-Type", argument.partition("://")[0]))
    channel.emit("PLAYBACK_START", told)
    outer, channel.playing = channel.playing, sound
    try:
        whole = await channel.attend(sound.is_over)
    finally:
        channel.playing = outer
    samples = sound.played_bytes // 2
    for name, value in (
        ("last_offset_pos", samples),
        ("seconds", samples // channel.rate_hz),
        ("ms", samples * 1000 // channel.rate_hz),
        ("samples", samples),
    ):
        channel.set_variable(f"playback_{name}", str(value))
    lost = not channel.up and channel.hung_up_by_caller
    channel.respond("PLAYBACK ERROR" if lost else "FILE PLAYED")
    channel.emit("PLAYBACK_STOP", (*told, ("Playback-Status", "done" if whole and channel.up else "break")))
    return whole


async def socket(channel: "Channel", argument: str) -> bool:
    """Connect to a gateway and serve it until it goes, the channel ends or is transferred."""
    hosts, *flags = argument.split() or [""]
    core = channel.core
    faults = channel.faults
    if await _held_up(channel, faults.control_late_s, wait_for_stream=faults.first == "media"):
        return True
    control: ControlConnection | None = None
    for address in hosts.split("|"):
        door, _, path = address.partition("/")
        host, _, port = door.rpartition(":") if ":" in door else (door, "", "")
        host = host.strip("[]")  # an IPv6 address has them
        candidate = ControlConnection(channel, static="async" not in flags, full="full" in flags)
        with contextlib.suppress(OSError):
            await core.doors.control(host, int(port or 8021), candidate)
            control = candidate
            channel.set_variable("socket_host", host)
            channel.set_variable("socket_path", path or None)
            break
    if control is None:
        channel.record.note("control", "refused", address=hosts)
        return True
    await _serve(channel, control)
    return True


async def _held_up(channel: "Channel", late_s: float, *, wait_for_stream: bool) -> bool:
    """Wait as the faults want it; whether the call ended meanwhile."""
    core = channel.core
    until = core.now() + late_s - 0.001
    timer = core.loop.call_later(late_s, channel.stir) if late_s else None

    def ready() -> bool:
        stream = channel.stream
        return core.now() >= until and not (wait_for_stream and stream is not None and stream.connecting)

    try:
        while channel.staying and not ready():
            await channel.idle()
    finally:
        if timer is not None:
            timer.cancel()
    return not channel.staying


async def _serve(channel: "Channel", control: ControlConnection) -> None:
    while channel.staying and not control.parked and control.open:
        await channel.idle()  # the park loop is entered only after `connect`
    if not control.parked:
        return
    await channel.park(lambda: not control.open)


APPLICATIONS: "Mapping[str, Application]" = {
    "answer": answer,
    "break": nothing,
    "bridge": bridge,
    "conference": conference,
    "deflect": deflect,
    "export": set_,
    "hangup": hangup,
    "info": nothing,
    "log": nothing,
    "park": park,
    "playback": playback,
    "pre_answer": pre_answer,
    "ring_ready": ring_ready,
    "set": set_,
    "sleep": sleep,
    "socket": socket,
    "transfer": transfer,
    "unset": unset,
}


async def run_dialplan(channel: "Channel", actions: "list[Action]") -> None:
    """Run a call's dialplan to its end, through transfers, and see the channel off.

    Cancelling stops where it is; nothing is fired any more.
    """
    while channel.up:
        for application, argument in actions:
            if not channel.staying:
                break
            if application == "uuid_bridge":  # what `uuid_bridge` leads to is no application
                await exchange(channel, argument)
                continue
            channel.record.note("switch", "dialplan", application=application, argument=argument)
            await channel.execute(application, dialplan.expand(channel, argument))
        if channel.next_actions is None or not channel.up:
            break
        actions, channel.next_actions = channel.next_actions, None
        if actions and actions[0][0] == "uuid_bridge":
            channel.set_running_state("CS_HIBERNATE")
            continue
        state, channel.call_state = channel.call_state, "RINGING"
        channel.set_running_state("CS_ROUTING")
        channel.call_state = state
        channel.routed()
        channel.set_running_state("CS_EXECUTE")
        if not actions:
            channel.hang_up("NO_ROUTE_DESTINATION")
    channel.hang_up()
    channel.finish()
    if channel.stream is not None:
        await channel.stream.close_at_hangup()
    channel.report()
    for control in tuple(channel.controls):
        control.channel_gone()
