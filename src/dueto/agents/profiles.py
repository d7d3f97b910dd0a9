"""What `[agents.NAME]` of a configuration says, and what becomes of it. Each kind of agent adds its own keys."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from dueto.agents.messages import KeepMessage
from dueto.call.keys import Key
from dueto.call.ports import Agent, Destination, Mouth
from dueto.errors import LocalProtocolError, SettingsError

if TYPE_CHECKING:
    from dueto.agents.media_streams import Exchange
APOLOGY = "I am sorry, something went wrong. One moment, please."
"Recorded, so that it can be said on every machine."


def _a_number(value: object) -> object:
    if isinstance(value, bool):  # pydantic would read true as 1
        raise ValueError("expected a number")
    return value


Seconds = Annotated[float, BeforeValidator(_a_number), Field(ge=0, le=86_400, allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_a_number)]


def check_keys(table: dict[str, str]) -> dict[str, str]:
    """Return a table of keys if every key is one, and does something. Raises: ValueError."""
    for digit, text in table.items():
        if not re.fullmatch(r"[0-9*#A-D]", digit):
            raise ValueError(f'expected keys "0" to "9", "*" or "#", not "{digit}"')
        try:
            Key.parse(text)
        except LocalProtocolError as error:
            raise ValueError(f'"{digit}": {error}') from None
    return table


Keys = Annotated[dict[str, str], AfterValidator(check_keys)]
'What keys do: `{"0": "transfer operator", "*": "repeat"}`.'


class Profile(BaseModel):
    """The keys that every kind of agent knows. Frozen; an unknown key is an error.

    A key that is a list can be given in an environment variable with commas if its annotation is `tuple[str, ...]`; one
    that must never be shown is a `SecretStr`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    use: str
    "The kind: `openai`, `gemini`, ..., or `module:callable`."
    fallbacks: tuple[str, ...] = ()
    "Who takes over where this one fails, or has no place, in turn: other agents, or a destination."
    apology: str = APOLOGY
    "What the caller hears when another takes over; empty: nothing."
    max_calls: Annotated[Whole, Field(ge=0)] = 0
    "Calls at once; 0: any number. One more goes to the fall-backs."
    dtmf: Keys | None = None
    "Keys that work whatever it is doing, in place of those of `[dtmf]`."


class VoiceProfile(Profile):
    """The keys of every kind that a voice provider speaks for."""

    instructions: str = ""
    "What the model is, and how it is to behave."
    greeting: str = ""
    "The first sentence; empty: the model finds one."
    greeting_by: Literal["model", "cache", "mouth"] = "model"
    "Who says it: the model, once it is there; its recording from an earlier call, or our own mouth, at once."
    greeting_file: str = ""
    "A WAV in which it is said already: heard at once."
    tools: tuple[str, ...] = ("transfer_call", "end_call")
    "What the model can do: names of our own tools, or `module:function`; for `own_tools.load_tools`."
    tool_s: Annotated[Seconds, Field(gt=0)] = 15.0
    "How long a tool of your own may take."
    barge_in: bool = True
    "Whether a caller who speaks, or presses a key, cuts what is being said."
    local_vad: bool = False
    "Whether the caller's speech is detected on this machine too: sooner than a provider far away can answer."
    local_vad_calls: Annotated[Whole, Field(ge=1, le=1000)] = 16
    "Calls heard so at once, 9 MB each; one more relies on its provider."
    min_speech_ms: Annotated[Whole, Field(ge=0, le=5000)] = 0
    "A caller who speaks for less than this does not interrupt."
    protected_ms: Annotated[Whole, Field(ge=0, le=5000)] = 0
    "The beginning of every utterance that can't be cut: for lines with an echo."
    protects_greeting: bool = False
    "Whether the first utterance is heard to its end, whatever the caller does."
    digits_s: Annotated[Seconds, Field(le=10)] = 1.0
    "Keys that follow each other within this are one input for the model; `#` ends it at once."
    dead_air_s: Annotated[Seconds, Field(le=60)] = 4.0
    "Silence of the agent, when it is its turn, before it is filled; 0: it is not."
    dead_air: str = "tone"
    "What fills it: `tone`, a sentence for the gateway's mouth, or a WAV to be repeated."
    no_input_s: Annotated[Seconds, Field(le=3600)] = 15.0
    "Silence of the caller, when it is his turn, before he is asked whether he is there; 0: he is not."
    no_input_times: Annotated[Whole, Field(ge=0, le=10)] = 2
    "How often he is asked before the call is ended."
    no_input: str = "Are you still there?"
    no_input_goodbye: str = "I can't hear you, so I hang up now. Goodbye."
    max_duration_s: Seconds = 3600.0
    "Of the whole conversation; 0: no end."
    max_duration_warning_s: Seconds = 60.0
    "So long before its end the caller is told; 0: he is not."
    max_duration_warning: str = "We have one minute left."
    max_duration_goodbye: str = "I am sorry, our time is up. Goodbye."


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class LoadedAgent:
    """An agent, and what belongs to it."""

    name: str
    run: Agent
    mouth: Mouth | None = None
    start: Callable[[], Awaitable[None]] = _nothing
    "Fill pools, load models: before the first call."
    aclose: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a kind may look at when it builds an agent."""

    name: str
    "The NAME of `[agents.NAME]`."
    destinations: tuple[Destination, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    "For keys that are not written into a file: `OPENAI_API_KEY`."
    keep_message: KeepMessage | None = None
    "Where `take_message` puts them."
    exchange: "Exchange | None" = None
    "`[twilio]`, for bots that were written for it."

    def key(self, written: SecretStr, variable: str, *, needed: bool = True) -> str:
        """Return a provider's key: as it is `written`, or of the environment. It goes into a header as it is.

        Raises: SettingsError: there is none and it is `needed`, or it can't be one.
        """
        key = written.get_secret_value() or self.environment.get(variable, "")
        if needed and not key:
            raise SettingsError(
                f"[agents.{self.name}] api_key: missing; put it into the environment: export {variable}=..."
            )
        if not re.fullmatch("[!-~]*", key):
            raise SettingsError(
                f"[agents.{self.name}] api_key: expected one word; write it without spaces or line breaks"
            )
        return key


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of agent: which keys it reads, and how one is made of them. A package offers its own under the entry-point
    group `dueto.agents`, as `name = "module:KIND"`."""

    profile: type[Profile]
    build: Callable[[Any, Surroundings], LoadedAgent]
    "From its profile. Raises: SettingsError: a key or an extra is missing; the text says what to write or install."
