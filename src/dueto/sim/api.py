"""The api commands of the simulated switch, with the replies of a real one."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from dueto.sim.census import show_channels
from dueto.sim.dialplan import expand, transfer
from dueto.sim.headers import Q850
from dueto.sim.messages import Message
from dueto.sim.stream_api import audio_fork, audio_stream
from dueto.sim.stream_request import OK
from dueto.sim.together import join

if TYPE_CHECKING:
    from dueto.sim.bridge import BLeg
    from dueto.sim.channel import Channel
    from dueto.sim.core import Core

Result = bytes | asyncio.Future[bytes]
NO_REPLY = b"-ERR no reply\n"
REFUSED = b"-ERR Operation failed\n"
NO_CHANNEL = b"-ERR No such channel!\n"
PLAIN_OK = b"+OK\n"
_SUM = re.compile(r"(-?\d+)\s*([-+*])\s*(-?\d+)")
_DIGITS = re.compile(r"[0-9*#A-Dw]+", re.IGNORECASE)


def run_api(channel: "Channel", line: str) -> Result:
    """Run `line` on behalf of `channel`'s socket; a future where the command takes its time."""
    word, _, rest = line.partition(" ")
    run = _COMMANDS.get(word.lower())
    if word.lower() in _OF_MODULES and _OF_MODULES[word.lower()] != channel.core.audio_module:
        run = None
    if run is None:
        return f"-ERR {word} Command not found!\n".encode()
    if word.lower() in channel.faults.refused:
        return REFUSED
    return run(channel, rest.strip())


def _target(channel: "Channel", unique_id: str) -> "Channel | None":
    """Return a channel that is up; a lingering socket no longer reaches its own."""
    found = channel.core.channels.get(unique_id)
    return found if found is not None and found.up else None


def _leg(core: "Core", unique_id: str) -> "BLeg | None":
    return core.b_legs.get(unique_id)


def _exists(channel: "Channel", rest: str) -> bytes:
    return b"true" if _target(channel, rest) or _leg(channel.core, rest) else b"false"


def _getvar(channel: "Channel", rest: str) -> bytes:
    unique_id, _, name = rest.partition(" ")
    target = _target(channel, unique_id)
    if target is None:
        return NO_CHANNEL
    if name not in target.variables:
        return b"_undef_"
    return target.variables[name].encode() or NO_REPLY


def _setvar(channel: "Channel", rest: str) -> bytes:
    unique_id, _, pair = rest.partition(" ")
    target = _target(channel, unique_id)
    if target is None:
        return NO_CHANNEL
    if not pair:
        return b"-USAGE: <uuid> <var> [value]\n"
    name, _, value = pair.partition(" ")
    target.set_variable(name, value)
    return PLAIN_OK


def _setvar_multi(channel: "Channel", rest: str) -> bytes:
    unique_id, _, pairs = rest.partition(" ")
    target = _target(channel, unique_id)
    if target is None:
        return NO_CHANNEL
    for pair in pairs.split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            target.set_variable(name.strip(), value)
    return PLAIN_OK


def _kill(channel: "Channel", rest: str) -> bytes:
    unique_id, _, cause = rest.partition(" ")
    cause = cause.strip().upper() if cause.strip().upper() in Q850 else "NORMAL_CLEARING"
    if (leg := _leg(channel.core, unique_id)) is not None:
        leg.hang_up(cause)
        return PLAIN_OK
    target = _target(channel, unique_id)
    if target is None:
        return NO_CHANNEL
    target.hang_up(cause)
    return PLAIN_OK


def _originate(channel: "Channel", rest: str) -> Result:
    return channel.core.originate(rest)


def _bridge(channel: "Channel", rest: str) -> bytes:
    words = rest.split()
    if len(words) != 2:
        return b"-USAGE: <uuid> <other_uuid>\n"
    one, other = _target(channel, words[0]), _target(channel, words[1])
    if one is None or other is None or one is other or not (one.answered or other.answered):
        return b"-ERR Invalid uuid\n"
    join(one, other)
    return f"+OK {other.unique_id}\n".encode()


def _show(channel: "Channel", rest: str) -> bytes:
    if rest.split() == ["channels", "as", "json"]:
        return show_channels(channel.core)
    if rest.split() == ["registrations", "as", "json"]:
        users = [dial.removeprefix("user/") for dial in channel.core.endpoints if dial.startswith("user/")]
        rows = [{"reg_user": user.partition("@")[0], "realm": "127.0.0.1"} for user in users]
        return json.dumps({"row_count": len(rows), **({"rows": rows} if rows else {})}).encode()
    return b"-USAGE: codec|application|channels|registrations [as json]\n"


def _module_exists(channel: "Channel", rest: str) -> bytes:
    there = ("mod_event_socket", "mod_conference", "mod_loopback", channel.core.audio_module)
    return b"true" if rest in there else b"false"


def _break(channel: "Channel", rest: str) -> bytes:
    unique_id, _, what = rest.partition(" ")
    target = _target(channel, unique_id)
    if target is None:
        return NO_CHANNEL
    target.break_(everything=what.strip() in ("all", "both"))
    return PLAIN_OK


def _broadcast(channel: "Channel", rest: str) -> bytes:
    words = rest.split()
    if len(words) < 2:
        return b"-USAGE: <uuid> <path> [aleg|bleg|holdb|both]\n"
    target = _target(channel, words[0])
    if target is not None:
        target.queue(Message("execute", "playback", words[1]))
    return b"+OK Message sent\n"


def _hold(channel: "Channel", rest: str) -> bytes:
    word, _, unique_id = rest.rpartition(" ")
    target = _target(channel, unique_id)
    if target is not None:
        on = not target.held if word == "toggle" else word != "off"
        target.hold(on, by_caller=False)
    return OK  # of an unknown channel too


