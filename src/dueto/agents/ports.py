"""What a voice provider is: a model somewhere that listens and speaks. One agent (`provider.py`) runs any of them.

A provider knows its own wire and nothing of calls; the agent knows calls and nothing of any provider's wire.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dueto.call.transcript import Line as Line

if TYPE_CHECKING:
    from dueto.call.call import Call


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it."""

    name: str
    "Letters, digits and `_`."
    description: str
    "What it does and when to use it, in the model's language."
    parameters: Mapping[str, Any]
    "The JSON schema of its arguments: an object."


@dataclass(frozen=True, slots=True)
class Opening:
    """What a provider is told of one call before it begins."""

    rate_hz: int
    "The call's own rate: a provider that can speak it spares the resampling."
    tools: tuple[ToolSpec, ...] = ()
    said_so_far: tuple[Line, ...] = ()
    "The conversation that another provider began, or an earlier session of this one."
    facts: Mapping[str, str] = field(default_factory=dict)
    "What the model may know of the call: `caller_number`, `destination_number`, ... Anybody can write anything there."
    greets: bool = True
    "Whether the model is to speak first; False: the greeting has been spoken already (`said_so_far` has it)."
    call_id: str = ""
    "The channel's `Unique-ID`: by it a provider finds what it made ready for this call."


# -- what a provider tells


@dataclass(frozen=True, slots=True)
class Spoke:
    """A piece of what the model says, as it comes: often far faster than it can be heard."""

    item_id: str
    "One utterance of the model; pieces of one item come in order."
    pcm: bytes
    "L16, little-endian, mono, at the provider's `speaks_hz`; any length, a whole number of samples."


@dataclass(frozen=True, slots=True)
class SpokeLast:
    """No more audio of that item will come."""

    item_id: str


@dataclass(frozen=True, slots=True)
class CallerBegan:
    """The provider hears the caller speak: what is being said to him is to be cut."""


@dataclass(frozen=True, slots=True)
class CallerStopped:
    """The provider thinks that the caller has finished: a turn begins, and its latency counts from here."""

    ago_ms: int = 0
    "How long ago he fell silent, by the provider's own account; 0: it does not say."


@dataclass(frozen=True, slots=True)
class Cut:
    """The provider itself broke off what it was saying (`item_id`; empty: whatever it was): nothing more of it is to be
    heard. To a provider that says this, `truncate` and `cancel` need not be said."""

    item_id: str = ""


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What was said, as text. Of the agent: what the model meant to say, heard or not."""

    line: Line
    item_id: str = ""
    "For the agent's lines: the item whose text this is."


@dataclass(frozen=True, slots=True)
class ToolAsked:
    """The model wants a tool run; `answer` it under the same `ask_id`."""

    ask_id: str
    name: str
    arguments: str
    "JSON, as the model wrote it: unchecked."


@dataclass(frozen=True, slots=True)
class ToolWithdrawn:
    """The model no longer wants that answer."""

    ask_id: str


@dataclass(frozen=True, slots=True)
class Used:
    """What it cost since the last one, in the provider's own units: `input_tokens`, `output_audio_tokens`, ..."""

    amounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RolledOver:
    """The provider's session limit was reached and a new session carries on; for the log."""

    reason: str


ProviderEvent = (
    Spoke | SpokeLast | CallerBegan | CallerStopped | Cut | Transcribed | ToolAsked | ToolWithdrawn | Used | RolledOver
)


class VoiceProvider(Protocol):
    """One conversation with a model that listens and speaks. Made by a `Connect`; ended by `aclose`, once.

    What is told to it (`hear`, `cancel`, ...) never waits: it goes into a bounded send queue, in order; audio that
    finds the queue full drops the OLDEST audio and is counted. After the provider failed all of it does nothing.
    """

    hears_hz: int
    "The rate of the frames that `hear` takes."
    speaks_hz: int
    "The rate of `Spoke.pcm`."

    @property
    def dropped_ms(self) -> int:
        """How much of the caller's audio the provider was too slow to take."""
        ...

    def hear(self, frame: bytes) -> None:
        """Take 20 ms of the caller: L16 mono at `hears_hz`. Fifty times a second: no task, no wait."""
        ...

    def events(self, speech: Callable[[Spoke], bool] | None = None) -> AsyncIterator[ProviderEvent]:
        """What the provider tells, in order; ends when the provider ended the conversation of its own accord.

        `speech` is asked first about a piece of speech before which nothing waits to be read, in the turn of the loop
        in which it came: most are more of something, and need wake nobody. True: it took it; False: let it come here.
        Raises: ProviderFailed: it can't go on.
        """
        ...

    def cancel(self) -> None:
        """Stop the answer that is being made; pieces of it that still come are not passed on."""
        ...

    def truncate(self, item_id: str, heard_ms: int) -> None:
        """The caller heard only `heard_ms` of that item: the model must not believe it said more. 0: nothing."""
        ...

    def answer(self, ask_id: str, output: str) -> None:
        """What a tool brought, as text or JSON; the model goes on with it."""
        ...

    def press(self, digits: str) -> None:
        """The caller pressed these keys."""
        ...

    def note(self, text: str) -> None:
        """Tell the model what happened (`The caller is on hold`), without having it speak."""
        ...

    def prompt(self, text: str) -> None:
        """Have the model speak now, following this instruction: `Greet the caller`, `Ask whether he is still there`."""
        ...

    async def aclose(self) -> None:
        """End the conversation; at most a second. Safe to cancel, and to call again."""
        ...


Connect = Callable[[Opening], Awaitable[VoiceProvider]]
"Opens a conversation, ready to hear. Raises: ProviderFailed, at the latest after a deadline of its own: 10 s at most."


class Tools(Protocol):
    """What a model can do in a call. One set for each agent, the same on every provider."""

    def specs(self, call: "Call") -> tuple[ToolSpec, ...]:
        """What the model is told of this call's tools: for `Opening.tools`."""
        ...

    async def run(self, call: "Call", name: str, arguments: str, heard: Callable[[], Awaitable[bool]]) -> str:
        """Do what `ToolAsked` asks, and return what became of it: a text for `VoiceProvider.answer`, whatever happened.

        `heard` is the agent's: it waits until the caller has heard all that the model has said so far; False:
        he cut it off. A transfer waits for it, and so does the end of the call.
        Bounded in time by each tool's own deadline. Cancelling it (`ToolWithdrawn`) breaks it off.
        Raises: CallEnded: there is nobody left to answer.
        """
        ...
