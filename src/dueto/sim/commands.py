"""The commands of an event socket, answered in the switch's own words."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from dueto.sim.api import Result, run_api
from dueto.sim.headers import ChannelEvent, Piece, event_piece
from dueto.sim.messages import Message
from dueto.wire.esl.switch_end import (
    CommandBlock,
    encode_api_response,
    encode_connect_answer,
    encode_reply,
)

if TYPE_CHECKING:
    from dueto.sim.control import ControlConnection

Answer = bytes | asyncio.Future[bytes]
_NOT_FOUND = encode_reply("-ERR command not found")


def carry_out(control: "ControlConnection", block: CommandBlock) -> Answer:
    """Carry out one command and return its reply, or a future of it. An empty reply is none."""
    line = block.line.lower()
    for name, needs_full, run in _COMMANDS:
        if line.startswith(name):
            if needs_full and not control.full:
                return _NOT_FOUND
            return run(control, block, block.line[len(name) :].strip())
    return _NOT_FOUND


def _connect(control: "ControlConnection", _block: CommandBlock, _rest: str) -> bytes:
    control.connected()
    mode, rights = "static" if control.static else "async", "full" if control.full else "single-channel"
    return control.channel.snapshot() + encode_connect_answer((), mode=mode, control=rights)


def _myevents(control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    return encode_reply(control.events.myevents(rest))


def _event(control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    return encode_reply(control.events.event(rest))


def _nixevent(control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    return encode_reply(control.events.nixevent(rest))


def _noevents(control: "ControlConnection", _block: CommandBlock, _rest: str) -> bytes:
    control.forget_events()
    return encode_reply(control.events.noevents())


def _filter(control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    return encode_reply(control.events.filter(rest)) if rest else _NOT_FOUND


def _linger(control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    if not rest:
        control.linger_s = -1
        return encode_reply("+OK will linger")
    control.linger_s = int(rest) if rest.isdigit() else 0
    return encode_reply(f"+OK will linger {control.linger_s} seconds")


def _nolinger(control: "ControlConnection", _block: CommandBlock, _rest: str) -> bytes:
    control.linger_s = None
    return encode_reply("+OK will not linger")


def _getvar(control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    value = control.channel.variables.get(rest, "")
    return encode_reply(value[:511]) if value else _NOT_FOUND


def _sendmsg(control: "ControlConnection", block: CommandBlock, rest: str) -> bytes:
    channel = control.channel
    if rest and rest != channel.unique_id:
        found = control.core.channels.get(rest)
        if found is None:
            return encode_reply(f"-ERR invalid session id [{rest}]")
        channel = found
    message = Message.from_command(block)
    if message is not None and not channel.queue(message):
        control.say_goodbye()
        return b""
    return encode_reply("+OK")


def _api(control: "ControlConnection", _block: CommandBlock, rest: str) -> Answer:
    return _mapped(run_api(control.channel, rest), encode_api_response) if rest else _NOT_FOUND


def _bgapi(control: "ControlConnection", block: CommandBlock, rest: str) -> bytes:
    if not rest:
        return _NOT_FOUND
    job = block.headers.get("job-uuid") or control.core.new_uuid()
    word, _, argument = rest.partition(" ")
    _mapped(run_api(control.channel, rest), lambda output: _job_done(control, job, word, argument, output))
    return encode_reply(f"+OK Job-UUID: {job}", [("Job-UUID", job)])


def _job_done(control: "ControlConnection", job: str, command: str, argument: str, output: bytes) -> bytes:
    if control.wants("BACKGROUND_JOB", ""):
        core = control.core
        pairs = [("Job-UUID", job), ("Job-Owner-UUID", control.channel.unique_id), ("Job-Command", command)]
        if argument:
            pairs.append(("Job-Command-Arg", argument))
        head = event_piece("BACKGROUND_JOB", core.epoch(), core.next_sequence())
        control.offer(ChannelEvent("BACKGROUND_JOB", (head, Piece(pairs)), body=output))
    return b""


def _sendevent(control: "ControlConnection", _block: CommandBlock, _rest: str) -> bytes:
    return encode_reply(f"+OK {control.core.new_uuid()}")


def _divert(_control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    return encode_reply("+OK events diverted" if rest == "on" else "+OK events not diverted")


def _resume(control: "ControlConnection", _block: CommandBlock, _rest: str) -> bytes:
    control.channel.set_variable("socket_resume", "true")
    return encode_reply("+OK")


def _log(_control: "ControlConnection", _block: CommandBlock, rest: str) -> bytes:
    number = int(rest) if rest.isdigit() and int(rest) < 8 else 7
    return encode_reply(f"+OK log level {rest} [{number}]")


def _nolog(_control: "ControlConnection", _block: CommandBlock, _rest: str) -> bytes:
    return encode_reply("+OK no longer logging")


def _exit(control: "ControlConnection", _block: CommandBlock, _rest: str) -> bytes:
    control.leave(encode_reply("+OK bye"))
    return b""


def _mapped(result: Result, encode: Callable[[bytes], bytes]) -> Answer:
    """Return `encode` of the result, now or when it is there."""
    if isinstance(result, bytes):
        return encode(result)
    answer: asyncio.Future[bytes] = result.get_loop().create_future()

    def ready(future: "asyncio.Future[bytes]") -> None:
        if not answer.done() and not future.cancelled():
            answer.set_result(encode(future.result()))

    result.add_done_callback(ready)
    return answer


_Run = Callable[["ControlConnection", CommandBlock, str], Answer]
_COMMANDS: tuple[tuple[str, bool, _Run], ...] = (  # matched by prefix, in this order
    ("connect", False, _connect),
    ("myevents", False, _myevents),
    ("getvar", False, _getvar),
    ("filter ", False, _filter),
    ("sendmsg", False, _sendmsg),
    ("divert_events", False, _divert),
    ("resume", False, _resume),
    ("exit", False, _exit),
    ("...", False, _exit),
    ("linger", True, _linger),
    ("nolinger", True, _nolinger),
    ("api ", True, _api),
    ("bgapi ", True, _bgapi),
    ("event", True, _event),
    ("nixevent", True, _nixevent),
    ("noevents", True, _noevents),
    ("sendevent", True, _sendevent),
    ("log", True, _log),
    ("nolog", True, _nolog),
)
