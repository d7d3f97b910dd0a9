"""One connection to OpenAI Realtime: its set-up, the answer that is being made, and the items it sent."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Final, Literal

from dueto.agents import openai_wire as wire
from dueto.agents.link import CONNECT_S, Link, open_link, plain
from dueto.agents.warm_links import Dial, OnClosed, OnMessage, WarmLinks
from dueto.errors import Fault, ProviderFailed, RemoteProtocolError

PROVIDER: Final = "OpenAI"
BASE_URL: Final = "https://api.openai.com/v1"
MOST_ITEMS: Final = 64
"Of one session that are remembered: an older one is not interrupted any more."
ANSWERS_S: Final = 3.0
"How long after the end of a turn the server may take to begin its answer."
SETUP: Final = "dueto_setup"
CREATE: Final = "dueto_create"
"The `event_id` of our events whose refusal means something."


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """What is asked of OpenAI, the same in every call."""

    api_key: str = field(default="", repr=False)
    model: str = "gpt-realtime-2.1"
    voice: str = "marin"
    instructions: str = ""
    greeting: str = ""
    "The first sentence; empty: the model finds one."
    base_url: str = BASE_URL
    azure: bool = False
    api_version: str = ""
    "Azure's older addresses only."
    turn_detection: Literal["server_vad", "semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    "How soon `semantic_vad` takes a pause for the end of a turn."
    threshold: float = 0.5
    silence_ms: int = 500
    "Of `server_vad`."
    transcription: str = "gpt-transcribe"
    "The model that writes down what the caller says; empty: nobody does."
    language: str = ""
    "Of the caller, ISO 639-1, for the transcription."
    noise_reduction: Literal["", "near_field", "far_field"] = ""
    speed: float = 1.0
    max_output_tokens: int = 0
    "Of one answer; 0: as many as the model has."
    session_s: float = 3300.0
    "A session older than this is carried on in a new one, between two turns. OpenAI's own limit is an hour."
    connect_s: float = CONNECT_S
    ssl: SSLContext | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What the key goes into; empty without one, for a server of your own."""
        if not self.api_key:
            return {}
        return {"api-key": self.api_key} if self.azure else {"Authorization": f"Bearer {self.api_key}"}

    def session(self, rate_hz: int, instructions: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the `session` of `session.update`."""
        audio = {"type": "audio/pcmu"} if rate_hz == 8000 else {"type": "audio/pcm", "rate": 24000}
        detection: dict[str, Any] = {"type": self.turn_detection, "create_response": True, "interrupt_response": False}
        if self.turn_detection == "semantic_vad":
            detection["eagerness"] = self.eagerness
        else:
            detection |= {"threshold": self.threshold, "silence_duration_ms": self.silence_ms}
        heard: dict[str, Any] = {"format": audio, "turn_detection": detection}
        if self.transcription:
            heard["transcription"] = {"model": self.transcription}
            if self.language:
                heard["transcription"]["language"] = self.language
        if self.noise_reduction:
            heard["noise_reduction"] = {"type": self.noise_reduction}
        spoken: dict[str, Any] = {"format": audio, "voice": self.voice}
        if self.speed != 1.0:
            spoken["speed"] = self.speed
        session = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": instructions,
            "audio": {"input": heard, "output": spoken},
            "tools": tools,
            "tool_choice": "auto",
        }
        return session | ({"max_output_tokens": self.max_output_tokens} if self.max_output_tokens else {})


@dataclass(slots=True)
class SentItem:
    """An utterance that this session sent."""

    response_id: str
    content_index: int
    size_bytes: int = 0
    odd: bytes = b""
    truncated: bool = False


class OpenAISession:
    """Made by `open_session`. Knows which answer is being made; of one that was cancelled it lets nothing through."""

    def __init__(
        self,
        on_event: Callable[["OpenAISession", wire.Known], None],
        on_closed: "ClosedCallback",
        secrets: tuple[str, ...] = (),
    ) -> None:
        """`secrets`: what must not stand in any text, whatever OpenAI says."""
        self.link: Link | None = None
        self.items: dict[str, SentItem] = {}
        self.responding = ""
        "The id of the answer that is being made."
        self._answer_due = 0.0
        "Until when the server may begin to answer the caller's turn that is over; 0: none is."
        self.owes_answer = False
        "The caller's turn was over while a cancelled answer was still being made: the server will not answer it."
        self.caller_speaks = False
        self.sent_ms = 0
        "Of the caller's audio: what the server's own times count."
        self.failure: ProviderFailed | None = None
        "Why the connection is over, if it is."
        self.early: list[wire.Known] | None = []
        "What came before somebody took it; None: it was taken."
        self.expires_in_s: float | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._on_event = on_event
        self._on_closed = on_closed
        self._secrets = secrets
        self._muted: set[str] = set()
        self._asked = 0
        "Answers that we asked for and that have not begun."
        self._to_mute = 0

    @property
    def expects_answer(self) -> bool:
        """Whether the caller's turn is over, and the server has not begun to answer yet; it may choose not to."""
        return asyncio.get_running_loop().time() < self._answer_due

    @property
    def answer_due_in_s(self) -> float:
        """How long that may still take."""
        return max(self._answer_due - asyncio.get_running_loop().time(), 0.0)

    @property
    def idle(self) -> bool:
        """Whether nobody speaks and nobody is about to."""
        return not (self.responding or self.expects_answer or self.caller_speaks or self._asked)

    @property
    def busy(self) -> bool:
        """Whether an answer is being made, or asked for: the server makes one at a time."""
        return bool(self.responding or self._asked or self.expects_answer)

    def send(self, event: bytes) -> None:
        """Send an event that must not be lost."""
        if self.link is not None:
            self.link.send(event)

    def create_response(self) -> None:
        """Ask for an answer."""
        self._asked += 1
        self.send(wire.command("response.create", event_id=CREATE))

    def cancel(self) -> None:
        """Break off the answer that is being made, and any that was asked for; what still comes of it is dropped."""
        if self.responding and self.responding not in self._muted:
            self._muted.add(self.responding)
            self.send(wire.command("response.cancel", response_id=self.responding))
        self._to_mute = self._asked

    def is_muted(self, response_id: str) -> bool:
        """Whether that answer was cancelled."""
        return response_id in self._muted

    # -- the link's side

    def message(self, data: bytes) -> None:
        """Take one message."""
        try:
            event = wire.read(data)
        except RemoteProtocolError as error:
            self._fail(ProviderFailed("protocol", f"{PROVIDER} sent {error}"))
            return
        if event is None:
            return
        if isinstance(event, wire.AudioDelta):
            if event.response_id in self._muted:
                return
        else:
            self._keep_track(event)
        self._on_event(self, event)

    def closed(self, failure: ProviderFailed) -> None:
        """The connection is over."""
        link = self.link
        reason = link.close_reason if link is not None else str(failure)
        fault = wire.fault_of(reason)
        if fault is not None:
            failure = refusal(fault, reason, self._secrets)
        self.failure = failure
        if not self.ready.done():
            self.ready.set_exception(failure)
        else:
            self._on_closed(self, failure)

    def _keep_track(self, event: wire.Known) -> None:
        match event:
            case wire.ResponseCreated():
                self.responding, self._answer_due, self.owes_answer = event.response.id, 0.0, False
                self._asked = max(self._asked - 1, 0)
                if self._to_mute:
                    self._to_mute -= 1
                    self._muted.add(event.response.id)
                    self.send(wire.command("response.cancel", response_id=event.response.id))
            case wire.ResponseDone():
                self._muted.discard(event.response.id)
                if event.response.id == self.responding:
                    self.responding = ""
            case wire.SpeechStarted():
                self.caller_speaks, self._answer_due, self.owes_answer = True, 0.0, False
            case wire.SpeechStopped():
                self.caller_speaks = False
                if self.responding:  # it makes one answer at a time, and decides now
                    self.owes_answer = self.responding in self._muted
                else:
                    self._answer_due = asyncio.get_running_loop().time() + ANSWERS_S
            case wire.SessionCreated():
                if event.session.expires_at:
                    self.expires_in_s = event.session.expires_at - time.time()
            case wire.SessionUpdated():
                if not self.ready.done():
                    self.ready.set_result(None)
            case wire.Error():
                self._refused(event.error)

    def _refused(self, error: wire.ErrorDetails) -> None:
        if error.event_id == CREATE:
            self._asked = max(self._asked - 1, 0)
            self._to_mute = min(self._to_mute, self._asked)
        if not self.ready.done():
            fault = wire.fault_of(error.code, error.type)
            if fault is None and (error.param or "").endswith(("model", "voice")):
                fault = "model"
            self.ready.set_exception(refusal(fault or "refused", error.message, self._secrets))

    def _fail(self, failure: ProviderFailed) -> None:
        if self.link is not None:
            self.link.fail(failure)
        elif not self.ready.done():
            self.ready.set_exception(failure)


ClosedCallback = Callable[[OpenAISession, ProviderFailed], None]

_SENTENCES: Final[dict[str, str]] = {
    "auth": "does not accept the API key",
    "quota": "refuses for now: the quota is used up, or too many requests were made",
    "model": "has no such model or voice",
    "limit": "ended the session",
}


def refusal(fault: Fault, message: str, secrets: tuple[str, ...] = ()) -> ProviderFailed:
    """Return what an error of OpenAI's means, in one sentence. Of a wrong key nothing is repeated: they show half."""
    said = "" if fault == "auth" else plain(message, secrets)
    sentence = f"{PROVIDER} {_SENTENCES.get(fault, 'refuses')}"
    return ProviderFailed(fault, f"{sentence}: {said}" if said else sentence)


def links_of(options: OpenAIOptions, *, size: int = 0, name: str = "") -> WarmLinks:
    """Return the way to OpenAI's address: with `size` connections that wait for a call, if it is started."""
    url = wire.realtime_url(options.base_url, options.model, azure=options.azure, api_version=options.api_version)

    async def dial(on_message: OnMessage, on_closed: OnClosed) -> Link:
        return await open_link(
            PROVIDER,
            url,
            on_message,
            on_closed,
            headers=options.headers,
            secrets=(options.api_key,),
            ssl_context=options.ssl,
            connect_s=options.connect_s,
        )

    return WarmLinks(dial, size=size, name=name)


async def open_session(
    options: OpenAIOptions,
    links: WarmLinks,
    setup: dict[str, Any],
    history: list[tuple[Any, str]],
    on_event: Callable[[OpenAISession, wire.Known], None],
    on_closed: ClosedCallback,
    call_id: str = "",
) -> OpenAISession:
    """Connect, set the session up, tell it what was said before; return when the server agreed.

    Safe to cancel. Raises: ProviderFailed: within `options.connect_s`.
    """

    async def conversation(dial: Dial) -> OpenAISession:
        session = OpenAISession(on_event, on_closed, (options.api_key,))
        try:
            session.link = await dial(session.message, session.closed)
            session.send(wire.command("session.update", event_id=SETUP, session=setup))
            for role, text in history:
                session.send(wire.message(role, text))
            await session.ready
            if session.failure is not None:  # in the very read that agreed
                raise session.failure
        except BaseException:
            if session.link is not None:
                await session.link.aclose()
            raise
        return session

    try:
        async with asyncio.timeout(options.connect_s):
            return await links.begin(conversation, call_id)
    except TimeoutError:
        raise ProviderFailed("timeout", f"{PROVIDER} did not answer within {options.connect_s:g} s") from None
