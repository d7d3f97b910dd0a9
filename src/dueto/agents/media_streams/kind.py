"""`use = "media_streams"`: a bot that was written for Twilio, with a call of our own switch."""

import importlib.util
import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from dueto.agents.media_streams.account import Exchange
from dueto.agents.media_streams.line import BotLine
from dueto.agents.media_streams.progress import Progress, Reporter, Wish
from dueto.agents.media_streams.verbs import ConnectStream, Redirect, Verb
from dueto.agents.media_streams.webhook import Webhooks
from dueto.agents.profiles import Kind, LoadedAgent, Profile, Surroundings
from dueto.call import Call
from dueto.errors import SettingsError

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

    def __init__(self, profile: MediaStreamsProfile, exchange: Exchange) -> None:
        self._profile = profile
        self._exchange = exchange
        self._webhooks = Webhooks(exchange.account)
        self._reporter = Reporter(self._webhooks)
        self._told = Wish(profile.status_callback) if profile.status_callback else None

    async def __call__(self, call: Call) -> None:
        """Raises: ProviderFailed: the bot can't be reached, broke off, or made no sense."""
        progress = Progress(self._reporter, self._told) if self._told is not None else None
        line = BotLine(call, self._exchange, self._webhooks, connect_s=self._profile.connect_s, progress=progress)
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
    agent = MediaStreamsAgent(profile, Exchange() if around.exchange is None else around.exchange)
    return LoadedAgent(around.name, agent, aclose=agent.aclose)


KIND = Kind(MediaStreamsProfile, _build)
