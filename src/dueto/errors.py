"""Every error dueto raises on purpose. The tree says whose fault it is and what can still be done:

DuetoError
├── LocalProtocolError     we asked for what the protocol forbids; nothing was sent
├── RemoteProtocolError    the peer broke the protocol; its leg is finished
├── LegClosed              the connection ended; everyone who waited on it is told so
├── ReplyTimeout           no answer in time; the leg lives, the command may have run
├── CommandRefused         the switch answered -ERR or -USAGE; nothing was done
├── Dropped                the switch threw the application away before it ran
├── CallEnded              the call is over; the verb had no effect
├── NotCapable             this leg, dialect or switch can't do that; ask `call.can(...)` first
├── Interrupted            what was being said was cut off; `heard_ms` of it was heard
├── AgentTooSlow           the agent let more events wait than `call.MAX_WAITING_EVENTS`
├── NobodyThere            who was to take the call did not; the caller is the agent's again
├── ToolRefused            a model's tool can't do that; the text is for the model, and says what it can do instead
├── ProviderFailed         an agent's provider can't go on; `fault` is a short word, fit for a metric
├── Refused                a connection or a call was turned away; `reason` is a short word, fit for a metric
└── SettingsError          the configuration is wrong; the text says which key and what to write instead
"""

from typing import Literal


class DuetoError(Exception):
    """Base of every error dueto raises on purpose."""


class LocalProtocolError(DuetoError):
    """We asked for what the protocol forbids; nothing was sent."""


class RemoteProtocolError(DuetoError):
    """The peer broke the protocol; its leg is finished."""


class LegClosed(DuetoError):
    """The connection ended; everyone who waited on it is told so."""


class ReplyTimeout(DuetoError):
    """No answer in time; the leg lives, the command may have run."""


class CommandRefused(DuetoError):
    """The switch answered `-ERR` or `-USAGE`; nothing was done. The text is the switch's own."""


class Dropped(DuetoError):
    """The switch threw the queued application away before it ran (`uuid_break UUID all`)."""


class CallEnded(DuetoError):
    """The call is over; the verb had no effect."""


class NotCapable(DuetoError):
    """This leg, dialect or switch can't do that; `call.can(...)` tells beforehand."""


class Interrupted(DuetoError):
    """What was being said was cut off."""

    def __init__(self, heard_ms: int) -> None:
        super().__init__(f"interrupted after {heard_ms} ms were heard")
        self.heard_ms = heard_ms


class AgentTooSlow(DuetoError):
    """The agent let too many events wait; the call goes the way of `agent.when_failed`."""


class NobodyThere(DuetoError):
    """Who was to take the call did not; the caller is the agent's again."""


class ToolRefused(DuetoError):
    """A tool can't do that; the text is for the model, and says what it can do instead."""


Fault = Literal["auth", "quota", "model", "refused", "timeout", "dropped", "protocol", "limit"]
"""Why a provider failed. `auth`: the key is wrong; `quota`: it is good, and used up; `model`: no such model, voice or
agent; `refused`: any other refusal; `timeout`: no answer; `dropped`: the connection broke; `protocol`: what came made
no sense; `limit`: the session's time was up and could not be carried on."""


class ProviderFailed(DuetoError):
    """An agent's provider can't go on. The text is one sentence, fit for the log; it never holds a key."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault: Fault = fault
        "A short word, fit for a metric's label."


class Refused(DuetoError):
    """A connection or a call was turned away."""

    def __init__(self, reason: str, text: str = "", *, status: int = 403) -> None:
        super().__init__(text or reason)
        self.reason = reason
        "A short word in snake case, fit for a metric's label: `bad_token`, `full`, `unknown_path`, ..."
        self.status = status
        "The HTTP status that tells a WebSocket client so."


class SettingsError(DuetoError):
    """The configuration is wrong; the text says which key and what to write instead."""
