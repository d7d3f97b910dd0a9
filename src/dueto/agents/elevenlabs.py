"""An ElevenLabs agent as a `VoiceProvider`: it is set up there, with its voice, its tools and its audio formats.

Where the agent's formats are `ulaw_8000`, a call at 8 kHz passes through without resampling. The server decides about
interruptions: after one, audio up to its id is dropped, even what is still under way. Nothing tells when an answer is
complete, unless the agent's client events have `agent_response_complete`: without it, an answer is over when its audio
would have been played and no more has come for a while.

A conversation can't be taken up again: when its connection breaks, it has failed.
"""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr

from dueto.agents import elevenlabs_wire as wire
from dueto.agents.elevenlabs_address import Addresses
from dueto.agents.expected import ConnectAhead
from dueto.agents.link import Link, open_link, plain
from dueto.agents.ports import (
    CallerBegan,
    CallerStopped,
    Connect,
    Cut,
    Line,
    Opening,
    ProviderEvent,
    Spoke,
    SpokeLast,
    ToolAsked,
    Transcribed,
)
from dueto.agents.profiles import Kind, LoadedAgent, Seconds, Surroundings, VoiceProfile
from dueto.agents.told import Told
from dueto.audio.g711 import ulaw_decode, ulaw_encode
from dueto.errors import Fault, ProviderFailed, RemoteProtocolError

ANSWER_OVER_S: Final = 0.6
"An answer's audio has been played, and no more of it has come for so long: it is over."
STILL_THERE_S: Final = 20.0
"The server gives a conversation up after 60 s without a sound from the caller: on hold, it is told that often."
LIKELY: Final = 0.5
"From this score on the caller speaks."


class ElevenLabsProfile(VoiceProfile):
    """The keys of `use = "elevenlabs"`. `instructions`, `greeting`, `voice` and `language` are overrides, each of which
    the agent's security settings have to allow."""

    agent_id: str
    "The agent, as its page at ElevenLabs calls it: `agent_...`."
    api_key: SecretStr = SecretStr("")
    "Better in the environment: ELEVENLABS_API_KEY. A public agent needs none."
    voice: str = ""
    "A voice's id; empty: the agent's own."
    language: str = ""
    "As `de`; empty: the agent's own."
    variables: Mapping[str, str] = {}
    "Dynamic variables; `caller_number`, `caller_name` and `destination_number` are always given."
    base_url: str = "https://api.elevenlabs.io"
    connect_s: Annotated[Seconds, Field(gt=0, le=10)] = 10.0
    early: bool = True
    "Whether the signed address is asked for when the call's control leg comes, while its stream is still on its way."


