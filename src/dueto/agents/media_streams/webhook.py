"""Asks a bot's webhook what to do with a call, as Twilio does: a form, signed, answered by TwiML."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from dueto.agents.fillers import Sound
from dueto.agents.link import http_fault, plain, trusted
from dueto.agents.media_streams.account import Account
from dueto.agents.media_streams.twiml import MAX_TWIML_BYTES, read_twiml
from dueto.agents.media_streams.verbs import Method, Verb
from dueto.audio.pcm import read_wav
from dueto.audio.resample import RATES_HZ
from dueto.errors import LocalProtocolError, ProviderFailed, RemoteProtocolError

if TYPE_CHECKING:
    import httpx

PATIENCE_S = 10.0
"For a whole exchange. Twilio waits 15 s, but there the caller hears ringing meanwhile."
MAX_SOUND_BYTES: Final = 8 << 20


class Webhooks:
    """One client for all calls: connections are kept, certificates read once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._client: httpx.AsyncClient | None = None

    async def ask(self, url: str, form: Mapping[str, str], method: Method = "POST") -> tuple[Verb, ...]:
        """Return what the bot wants done. Safe to cancel. Raises: ProviderFailed: it did not say, or made no sense."""
        body = await self.send(url, form, method)
        try:
            return read_twiml(body, url)
        except RemoteProtocolError as error:
            raise ProviderFailed("protocol", f"the bot's webhook: {error}") from None

    async def sound(self, url: str) -> Sound:
        """Return the sound that a bot keeps there. Safe to cancel. Raises: ProviderFailed: there is none, or no WAV."""
        try:
            wav = read_wav(await self.send(url, {}, "GET", most_bytes=MAX_SOUND_BYTES))
        except LocalProtocolError as error:
            raise ProviderFailed("protocol", f"<Play>: {error}") from None
        if wav.rate_hz not in RATES_HZ or wav.channels != 1:
            rates = ", ".join(map(str, RATES_HZ))
            raise ProviderFailed("protocol", f"<Play>: expected a WAV of one channel and 16 bits, at one of {rates} Hz")
        return Sound(wav.pcm, wav.rate_hz)

    async def send(
        self, url: str, form: Mapping[str, str], method: Method, *, most_bytes: int = MAX_TWIML_BYTES
    ) -> bytes:
        """Tell a bot, and return what it answers, cut after `most_bytes` and some. Raises: ProviderFailed."""
        try:
            import httpx
        except ImportError:  # a bot may name a webhook in mid-call
            raise ProviderFailed("refused", "a webhook needs httpx: pip install 'dueto[webhook]'") from None
        if self._client is None:
            self._client = httpx.AsyncClient(verify=trusted(), timeout=PATIENCE_S, trust_env=False)
        data: dict[str, str] | None = dict(form)
        if method == "GET":
            url, data = f"{url}{'&' if '?' in url else '?'}{urlencode(form)}" if form else url, None
        headers = self._account.sign(url, data)
        try:
            async with self._client.stream(method, url, data=data, headers=headers) as answer:
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > most_bytes:
                        break
        except httpx.TimeoutException:
            raise ProviderFailed("timeout", f"the bot's webhook did not answer within {PATIENCE_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # a ValueError: a name that IDNA does not know
            raise ProviderFailed("refused", f"the bot's webhook can't be reached: {plain(error)}") from None
        if not answer.is_success:
            raise http_fault("the bot's webhook", answer.status_code, secrets=(self._account.token,))
        return body

    async def aclose(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()