def _transfer(channel: "Channel", rest: str) -> bytes:
    words = rest.split()
    if len(words) < 2:
        return b"-USAGE: <uuid> [-bleg|-both] <dest-exten> [<dialplan>] [<context>]\n"
    target = _target(channel, words[0])
    if target is None:
        return NO_CHANNEL
    transfer(target, words[1:])
    return PLAIN_OK


def _park(channel: "Channel", rest: str) -> bytes:
    target = _target(channel, rest)
    if target is None:
        return NO_CHANNEL
    transfer(target, ["park:", "inline"])
    return PLAIN_OK


def _send_dtmf(channel: "Channel", rest: str) -> bytes:
    unique_id, _, digits = rest.partition(" ")
    target = _target(channel, unique_id)
    if target is None:
        return NO_CHANNEL
    target.record.note("caller", "heard_dtmf", digits=digits)
    return f"+OK {unique_id} sent DTMF {digits}.\n".encode()


def _recv_dtmf(channel: "Channel", rest: str) -> bytes:
    unique_id, _, text = rest.partition(" ")
    target = _target(channel, unique_id)
    if target is None:
        return NO_CHANNEL
    digits, _, duration_ms = text.partition("@")
    if not _DIGITS.fullmatch(digits):
        return b"-USAGE: <uuid> <dtmf_data>\n"
    duration = int(duration_ms) * 8 if duration_ms.isdigit() else 2000
    for digit in digits.replace("w", ""):
        target.press(digit, duration, "APP")
    return f"+OK {unique_id} received DTMF {text}.\n".encode()


def _record(channel: "Channel", rest: str) -> bytes:
    words = rest.split()
    if len(words) < 3 or words[1] not in ("start", "stop", "mask", "unmask"):
        return b"-USAGE: <uuid> [start|stop|mask|unmask] <path> [<limit>]\n"
    target = _target(channel, words[0])
    if target is None:
        return b"-ERR Cannot locate session!\n"
    target.record.note("switch", "record", what=words[1], path=words[2])
    if words[1] == "start":
        if not target.has_media:
            return b"-ERR Cannot record session!\n"
        target.recordings.add(words[2])
    elif words[1] == "stop":
        if not (target.recordings if words[2] == "all" else words[2] in target.recordings):
            return b"-ERR Cannot stop record session!\n"
        target.recordings -= target.recordings if words[2] == "all" else {words[2]}
    return OK


def _status(channel: "Channel", _rest: str) -> bytes:
    core = channel.core
    up = int(core.now() - core.started_s)
    lines = (
        f"UP 0 years, 0 days, {up // 3600} hours, {up // 60 % 60} minutes, {up % 60} seconds, 0 milliseconds, "
        "0 microseconds",
        "FreeSWITCH (Version 1.11.2-dev simulated 64bit) is ready",
        f"{core.session} session(s) since startup",
        f"{len(core.channels)} session(s) - peak {len(core.channels)}, last 5min {len(core.channels)} ",
        "0 session(s) per Sec out of max 100, peak 1, last 5min 1 ",
        "1000 session(s) max",
        "min idle cpu 0.00/99.00",
        "Current Stack Size/Max 240K/8192K",
    )
    return ("\n".join(lines) + "\n").encode()


def _create_uuid(channel: "Channel", _rest: str) -> bytes:
    return channel.core.new_uuid().encode()


def _expr(_channel: "Channel", rest: str) -> bytes:
    found = _SUM.fullmatch(rest.strip())
    if found is None:
        return b"-ERR " + rest.encode() + b"\n"
    a, b = int(found[1]), int(found[3])
    return str({"+": a + b, "-": a - b, "*": a * b}[found[2]]).encode()


def _echo(_channel: "Channel", rest: str) -> bytes:
    return rest.encode() or NO_REPLY


def _eval(channel: "Channel", rest: str) -> bytes:
    """Fill in variables; of a channel's own, asked for by `uuid:`, a real switch was seen to answer nothing."""
    return NO_REPLY if rest.startswith("uuid:") else expand(channel, rest).encode() or NO_REPLY


def _msleep(channel: "Channel", rest: str) -> Result:
    answer: asyncio.Future[bytes] = channel.core.loop.create_future()
    milliseconds = int(rest) if rest.isdigit() else 0
    channel.core.loop.call_later(milliseconds / 1000, _answer, answer, b"+OK")
    return answer


def _answer(future: asyncio.Future[bytes], output: bytes) -> None:
    if not future.done():
        future.set_result(output)


_Run = Callable[["Channel", str], Result]
_COMMANDS: dict[str, _Run] = {
    "create_uuid": _create_uuid,
    "module_exists": _module_exists,
    "originate": _originate,
    "show": _show,
    "uuid_bridge": _bridge,
    "echo": _echo,
    "eval": _eval,
    "expr": _expr,
    "msleep": _msleep,
    "status": _status,
    "uuid_audio_fork": audio_fork,
    "uuid_audio_stream": audio_stream,
    "uuid_break": _break,
    "uuid_broadcast": _broadcast,
    "uuid_exists": _exists,
    "uuid_getvar": _getvar,
    "uuid_hold": _hold,
    "uuid_kill": _kill,
    "uuid_park": _park,
    "uuid_record": _record,
    "uuid_recv_dtmf": _recv_dtmf,
    "uuid_send_dtmf": _send_dtmf,
    "uuid_setvar": _setvar,
    "uuid_setvar_multi": _setvar_multi,
    "uuid_transfer": _transfer,
}
_OF_MODULES = {"uuid_audio_fork": "mod_audio_fork", "uuid_audio_stream": "mod_audio_stream"}
