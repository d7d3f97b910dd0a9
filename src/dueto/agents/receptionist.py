"""The offline receptionist: asks which department, understands the answer, connects. Free, no key, no cloud."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dueto.agents.conversation import Conversation, Temper
from dueto.agents.sentences import GREETING, Sentences
from dueto.agents.speech import (
    THRESHOLD,
    DetectorPool,
    RecogniserPool,
    SpeechEar,
    SpeechMouth,
    build_vocabulary,
    installed,
)
from dueto.agents.speech.model import find_model
from dueto.agents.speech.mouth import INSTALL_HINT
from dueto.call.ports import Destination
from dueto.errors import CallEnded, NotCapable, SettingsError

if TYPE_CHECKING:
    from dueto.call.call import Call


class Receptionist:
    """An agent for any number of calls; what is dear (detectors, recognisers) is made once and shared.

    receptionist = Receptionist(destinations)
    await receptionist.start()
    ...                                    # `await receptionist(call)` for each call, `receptionist.mouth` to speak
    await receptionist.aclose()
    """

    def __init__(
        self,
        destinations: Iterable[Destination],
        *,
        greeting: str = GREETING,
        threshold: float = THRESHOLD,
        objection_s: float = 1.2,
        patience_s: float = 8.0,
        recognisers: int = 2,
        listeners: int = 16,
        mouth: SpeechMouth | None = None,
    ) -> None:
        """`threshold`: what is understood counts from this confidence on. `objection_s`: the time to say no after
        "Sales, one moment". `patience_s`: silence before the caller is asked again. `recognisers`: processes, 50 MB
        each. `listeners`: calls heard at once, 9 MB each; one more call is served by keys alone.

        Raises: SettingsError: a word no dictionary knows, two destinations with the same word or key, no destination,
        or the extra is not installed; the text says what to write instead.
        """
        known = tuple(destinations)
        _check_digits(known)
        self.mouth = SpeechMouth(installed()) if mouth is None else mouth
        "For `call.say(text)`: the gateway's mouth."
        self._sentences = Sentences(known, greeting)
        self._vocabulary = build_vocabulary(known, find_model().dictionary)
        self._temper = Temper(threshold, objection_s, patience_s)
        self._detectors = DetectorPool(listeners)
        self._recognisers = RecogniserPool(self._vocabulary, size=recognisers)

    async def start(self) -> None:
        """Fill the pools and speak every sentence once, so that no caller waits for it.

        Raises: SettingsError: a sentence can't be spoken on this machine. NotCapable: a recogniser did not come up.
        """
        try:
            for sentence in self._sentences.all():
                await self.mouth.speak(sentence, 16000)
        except NotCapable as error:
            raise SettingsError(f"the receptionist can't speak: {error}; {INSTALL_HINT}") from error
        await self._detectors.start()
        await self._recognisers.start()

    async def aclose(self) -> None:
        """End the recognisers' processes and free the detectors."""
        await self._recognisers.aclose()
        self._detectors.clear()

    async def __call__(self, call: "Call") -> None:
        """Serve one call; returns when it is over, or when there is nothing more to do for the caller."""
        conversation = Conversation(call, self._sentences, self._temper, listens=await self._listens_to(call))
        try:
            await conversation.run()
        except CallEnded:
            return
        finally:
            await conversation.aclose()

    async def _listens_to(self, call: "Call") -> bool:
        """Attach an ear. False: there are more callers than detectors, or no audio to hear; the keys still work."""
        try:
            ear = SpeechEar(self._detectors, self._recognisers)
        except NotCapable:
            return False
        try:
            call.listen(ear)
        except BaseException as error:
            await ear.aclose()  # nobody else knows of it yet
            if isinstance(error, NotCapable):
                return False
            raise
        return True


def _check_digits(destinations: Iterable[Destination]) -> None:
    owners: dict[str, str] = {}
    for one in destinations:
        if not one.digit:
            continue
        if len(one.digit) != 1 or one.digit not in "0123456789*#":
            raise SettingsError(f'[destinations.{one.name}] digit: expected one key of 0-9, * and #, not "{one.digit}"')
        if owners.setdefault(one.digit, one.name) != one.name:
            other = owners[one.digit]
            raise SettingsError(
                f'[destinations.{one.name}] digit: "{one.digit}" is also the key of [destinations.{other}]'
            )
