"""What can go wrong with a call's two legs, on demand and the same every time."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Faults:
    """Troubles of one call, or of all calls of a switch. The default is none. All times in seconds."""

    first: Literal["media", "control"] | None = None
    "Which leg is complete before the other one begins; None: they race, as on a real switch."
    control_late_s: float = 0.0
    "How long after the answer the dialplan reaches `socket`."
    media_late_s: float = 0.0
    "How long after the answer (or the api command) the module begins to connect."
    control_never: bool = False
    "The dialplan has no `socket`."
    media_never: bool = False
    "The module says +OK and never connects, and no event tells why."
    control_twice_after_s: float | None = None
    "The switch runs `socket` again while the first connection lives."
    media_twice_after_s: float | None = None
    "A second stream for the same call, to the same URL, while the first one lives."
    split_seed: int | None = None
    "Bytes on the control socket leave in random pieces, each in its own turn of the loop."
    glue_s: float = 0.0
    "Bytes on the control socket wait this long and leave together."
    reply_delay_s: float = 0.0
    "Every reply comes this much later; as on a switch, events wait behind it."
    control_reset_after_s: float | None = None
    "The control connection is reset (RST) this long after it opened."
    media_reset_after_s: float | None = None
    "The media connection is broken off without CLOSE this long after it opened; a `unicast` just ends."
    half_open: Literal["control", "media", "both"] | None = None
    "The leg goes dead without a word: nothing is sent, nothing read, nobody is told."
    half_open_after_s: float = 0.0
    "When the leg goes dead, counted from its opening."
    lost_events: Collection[str] = frozenset()
    "Names of events that never reach the gateway (`CHANNEL_HANGUP`, or a CUSTOM subclass)."
    refused: Collection[str] = frozenset()
    "Names of api commands that answer -ERR, whatever they ask for."
    early_linger_notice: bool = False
    "The linger notice comes before CHANNEL_HANGUP, as it does now and then."
    nolinger_events: int | None = None
    "Without linger: how many events of the hangup still come (0: not even CHANNEL_HANGUP); None: all of the moment."
    unicast_busy: int = 0
    "So many of the first `unicast`s find their port taken: +OK, and nothing comes."
    slow_reader_after_s: float | None = None
    "The switch stops reading both sockets this long after they opened, ..."
    slow_reader_s: float = 0.0
    "... for this long."


NO_FAULTS = Faults()
