"""The DTMF map: keys that mean the same whatever the agent is doing, asked before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dueto.call import phase
from dueto.call.ports import Accept
from dueto.errors import DuetoError, Interrupted, LocalProtocolError

if TYPE_CHECKING:
    from dueto.call.session import Session

Deed = Literal["transfer", "repeat", "hangup", "hold", "return_to_dialplan"]
DEEDS: tuple[Deed, ...] = ("transfer", "repeat", "hangup", "hold", "return_to_dialplan")


@dataclass(frozen=True, slots=True)
class Key:
    """What one key does."""

    deed: Deed
    target: str = ""
    "The destination of a transfer."

    @classmethod
    def parse(cls, text: str) -> "Key":
        """Read `transfer operator`, `repeat`, ... Raises: LocalProtocolError: says what was expected."""
        deed, _, target = text.strip().partition(" ")
        target = target.strip()
        if deed not in DEEDS:
            raise LocalProtocolError(f'expected "transfer NAME", {", ".join(DEEDS[1:])}, not "{text}"')
        if (deed == "transfer") != bool(target):
            raise LocalProtocolError(f'expected "transfer NAME", or one of the others alone, not "{text}"')
        return cls(deed, target)


def parse_keys(table: Mapping[str, str]) -> dict[str, Key]:
    """Read a `[dtmf]` table. Raises: LocalProtocolError: a key is none, or does what nobody knows."""
    for digit in table:
        if len(digit) != 1 or digit not in "0123456789*#ABCD":
            raise LocalProtocolError(f'expected one key: "0" to "9", "*" or "#", not "{digit}"')
    return {digit: Key.parse(text) for digit, text in table.items()}


def press(session: "Session", digit: str) -> bool:
    """Do what the map says of `digit`; False: nothing, it is the agent's."""
    key = session.house.keys.get(digit)
    if key is None or session.state.phase is not phase.Phase.TALKING:
        return False
    session.journal("key", deed=key.deed, target=key.target)
    session.tasks.start(f"key {key.deed}", _do(session, key))
    return True


async def _do(session: "Session", key: Key) -> None:
    try:
        match key.deed:
            case "transfer":
                session.voice.interrupt("digit", everything=True)
                await session.conduct.transfer(
                    key.target, "blind", announce=None, accept=Accept(), introduce=None, ringback="", timeout_s=30.0
                )
            case "repeat":
                session.voice.interrupt("digit", everything=True)
                await session.voice.say_again()
            case "hangup":
                session.happen(phase.HangupAsked("NORMAL_CLEARING"))
            case "hold":
                await (session.hold.end() if session.state.held else session.hold.begin())
            case "return_to_dialplan":
                session.leave(dueto_result="key")
    except Interrupted:
        pass  # the repeated sentence was cut like any other
    except DuetoError as error:
        session.journal("key_failed", deed=key.deed, error=str(error))