class ElevenLabs:
    """One conversation. Made by `connect`."""

    def __init__(self, profile: ElevenLabsProfile, addresses: Addresses, opening: Opening) -> None:
        self.hears_hz = 16000
        self.speaks_hz = 16000
        self._profile = profile
        self._addresses = addresses
        self._key = addresses.key
        self._opening = opening
        self._told = Told("ElevenLabs")
        self._time = asyncio.get_running_loop().time
        self._link: Link | None = None
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hears_ulaw = self._speaks_ulaw = False
        self._fault: ProviderFailed | None = None
        "What the server said before it closes."
        self._items = 0
        self._item = ""
        "What it is saying."
        self._muted = self._has_text = False
        self._text = ""
        "What it is about to say: told with its first audio, for the text belongs to that."
        self._played_at = 0.0
        "When the audio that came so far would have been played."
        self._over_timer: asyncio.TimerHandle | None = None
        self._interrupted_id = -1
        self._loud = self._speaks = False
        "Whether the last score was that of speech, and whether the agent was told that he speaks."
        self._scored = False
        "Whether this turn's end was told by its scores."
        self._asked: set[str] = set()
        self._heard_at = 0.0
        self._there_timer: asyncio.TimerHandle | None = None

    # -- what the agent may do

    @property
    def dropped_ms(self) -> int:
        """Caller's audio that the provider was too slow to take."""
        return self._link.dropped_ms if self._link is not None else 0

    def hear(self, frame: bytes) -> None:
        """Take 20 ms of the caller."""
        if self._link is not None:
            self._heard_at = self._time()
            audio = ulaw_encode(frame) if self._hears_ulaw else frame
            self._link.send_audio(wire.user_audio_chunk(audio))

    def events(self, speech: Callable[[Spoke], bool] | None = None) -> AsyncIterator[ProviderEvent]:
        """What it tells, in order. Raises: ProviderFailed."""
        return self._told.events(speech)

    def cancel(self) -> None:
        """Drop what still comes of what it is saying: it can't be stopped by us."""
        if self._item:
            self._muted = True

    def truncate(self, item_id: str, heard_ms: int) -> None:
        """Nothing: the server counts for itself what was heard before an interruption."""

    def answer(self, ask_id: str, output: str) -> None:
        """What a tool brought."""
        if ask_id in self._asked:
            self._asked.discard(ask_id)
            self._send(wire.client_tool_result(ask_id, output))

    def press(self, digits: str) -> None:
        """The caller pressed these keys."""
        self.prompt(f"(The caller pressed {' '.join(digits)} on the telephone's keypad.)")

    def note(self, text: str) -> None:
        """Tell the agent what happened."""
        self._send(wire.contextual_update(text))

    def prompt(self, text: str) -> None:
        """Have it speak now, following this instruction."""
        self._send(wire.user_message(text))

    async def aclose(self) -> None:
        """End the conversation."""
        self._told.end()
        for timer in (self._over_timer, self._there_timer):
            if timer is not None:
                timer.cancel()
        if self._link is not None:
            await self._link.aclose()

    # -- the connection

    async def open(self) -> None:
        """Begin. Raises: ProviderFailed."""
        patience_s = self._profile.connect_s
        try:
            async with asyncio.timeout(patience_s):
                await self._open()
        except TimeoutError:
            raise ProviderFailed("timeout", f"ElevenLabs did not answer within {patience_s:g} s") from None

    async def _open(self) -> None:
        link = await open_link(
            "ElevenLabs",
            await self._addresses.find(self._opening.call_id),
            self._received,
            self._closed,
            secrets=(self._key,),
            ssl_context=self._addresses.ssl_context,
            meaning=lambda code, reason: why_closed(code, reason, self._key),
        )
        try:
            link.send(self._initiation())
            self._link = link
            await self._begun
        except BaseException:
            self._link = None
            await link.aclose()
            raise
        if self._opening.said_so_far:
            link.send(wire.contextual_update(so_far(self._opening.said_so_far)))
        self._heard_at = self._time()
        self._still_there()

    def _initiation(self) -> bytes:
        profile, opening = self._profile, self._opening
        first = profile.greeting or None
        return wire.initiation(
            prompt=profile.instructions,
            first_message=first if opening.greets else "",
            language=profile.language,
            voice=profile.voice,
            dynamic_variables={**{name: plain(value) for name, value in opening.facts.items()}, **profile.variables},
        )

    def _begins(self, metadata: wire.Metadata) -> None:
        """Take the agent's formats: at once, for its first audio may come in the same breath."""
        try:
            hears, self.hears_hz = wire.audio_format(metadata.user_input_audio_format)
            speaks, self.speaks_hz = wire.audio_format(metadata.agent_output_audio_format)
        except RemoteProtocolError as error:
            self._begun.set_exception(ProviderFailed("refused", f"ElevenLabs: {error}"))
        else:
            self._hears_ulaw, self._speaks_ulaw = hears == "ulaw", speaks == "ulaw"
            self._begun.set_result(None)

    def _send(self, message: bytes) -> None:
        if self._link is not None:
            self._link.send(message)

    def _closed(self, failure: ProviderFailed) -> None:
        """The connection ended, not by us."""
        link = self._link
        failure = self._fault or failure
        if not self._begun.done():
            self._begun.set_exception(failure)
        elif link is not None and link.close_code == 1000 and self._fault is None:
            self._answer_over()
            self._told.end()  # the agent hung up
        else:
            self._told.fail(failure)

    def _still_there(self) -> None:
        """Ask again after `STILL_THERE_S` whether the caller was heard; on hold he is not, and still there."""
        if self._time() - self._heard_at >= STILL_THERE_S:
            self._send(wire.user_activity())
        self._there_timer = asyncio.get_running_loop().call_later(STILL_THERE_S, self._still_there)

    # -- what it says

    def _received(self, message: bytes) -> None:
        if self._told.over:
            return
        try:
            event = wire.decode(message)
        except RemoteProtocolError as error:
            failure = ProviderFailed("protocol", f"ElevenLabs said what makes no sense: {plain(error)}")
            if self._begun.done():
                self._told.fail(failure)
            else:
                self._begun.set_exception(failure)
            return
        match event:
            case wire.Audio():
                self._audio(event)
            case wire.Ping():
                self._send(wire.pong(event.event_id))
            case wire.VadScore():
                self._score(event.vad_score)
            case wire.Interruption():
                self._interrupted(event.event_id)
            case wire.TentativeUserTranscript():
                self._caller_speaks()
            case wire.UserTranscript():
                self._answer_over()
                if not self._scored:
                    self._told.put(CallerStopped())
                self._scored = self._speaks = False
                self._told.put(Transcribed(Line("caller", event.user_transcript.strip())))
            case wire.AgentResponse():
                self._response(event.agent_response.strip())
            case wire.AgentResponseComplete():
                self._answer_over()
            case wire.ClientToolCall():
                self._asked.add(event.tool_call_id)
                self._told.put(ToolAsked(event.tool_call_id, event.tool_name, bytes(event.parameters).decode()))
            case wire.Metadata() if not self._begun.done():
                self._begins(event)
            case wire.Fault():
                self._fault = why_failed(event, self._key)

    def _audio(self, event: wire.Audio) -> None:
        if event.event_id <= self._interrupted_id:
            return  # still under way when the caller interrupted
        now = self._time()
        audio = event.audio_base_64
        seconds = len(audio) / (self.speaks_hz if self._speaks_ulaw else 2 * self.speaks_hz)
        self._played_at = max(self._played_at, now) + seconds
        if not self._item:
            self._item = f"answer-{self._items + 1}"
            self._over_timer = asyncio.get_running_loop().call_later(seconds + ANSWER_OVER_S, self._perhaps_over)
        if not self._muted:
            self._told.put(Spoke(self._item, ulaw_decode(audio) if self._speaks_ulaw else audio))
        if self._text:
            self._tell_text()

    def _response(self, text: str) -> None:
        if self._has_text:
            self._answer_over()  # else its first audio came before its text
        self._has_text, self._text = True, text
        if self._item:
            self._tell_text()

    def _tell_text(self) -> None:
        self._told.put(Transcribed(Line("agent", self._text), self._item))
        self._text = ""

    def _perhaps_over(self) -> None:
        """The timer of an answer: it runs on while audio comes."""
        left_s = self._played_at + ANSWER_OVER_S - self._time()
        if left_s > 0:
            self._over_timer = asyncio.get_running_loop().call_later(left_s, self._perhaps_over)
        else:
            self._answer_over()

    def _answer_over(self) -> None:
        if self._over_timer is not None:
            self._over_timer.cancel()
            self._over_timer = None
        if self._text:
            self._tell_text()
        if self._item:
            self._told.put(SpokeLast(self._item))
            self._items += 1
        self._item, self._muted, self._has_text = "", False, False

    def _interrupted(self, event_id: int) -> None:
        self._interrupted_id = max(self._interrupted_id, event_id)
        cut = self._item or (f"answer-{self._items}" if self._items else "")
        self._answer_over()
        self._played_at = 0.0
        self._told.put(Cut(cut))

    def _score(self, score: float) -> None:
        if score >= LIKELY:
            self._caller_speaks()
        elif self._loud:
            self._scored, self._speaks = True, False
            self._told.put(CallerStopped())
        self._loud = score >= LIKELY

    def _caller_speaks(self) -> None:
        """Tell so; not while the agent is heard, for whether he interrupts is the server's own decision."""
        if not (self._speaks or self._item) and self._time() >= self._played_at:
            self._speaks = True
            self._told.put(CallerBegan())


