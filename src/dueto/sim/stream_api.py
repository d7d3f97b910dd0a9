"""`uuid_audio_stream` and `uuid_audio_fork`: how streams are started, stopped and spoken through."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from dueto.sim.audio_fork import AudioFork
from dueto.sim.audio_module import AudioModule
from dueto.sim.audio_stream import AudioStream, Base64Stream, BinaryStream
from dueto.sim.counters import Counters
from dueto.sim.stream_request import FAILED, FORK_USAGE, OK, STREAM_USAGE, StreamRequest

if TYPE_CHECKING:
    from dueto.sim.channel import Channel

BUILDS: Final[Mapping[str, type[AudioModule]]] = {
    "audio_stream": AudioStream,
    "audio_stream-base64": Base64Stream,
    "audio_stream-binary": BinaryStream,
    "audio_fork": AudioFork,
    "audio_fork-binary": AudioFork,
}
Result = bytes | asyncio.Future[bytes]


def open_stream(channel: "Channel", request: StreamRequest, counters: Counters, *, owner: bool = True) -> AudioModule:
    """Begin to connect a stream of the build that is loaded."""
    return BUILDS[channel.core.dialect](channel, request, counters, owner=owner)


def start_stream(channel: "Channel", request: StreamRequest) -> None:
    """Attach a stream to a channel and begin to connect; a channel that is not answered gets early media."""
    channel.pre_answer()
    function = BUILDS[channel.core.dialect].function
    channel.emit("MEDIA_BUG_START", second=(("Media-Bug-Function", function), ("Media-Bug-Target", "N/A")))
    channel.stream = open_stream(channel, request, channel.counters)


def audio_stream(channel: "Channel", rest: str) -> Result:
    """`uuid_audio_stream UUID VERB ...`"""
    words = rest.split()
    if len(words) < 2 or (words[1] == "start" and len(words) < 4):
        return STREAM_USAGE
    target, verb = _target(channel, words[0]), words[1]
    if verb == "start":
        return _start(target, StreamRequest.parse(words[2:]))
    if target is None or target.stream is None:
        return FAILED
    return _verb(target.stream, verb, _one_word(rest, 2))


def audio_fork(channel: "Channel", rest: str) -> Result:
    """`uuid_audio_fork UUID VERB ...`. Of several streams on one channel only the first is simulated."""
    words = rest.split()
    if len(words) < 2 or (words[1] == "start" and len(words) < 4):
        return FORK_USAGE
    target, verb = _target(channel, words[0]), words[1]
    if verb == "start":
        return _start(target, StreamRequest.parse_fork(words[2:]))
    if target is None or target.stream is None:
        return FAILED
    bug, text = _bug_and_text(words[2:])
    if bug and bug != target.stream.request.bug:
        return FAILED
    if verb == "stop_play":
        target.stream.down.clear()
        return OK
    return _verb(target.stream, verb, text)


def _bug_and_text(words: list[str]) -> tuple[str, str]:
    """Read `[BUGNAME] [TEXT]`."""
    bug = words.pop(0) if words and words[0][0] not in "{[" else ""
    return bug, words[0] if words else ""


def _start(target: "Channel | None", request: StreamRequest | bytes) -> bytes:
    if isinstance(request, bytes):
        return request
    if target is None or target.stream is not None:
        return FAILED
    start_stream(target, request)
    return OK


def _verb(stream: AudioModule, verb: str, text: str) -> Result:
    if verb == "stop":
        answer: asyncio.Future[bytes] = stream.channel.core.loop.create_future()
        done = stream.stop(text)
        if done.done() or not stream.waits_to_close:
            return OK
        done.add_done_callback(lambda _: None if answer.done() else answer.set_result(OK))
        return answer
    if verb == "send_text" and text:
        stream.send_text(text)
    elif verb in ("pause", "resume"):
        stream.pause(verb == "pause")
    else:
        return FAILED
    return OK


def _target(channel: "Channel", unique_id: str) -> "Channel | None":
    found = channel.core.channels.get(unique_id)
    return found if found is not None and found.up else None


def _one_word(rest: str, skip: int) -> str:
    """Return the word after `skip` words, or what stands there in single quotes."""
    text = rest.split(maxsplit=skip)[skip] if len(rest.split(maxsplit=skip)) > skip else ""
    if text.startswith("'") and text.find("'", 1) > 0:
        return text[1 : text.find("'", 1)]
    return text.split(" ", 1)[0]
