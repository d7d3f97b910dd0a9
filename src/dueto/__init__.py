"""dueto: a dual-mode voice-AI gateway for FreeSWITCH.

    from dueto import Call, Gateway, Settings

The event classes stand here too. Names are loaded when they are asked for: `import dueto.sim` needs no gateway.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dueto.app.gateway import Gateway as Gateway
    from dueto.app.settings import Settings as Settings
    from dueto.app.settings import load_settings as load_settings
    from dueto.call import Accept as Accept
    from dueto.call import Agent as Agent
    from dueto.call import Call as Call
    from dueto.call import Destination as Destination
    from dueto.call import Dialled as Dialled
    from dueto.call import Gathered as Gathered
    from dueto.call import Presence as Presence
    from dueto.call import TransferResult as TransferResult
    from dueto.call.events import Bridged as Bridged
    from dueto.call.events import CallEvent as CallEvent
    from dueto.call.events import ControlJoined as ControlJoined
    from dueto.call.events import ControlLost as ControlLost
    from dueto.call.events import Custom as Custom
    from dueto.call.events import Dtmf as Dtmf
    from dueto.call.events import Held as Held
    from dueto.call.events import HungUp as HungUp
    from dueto.call.events import MediaLost as MediaLost
    from dueto.call.events import MediaResumed as MediaResumed
    from dueto.call.events import Resumed as Resumed
    from dueto.call.events import Speech as Speech
    from dueto.call.events import SpeechStarted as SpeechStarted
    from dueto.call.events import Unbridged as Unbridged
    from dueto.errors import AgentTooSlow as AgentTooSlow
    from dueto.errors import CallEnded as CallEnded
    from dueto.errors import CommandRefused as CommandRefused
    from dueto.errors import DuetoError as DuetoError
    from dueto.errors import Interrupted as Interrupted
    from dueto.errors import NotCapable as NotCapable
    from dueto.errors import ProviderFailed as ProviderFailed
    from dueto.errors import SettingsError as SettingsError
    from dueto.errors import ToolRefused as ToolRefused

_HOMES = {
    "dueto.app.gateway": ("Gateway",),
    "dueto.app.settings": ("Settings", "load_settings"),
    "dueto.call": ("Accept", "Agent", "Call", "Destination", "Dialled", "Gathered", "Presence", "TransferResult"),
    "dueto.call.events": (
        "Bridged",
        "CallEvent",
        "ControlJoined",
        "ControlLost",
        "Custom",
        "Dtmf",
        "Held",
        "HungUp",
        "MediaLost",
        "MediaResumed",
        "Resumed",
        "Speech",
        "SpeechStarted",
        "Unbridged",
    ),
    "dueto.errors": (
        "AgentTooSlow",
        "CallEnded",
        "CommandRefused",
        "DuetoError",
        "Interrupted",
        "NotCapable",
        "ProviderFailed",
        "SettingsError",
        "ToolRefused",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*_HOME_OF, "__version__"]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'dueto' has no attribute {name!r}")
    return getattr(import_module(home), name)