def so_far(lines: tuple[Line, ...]) -> str:
    """Return a conversation that was held before as something to be known."""
    return "The conversation until now, which you carry on:\n" + "\n".join(f"{line.who}: {line.text}" for line in lines)


_REASONS: Final[tuple[tuple[str, Fault, str], ...]] = (
    ("quota", "quota", "ElevenLabs' quota is used up"),
    ("concurren", "quota", "ElevenLabs refuses for now: too many conversations at once"),
    ("authorize", "auth", "ElevenLabs does not let this API key in"),
    ("signature", "auth", "ElevenLabs does not let this API key in"),
    ("does not exist", "model", "ElevenLabs has no such agent"),
    ("max_duration", "limit", "the conversation was as long as the agent's settings allow"),
    ("override", "refused", "ElevenLabs: the agent's security settings do not allow this override"),
)


def why_closed(code: int, reason: str, key: str) -> ProviderFailed | None:
    """Return what a CLOSE of ElevenLabs' means; None: what any CLOSE means."""
    low = reason.lower()
    for part, fault, text in _REASONS:
        if part in low:
            return ProviderFailed(fault, f"{text} ({code}: {plain(reason, (key,))})")
    if code in (1002, 1008, 3000):
        return ProviderFailed("refused", f"ElevenLabs ended the conversation ({code}: {plain(reason, (key,))})")
    return None


