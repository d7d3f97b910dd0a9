"""A Gemini Live session, over as many connections as it takes. The caller notices none of the changes.

A connection lives about ten minutes; a minute before, the server says goAway. Between two turns, while the caller is
quiet, the session is then taken up on a new connection with the handle that the server offered. The old connection has
to be closed first (a resume beside it is refused, with 1011), so what is said meanwhile waits here. A connection that
breaks is resumed in the same way: what was being said is lost, what was said is remembered.
"""

import asyncio
import functools
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from dueto.agents import gemini_wire as wire
from dueto.agents.link import LATE_AUDIO_MS, Link, open_link, plain
from dueto.agents.warm_links import Dial, OnClosed, OnMessage, WarmLinks
from dueto.errors import Fault, ProviderFailed, RemoteProtocolError

PATH: Final = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
RESUME_S: Final = 8.0
"A session that is not taken up again by then has failed."
RETRY_S: Final = 0.4
PING_S: Final = 40.0
"Its answers to a ping were seen to take up to 30 s."
LEAVE_MARGIN_S: Final = 3.0
"So long before the announced end a session is moved, whatever is being said."
FRAME_MS: Final = 20
MAX_WAITING_TEXTS: Final = 100


class Holder(Protocol):
    """Whose session it is. Told everything in the turn of the loop in which it came."""

    def said(self, message: wire.ServerMessage) -> None:
        """The server said something."""
        ...

    def idle(self) -> bool:
        """Whether this is a good moment to move: nobody speaks, and nobody is waited for."""
        ...

    def broken_off(self) -> None:
        """The session leaves its connection: what was under way there does not come any more."""
        ...

    def moved(self, reason: str) -> None:
        """It goes on, on a new connection."""
        ...

    def failed(self, failure: ProviderFailed) -> None:
        """It can't go on."""
        ...


class GeminiSession:
    """Made, then opened once, then closed."""

    def __init__(
        self,
        links: WarmLinks,
        setup: Callable[[str], bytes],
        holder: Holder,
        call_id: str = "",
    ) -> None:
        """`setup` returns a connection's first message, for the handle of the session to be taken up (empty: new)."""
        self._links = links
        self._setup = setup
        self._holder = holder
        self._call_id = call_id
        self._link: Link | None = None
        "None while there is no connection: what is said waits."
        self._over = False
        self._dropped_ms = 0
        self._frames: deque[bytes] = deque()
        self._texts: deque[bytes] = deque(maxlen=MAX_WAITING_TEXTS)
        self._set_up: asyncio.Future[None] | None = None
        self._failure: ProviderFailed | None = None
        self._moving: asyncio.Task[None] | None = None
        self._handle = ""
        self._resumable = False
        self._leave_by: asyncio.TimerHandle | None = None
        "Set from goAway on: when the session is moved at the latest."

    @property
    def dropped_ms(self) -> int:
        """Audio that was lost: the server was too slow, or away for too long."""
        return self._dropped_ms + (self._link.dropped_ms if self._link is not None else 0)

    def hear(self, frame: bytes) -> None:
        """Send 20 ms of the caller."""
        link = self._link
        if link is not None:
            link.send_audio(wire.audio(frame))
            if self._leave_by is not None:
                self._leave_if_idle()
        elif not self._over:
            self._frames.append(frame)
            if len(self._frames) * FRAME_MS > LATE_AUDIO_MS:
                self._frames.popleft()
                self._dropped_ms += FRAME_MS

    def send(self, message: bytes) -> None:
        """Send what must not be lost."""
        if self._link is not None:
            self._link.send(message)
        elif not self._over:
            self._texts.append(message)

    async def open(self, patience_s: float) -> None:
        """Begin. Raises: ProviderFailed."""
        try:
            async with asyncio.timeout(patience_s):
                await self._connect("")
        except TimeoutError:
            raise ProviderFailed("timeout", f"Gemini did not answer within {patience_s:g} s") from None

    async def aclose(self) -> None:
        """End it. The holder is told nothing any more."""
        self._over = True
        self._stop_leaving()
        moving, self._moving = self._moving, None
        if moving is not None:
            moving.cancel()
            await asyncio.wait((moving,))
        link = self._leave_link()
        if link is not None:
            await link.aclose()

    # -- one connection

    async def _connect(self, handle: str) -> None:
        """Have a connection set up, and say first what waited for it. Raises: ProviderFailed."""
        self._link = link = await self._links.begin(functools.partial(self._set_up_on, handle), self._call_id)
        while self._texts:
            link.send(self._texts.popleft())
        while self._frames:
            link.send_audio(wire.audio(self._frames.popleft()))

    async def _set_up_on(self, handle: str, dial: Dial) -> Link:
        set_up = self._set_up = asyncio.get_running_loop().create_future()
        link = await dial(self._received, self._lost)
        try:
            link.send(self._setup(handle))
            await set_up
            if link.closed:  # in the very turn in which it was set up
                raise self._failure or ProviderFailed("dropped", "the connection to Gemini broke")
        except BaseException:
            await link.aclose()
            raise
        return link

    def _leave_link(self) -> Link | None:
        link, self._link = self._link, None
        if link is not None:
            self._dropped_ms += link.dropped_ms
        return link

    def _received(self, message: bytes) -> None:
        if self._over:
            return
        try:
            said = wire.decode(message)
        except RemoteProtocolError as error:
            self._fail(ProviderFailed("protocol", f"Gemini said what makes no sense: {plain(error)}"))
            return
        self._holder.said(said)
        if said.session_resumption_update is not None:
            self._resumable = said.session_resumption_update.resumable
            self._handle = said.session_resumption_update.new_handle or self._handle
        if said.go_away is not None and self._leave_by is None:
            in_s = max(0.0, said.go_away.left_s - LEAVE_MARGIN_S)
            self._leave_by = asyncio.get_running_loop().call_later(in_s, self._leave)
        if said.setup_complete is not None and self._set_up is not None and not self._set_up.done():
            self._set_up.set_result(None)
        if self._leave_by is not None:
            self._leave_if_idle()

    def _lost(self, failure: ProviderFailed) -> None:
        """The connection ended, not by us."""
        self._failure = failure
        if self._set_up is not None and not self._set_up.done():
            self._set_up.set_exception(failure)
        elif self._moving is None:
            if self._handle and failure.fault in ("dropped", "timeout", "limit"):
                self._move(str(failure), failure.fault)
            else:
                self._fail(failure)

    def _fail(self, failure: ProviderFailed) -> None:
        if not self._over:
            self._over = True
            self._holder.failed(failure)

    # -- from one connection to the next

    def _leave_if_idle(self) -> None:
        if self._resumable and self._holder.idle():
            self._leave()

    def _leave(self) -> None:
        if self._handle:
            self._move("its time was up", "limit")
        self._stop_leaving()

    def _stop_leaving(self) -> None:
        if self._leave_by is not None:
            self._leave_by.cancel()
            self._leave_by = None

    def _move(self, reason: str, fault: Fault) -> None:
        if self._moving is None and not self._over:
            self._stop_leaving()
            self._moving = asyncio.get_running_loop().create_task(self._moved(reason, fault), name="gemini moves")

    async def _moved(self, reason: str, fault: Fault) -> None:
        """Take the session up on a new connection; or fail, with `fault` where nothing better is known."""
        link = self._leave_link()
        self._holder.broken_off()
        last: ProviderFailed | None = None
        try:
            async with asyncio.timeout(RESUME_S):
                if link is not None:
                    await link.aclose()
                while True:
                    try:
                        await self._connect(self._handle)
                        break
                    except ProviderFailed as failure:
                        last = failure
                        if failure.fault not in ("dropped", "timeout", "limit", "refused"):
                            raise
                    await asyncio.sleep(RETRY_S)
        except ProviderFailed as failure:
            self._fail(failure)
        except TimeoutError:
            self._fail(ProviderFailed(fault, f"Gemini's session could not be carried on ({last or reason})"))
        else:
            self._holder.moved(reason)
        finally:
            self._moving = None


