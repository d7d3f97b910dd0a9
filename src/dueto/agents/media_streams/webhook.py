"""Asks a bot's webhook what to do with a call, as Twilio does: a form, signed, answered by TwiML."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dueto.agents.link import http_fault, plain, trusted
from dueto.agents.media_streams.account import Account
from dueto.agents.media_streams.twiml import MAX_TWIML_BYTES, Verb, read_twiml
from dueto.errors import ProviderFailed, RemoteProtocolError

if TYPE_CHECKING:
    import httpx

PATIENCE_S = 10.0
"For a whole exchange. Twilio waits 15 s, but there the caller hears ringing meanwhile."


class Webhooks:
    """One client for all calls: connections are kept, certificates read once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._client: httpx.AsyncClient | None = None

    async def ask(self, url: str, form: Mapping[str, str]) -> tuple[Verb, ...]:
        """Return what the bot wants done. Safe to cancel. Raises: ProviderFailed: it did not say, or made no sense."""
        try:
            import httpx
        except ImportError:  # a bot may name a webhook in mid-call
            raise ProviderFailed("refused", "a webhook needs httpx: pip install 'dueto[webhook]'") from None
        if self._client is None:
            self._client = httpx.AsyncClient(verify=trusted(), timeout=PATIENCE_S, trust_env=False)
        headers = self._account.sign(url, form)
        try:
            async with self._client.stream("POST", url, data=dict(form), headers=headers) as answer:
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > MAX_TWIML_BYTES:
                        break
        except httpx.TimeoutException:
            raise ProviderFailed("timeout", f"the bot's webhook did not answer within {PATIENCE_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # a ValueError: a name that IDNA does not know
            raise ProviderFailed("refused", f"the bot's webhook can't be reached: {plain(error)}") from None
        if not answer.is_success:
            raise http_fault("the bot's webhook", answer.status_code, secrets=(self._account.token,))
        try:
            return read_twiml(body, url)
        except RemoteProtocolError as error:
            raise ProviderFailed("protocol", f"the bot's webhook: {error}") from None

    async def aclose(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()
