"""What `start` asks of an audio module, and how the modules answer."""

import re
from dataclasses import dataclass

OK, FAILED, NO_REPLY = b"+OK Success\n", b"-ERR Operation Failed\n", b"-ERR no reply\n"
STREAM_USAGE = (
    b"-USAGE: <uuid> [start | stop | send_text | pause | resume | graceful-shutdown ] "
    b"[wss-url | path] [mono | mixed | stereo] [8000 | 16000] [metadata]\n"
)
FORK_USAGE = (
    b"-USAGE: <uuid> [start | stop | send_text | pause | resume | graceful-shutdown | stop_play ] [wss-url | path] "
    b"[mono | mixed | stereo] [8000 | 16000 | 24000 | 32000 | 64000] [bugname] [metadata] "
    b"[bidirectionalAudio_enabled] [bidirectionalAudio_stream_enabled] [bidirectionalAudio_stream_samplerate]\n"
)
FORK_BUG = "audio_fork"
_URL = re.compile(r"wss?://[A-Za-z0-9.-]+(:\d+)?(/.*)?")
_FORK_URL = re.compile(r"(?:ws|http)s?://[^/:]+(:\d+)?(/.*)?")


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What `uuid_audio_stream UUID start`, or `uuid_audio_fork UUID start`, asks for."""

    url: str
    mix: str
    rate_hz: int
    metadata: str = ""
    bug: str = ""
    "The stream's name, for mod_audio_fork."
    down_hz: int = 0
    "mod_audio_fork: binary audio of this rate is played; 0: none is."

    @classmethod
    def parse(cls, words: list[str]) -> "StreamRequest | bytes":
        """Read `URL MIX RATE [METADATA...]`; the module's error reply where that is wrong."""
        url, mix, rate_hz = words[0], words[1], _rate(words[2] if len(words) > 2 else "8k")
        if mix not in ("mono", "mixed", "stereo"):
            return NO_REPLY
        if not _URL.fullmatch(url) or len(url) > 4096 or rate_hz < 8000 or rate_hz % 8000:
            return FAILED
        return cls(url, mix, rate_hz, " ".join(words[3:]))

    @classmethod
    def parse_fork(cls, words: list[str]) -> "StreamRequest | bytes":
        """Read `URL MIX RATE [BUGNAME] [METADATA] [ENABLED STREAM_ENABLED STREAM_RATE]`, as mod_audio_fork does."""
        url, mix, rate_hz = words[0], words[1], _rate(words[2] if len(words) > 2 else "8k")
        if mix not in ("mono", "mixed", "stereo"):
            return NO_REPLY
        if not _FORK_URL.fullmatch(url) or rate_hz < 8000 or rate_hz % 8000:
            return FAILED
        more = words[3:]
        bug = more.pop(0) if more and more[0][0] not in "{[" else FORK_BUG
        metadata = more.pop(0) if more else ""
        both_ways = more[:2] == ["true", "true"] and len(more) > 2 and more[2].isdigit()
        return cls(url, mix, rate_hz, metadata, bug, int(more[2]) if both_ways else 0)


def _rate(word: str) -> int:
    return {"8k": 8000, "16k": 16000}.get(word) or (int(word) if word.isdigit() else 0)
