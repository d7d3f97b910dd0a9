"""Where a conversation with an ElevenLabs agent is held: asked for before each, of a private one; or known."""

import ssl
from typing import Final
from urllib.parse import urlencode

import msgspec

from dueto.agents.expected import Expected
from dueto.agents.http_get import http_get
from dueto.errors import ProviderFailed

PATH: Final = "/v1/convai/conversation"
SIGNED_URL_PATH: Final = "/v1/convai/conversation/get-signed-url"


class Addresses:
    """The addresses of one agent's conversations. A signed one is good for minutes, and nothing is counted for it."""

    def __init__(self, base_url: str, agent_id: str, key: str, ssl_context: ssl.SSLContext | None = None) -> None:
        self.key = key
        self.ssl_context = ssl_context
        self.expected = Expected(self._ask)
        "Those of calls that are on their way."
        self._base = base_url.rstrip("/")
        self._query = urlencode({"agent_id": agent_id})

    async def find(self, call_id: str = "") -> str:
        """Return where this call's conversation is held. Raises: ProviderFailed."""
        return await self.expected.take(call_id) or await self._ask()

    async def _ask(self) -> str:
        if not self.key:
            scheme, _, rest = self._base.partition("://")
            return f"{ {'https': 'wss', 'http': 'ws'}.get(scheme, scheme) }://{rest}{PATH}?{self._query}"
        body = await http_get(
            "ElevenLabs",
            f"{self._base}{SIGNED_URL_PATH}?{self._query}",
            {"xi-api-key": self.key},
            secrets=(self.key,),
            ssl_context=self.ssl_context,
        )
        try:
            return msgspec.json.decode(body, type=_Signed).signed_url
        except (msgspec.MsgspecError, RecursionError):
            raise ProviderFailed("protocol", "ElevenLabs gave no signed URL") from None


class _Signed(msgspec.Struct):
    signed_url: str