def why_failed(fault: wire.Fault, key: str) -> ProviderFailed:
    """Return what an `error` of ElevenLabs' means."""
    said = " ".join(part for part in (fault.error_type, fault.message or fault.reason) if part)
    return why_closed(fault.code, said, key) or ProviderFailed("refused", f"ElevenLabs failed: {plain(said, (key,))}")


def elevenlabs(*, agent_id: str, api_key: str = "", ssl: ssl.SSLContext | None = None, **options: Any) -> Connect:
    """Return what opens a conversation with an ElevenLabs agent, for `ProviderAgent`.

    `api_key`: not for a public agent. `ssl`: for a certificate of your own. `options`: the keys of `ElevenLabsProfile`.
    """
    profile = ElevenLabsProfile.model_validate({"use": "elevenlabs", "agent_id": agent_id, **options})
    addresses = addresses_of(profile, api_key, ssl)
    return ConnectAhead(functools.partial(connect, profile, addresses), addresses.expected)


def addresses_of(profile: ElevenLabsProfile, key: str, ssl_context: ssl.SSLContext | None = None) -> Addresses:
    """Return where the conversations with that agent are held."""
    return Addresses(profile.base_url, profile.agent_id, key, ssl_context)


async def connect(profile: ElevenLabsProfile, addresses: Addresses, opening: Opening) -> ElevenLabs:
    """Open a conversation. Safe to cancel. Raises: ProviderFailed."""
    conversation = ElevenLabs(profile, addresses, opening)
    await conversation.open()
    return conversation


def _build(profile: ElevenLabsProfile, around: Surroundings) -> LoadedAgent:
    from dueto.agents.voices import voice_agent

    key = around.key(profile.api_key, "ELEVENLABS_API_KEY", needed=False)
    addresses = addresses_of(profile, key)
    speak = functools.partial(connect, profile, addresses)
    ahead = bool(key) and profile.early  # a public agent's address is known
    return voice_agent(ConnectAhead(speak, addresses.expected) if ahead else speak, profile, around)


KIND = Kind(ElevenLabsProfile, _build)
