"""How an agent behaves in a conversation, whichever provider speaks."""

from collections.abc import Callable
from dataclasses import dataclass

from dueto.agents.fillers import LearntWelcome, Sound, Welcome
from dueto.agents.watch import NO_PATIENCE, Patience
from dueto.call.ports import Ear


@dataclass(frozen=True, slots=True)
class Manners:
    """How the agent behaves in a conversation, whichever provider speaks."""

    ear: Callable[[], Ear] | None = None
    "Hears the caller begin to speak on this machine, besides the provider: sooner than its answer can come back."
    barge_in: bool = True
    "Whether a caller who speaks, or presses a key, cuts what is being said."
    min_speech_ms: int = 0
    "A caller who speaks for less than this does not interrupt: a cough, a word of assent."
    protected_ms: int = 0
    "The beginning of every utterance that can't be cut: for lines with an echo."
    protects_greeting: bool = False
    "Whether the first utterance is heard to its end, whatever the caller does."
    digits_s: float = 1.0
    "Keys that follow each other within this are one input for the model; `#` ends it at once."
    welcome: Welcome | LearntWelcome | None = None
    "What is heard while the provider connects; None, or not learnt yet: the model speaks first."
    greets: bool = False
    "Whether the model is sure to speak first, where nobody has greeted: silence then is a failure."
    patience: Patience = NO_PATIENCE
    filler: str | Sound = ""
    "What fills a silence that is the agent's: a sentence, or a sound to be repeated."
