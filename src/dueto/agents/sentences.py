"""Every sentence the receptionist can say. All are known at start, so that what can't be spoken is found there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dueto.agents.speech.vocabulary import spoken
from dueto.call.ports import Accept, Destination

GREETING: Final = "Hello, this is Dueto."
WHICH: Final = "Which department would you like?"
AGAIN: Final = "Sorry, I did not understand."
ALL_RIGHT: Final = "All right."
SILENCE: Final = "Are you still there?"
ELSE: Final = "Can I do anything else for you?"
PERSON: Final = "I will connect you with somebody who can help."
GOODBYE: Final = "Thank you for calling. Goodbye."
CANNOT_CONNECT: Final = "I am sorry, I cannot connect you from here."
WRONG_KEY: Final = "That key is not used."
TAKE_IT: Final = Accept().prompt
WENT_WRONG: Final = "I am sorry, something went wrong. One moment, please."
"What the gateway says where an agent failed (`dueto.call.conduct.SORRY`); recorded, so that it can."

_DIGIT_NAMES: Final = {"*": "star", "#": "hash"}


@dataclass(frozen=True, slots=True)
class Sentences:
    """What the receptionist of one gateway says."""

    destinations: Sequence[Destination]
    greeting: str = GREETING

    def announce(self, destination: Destination) -> str:
        """Say where the call goes."""
        return f"{_name(destination).capitalize()}, one moment."

    def not_free(self, destination: Destination) -> str:
        """Say that nobody took the call there."""
        return f"I am sorry, {_name(destination)} is not free just now."

    def for_you(self, destination: Destination) -> str:
        """Say to whoever answers an announced transfer what it is about."""
        return f"A caller for {_name(destination)}."

    @property
    def digits(self) -> str:
        """Say which keys there are; empty where there are none."""
        keyed = [one for one in self.destinations if one.digit]
        return " ".join(f"For {_name(one)}, press {_DIGIT_NAMES.get(one.digit, one.digit)}." for one in keyed)

    def all(self) -> list[str]:
        """Return everything that can come."""
        fixed = [self.greeting, WHICH, AGAIN, ALL_RIGHT, SILENCE, ELSE, PERSON, GOODBYE, CANNOT_CONNECT, WRONG_KEY]
        of_each = [
            sentence
            for one in self.destinations
            for sentence in (self.announce(one), self.not_free(one), self.for_you(one))
        ]
        return [*fixed, WENT_WRONG, TAKE_IT, *of_each, *([self.digits] if self.digits else [])]


def _name(destination: Destination) -> str:
    return spoken(destination)[0]
