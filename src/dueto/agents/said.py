"""What an agent says in one call: each utterance from its first piece to what of it was HEARD, and its words."""

from typing import TYPE_CHECKING, Final

from dueto.agents.errands import Spawn
from dueto.agents.fillers import LearntWelcome
from dueto.agents.manners import Manners
from dueto.agents.ports import Line, Spoke, Transcribed, VoiceProvider
from dueto.agents.spoken import Spoken
from dueto.agents.watch import Watch
from dueto.errors import CallEnded, NotCapable

if TYPE_CHECKING:
    from dueto.call.call import Call

MOST_ITEMS: Final = 16
"Utterances that are over and remembered, for words that come late."


class Said:
    """The model's utterances, and the welcome that was said in its place; each follows itself to its end."""

    def __init__(self, call: "Call", manners: Manners, watch: Watch, spawn: Spawn) -> None:
        self.caller_silent_at: float | None = None
        "When the caller fell silent, until something is his answer."
        self.greeted_by_model = False
        self._call = call
        self._manners = manners
        self._watch = watch
        self._spawn = spawn
        self._items: dict[str, Spoken] = {}
        self._ahead: dict[str, str] = {}
        "Words that came before the first sound of their utterance."
        self._spoke = False

    async def welcome(self) -> tuple[Line, ...]:
        """Greet at once, if that is ours to do; return what will have been said."""
        welcome, call = self._manners.welcome, self._call
        pcm = await welcome.pcm(call) if welcome is not None and not len(call.transcript) else None
        if welcome is None or pcm is None:
            return ()
        interruptible = not self._manners.protects_greeting
        try:
            utterance = call.utterance(interruptible=interruptible)
        except (NotCapable, CallEnded):
            return ()
        self._spoke = True
        item = self._items["welcome"] = Spoken("welcome", utterance, call.rate_hz, interruptible=interruptible)
        item.text, item.cut_by_provider = welcome.text, True  # a provider can't truncate what it has not said
        item.add(pcm)
        item.finish()
        self._watch.agent_spoke()
        self._spawn("welcome", self._follow(None, item))
        return (Line("agent", welcome.text),) if welcome.text else ()

    def add(self, provider: VoiceProvider, event: Spoke) -> None:
        """A piece; the first of its item begins an utterance."""
        if not self.more(event):
            self._begin(provider, event.item_id).add(event.pcm)

    def more(self, event: Spoke) -> bool:
        """Add a piece, if it is not the first of its item."""
        item = self._items.get(event.item_id)
        if item is None:
            return False
        item.add(event.pcm)
        return True

    def finish(self, item_id: str) -> None:
        """Nothing more of that utterance comes."""
        if item_id in self._items:
            self._items[item_id].finish()

    def finish_all(self) -> None:
        """Nothing more of any comes."""
        for item in self._items.values():
            item.finish()

    async def heard(self) -> bool:
        """Wait until the caller has heard all that was said so far; False: some of it was cut."""
        heard = [await item.until_over() for item in self._live()]
        return all(heard)

    def _begin(self, provider: VoiceProvider, item_id: str) -> Spoken:
        for old in [one for one in self._items.values() if one.over][:-MOST_ITEMS]:
            del self._items[old.item_id]
        interruptible = self._spoke or not self._manners.protects_greeting
        first, self._spoke = not self._spoke, True
        try:
            utterance = self._call.utterance(rate_hz=provider.speaks_hz, interruptible=interruptible)
        except (NotCapable, CallEnded):  # he talks to somebody else, or is gone
            utterance = None
        item = self._items[item_id] = Spoken(item_id, utterance, provider.speaks_hz, interruptible=interruptible)
        item.came_at = self._call.clock()
        item.text = self._ahead.pop(item_id, "")
        item.answers_at, self.caller_silent_at = self.caller_silent_at, None
        if first and self.greeted_by_model and isinstance(self._manners.welcome, LearntWelcome):
            item.tape = bytearray()
        if utterance is None:
            provider.truncate(item_id, 0)
        else:
            self._watch.agent_spoke()
            self._spawn("utterance", self._follow(provider, item))
        return item

    async def _follow(self, provider: VoiceProvider | None, item: Spoken) -> None:
        try:
            await item.follow()
        finally:
            if not self._live():
                self._watch.agent_silent()
            self._note_turn(item)
            if item.text:
                self._record(item)
        welcome = self._manners.welcome
        if provider is not None and item.tape and item.fate == "heard" and isinstance(welcome, LearntWelcome):
            welcome.learn(item.text, bytes(item.tape), provider.speaks_hz)
        if provider is not None and not item.cut_by_provider and (item.fate != "heard" or item.full):
            provider.truncate(item.item_id, item.heard_ms)

    def _note_turn(self, item: Spoken) -> None:
        began_at = item.began_at
        if item.answers_at is not None and began_at is not None and began_at >= item.answers_at:
            latency_ms, model_ms = (round((at - item.answers_at) * 1000) for at in (began_at, item.came_at))
            self._call.note("turn", latency_ms=latency_ms, model_ms=model_ms)

    def _live(self) -> list[Spoken]:
        return [item for item in self._items.values() if not item.over]

    # -- cut

    def cut(self, item_id: str) -> None:
        """The provider broke off by itself: what it said already is not to be heard either."""
        hit = [item for item in self._live() if item_id in ("", item.item_id)]
        for item in hit:
            item.break_off()
        if hit:
            self._call.stop_now(by="speech")  # in this turn: what is read next may be the answer already

    def interrupt(self, by: str, decided_at: float) -> bool:
        """Silence now; each utterance that is cut tells its provider by itself what of it was heard.

        Returns False, and leaves everything as it is, where something is being said that can't be interrupted.
        """
        live = self._live()
        if any(not item.interruptible for item in live):
            return False
        if live:
            self._call.stop_now(by=by, decided_at=decided_at)
        return True

    def protected_s(self) -> float:
        """How long the beginning of what is being said can't be cut yet."""
        protected_ms = self._manners.protected_ms
        began = [item.began_at for item in self._live() if item.began_at is not None] if protected_ms else []
        return max(began) + protected_ms / 1000 - self._call.clock() if began else 0.0

    # -- words

    def transcribed(self, event: Transcribed) -> None:
        """Words of the agent's: they go into the transcript when it is known what of them was heard."""
        item = self._items.get(event.item_id)
        if item is None and event.item_id:  # not heard yet, and perhaps it never is
            while len(self._ahead) >= MOST_ITEMS:
                del self._ahead[next(iter(self._ahead))]
            self._ahead[event.item_id] = f"{self._ahead.get(event.item_id, '')} {event.line.text}".strip()
        elif item is None:
            self._call.transcript.add("agent", event.line.text)
        else:
            late = item.over and not item.text
            item.text = f"{item.text} {event.line.text}".strip()
            if late:
                self._record(item)

    def _record(self, item: Spoken) -> None:
        interrupted = item.fate != "heard"
        self._call.transcript.add("agent", item.words, heard_ms=item.heard_ms, interrupted=interrupted)