def links_of(
    base_url: str, key: str, ssl_context: ssl.SSLContext | None = None, *, size: int = 0, name: str = ""
) -> WarmLinks:
    """Return the way to Gemini's address: with `size` connections that wait for a call, if it is started."""

    async def dial(on_message: OnMessage, on_closed: OnClosed) -> Link:
        return await open_link(
            "Gemini",
            socket_url(base_url, PATH),
            on_message,
            on_closed,
            headers={"x-goog-api-key": key},
            secrets=(key,),
            ssl_context=ssl_context,
            ping_s=PING_S,
            meaning=why_closed,
        )

    return WarmLinks(dial, size=size, name=name)


def socket_url(base_url: str, path: str) -> str:
    """Return the address of a WebSocket beside an API's `https://` (or `http://`, on a network that is yours)."""
    scheme, _, rest = base_url.partition("://")
    return f"{ {'https': 'wss', 'http': 'ws'}.get(scheme, scheme) }://{rest.rstrip('/')}{path}"


_REASONS: Final[tuple[tuple[str, Fault, str], ...]] = (
    ("api key", "auth", "Gemini does not accept the API key"),
    ("unregistered callers", "auth", "Gemini wants an API key"),
    ("quota", "quota", "Gemini's quota is used up"),
    ("resource_exhausted", "quota", "Gemini's quota is used up"),
    ("is not found", "model", "Gemini has no such model"),
    ("not supported for bidi", "model", "Gemini has no such model"),
    ("deadline expired", "limit", "Gemini ended the connection: its time was up"),
)
"What stands in the reason of a CLOSE: the codes alone do not tell (1007 is a wrong key, and any other wrong value)."


def why_closed(code: int, reason: str) -> ProviderFailed | None:
    """Return what a CLOSE of Gemini's means; None: what any CLOSE means."""
    low = reason.lower()
    for part, fault, text in _REASONS:
        if part in low:
            said = "" if fault == "auth" else f": {reason}"
            return ProviderFailed(fault, f"{text} ({code}{said})")
    if code in (1003, 1007, 1008):
        return ProviderFailed("refused", f"Gemini refuses the conversation ({code}: {reason})")
    return None
