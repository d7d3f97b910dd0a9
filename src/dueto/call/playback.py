"""Sounds that the switch plays from files of its own."""

import asyncio
from typing import TYPE_CHECKING

from dueto.errors import CommandRefused, LocalProtocolError, ReplyTimeout
from dueto.wire.esl import Api, checked

if TYPE_CHECKING:
    from dueto.call.session import Session


async def play(session: "Session", sound: str, *, loops: int, timeout_s: float) -> int:
    """See `Call.play`."""
    checked(sound, "sound")
    if not sound or loops < 1:
        raise LocalProtocolError("play wants a file, or a tone_stream, at least once")
    control = await session.switch()
    played_ms = 0
    for _ in range(loops):
        try:
            with session.application("playback"):
                completion = await control.execute("playback", sound, timeout_s=timeout_s)
        except (asyncio.CancelledError, ReplyTimeout):
            control.post(Api("uuid_break", f"{session.unique_id} all"))
            raise
        response = completion.get("Application-Response")
        if response != "FILE PLAYED":
            raise CommandRefused(f"playback: {response}")
        played_ms += completion.number("variable_playback_ms") or 0
    return played_ms
