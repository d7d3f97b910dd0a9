"""A call in a bot's hands: its TwiML is carried out, verb by verb, until none is left or REST says otherwise."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dueto.agents.media_streams.account import API_VERSION, Exchange, call_sid
from dueto.agents.media_streams.progress import Progress
from dueto.agents.media_streams.stream import BotStream
from dueto.agents.media_streams.verbs import (
    ConnectStream,
    Dial,
    Gather,
    Hangup,
    Method,
    Pause,
    Play,
    PlayDigits,
    Redirect,
    Say,
    Verb,
)
from dueto.agents.media_streams.webhook import Webhooks
from dueto.call import Call
from dueto.call.events import Dtmf, Held, HungUp, Resumed, Unbridged
from dueto.call.phase import Phase
from dueto.call.ports import Destination, Outcome, TransferResult
from dueto.errors import Interrupted, LocalProtocolError, NotCapable, ProviderFailed

if TYPE_CHECKING:
    from dueto.agents.media_streams.words import Words

LONGEST_SPEECH_S = 20.0
"What a caller says to a `<Gather>`, and its transcription."
MAX_VERBS = 1000
"In one call, whatever the bot redirects to: two webhooks can send each other a call for ever."
_DIALLED: Mapping[Outcome, str] = {
    "bridged": "completed",
    "busy": "busy",
    "no_answer": "no-answer",
    "cancelled": "canceled",
}


class BotLine:
    """One call, from the first verb to the last. The REST side knows it by its `CallSid`."""

    def __init__(
        self,
        call: Call,
        exchange: Exchange,
        webhooks: Webhooks,
        *,
        connect_s: float,
        facts: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        words: "Words | None" = None,
    ) -> None:
        """`facts`: what `form` says otherwise of a call that a bot has placed. `progress`: tells how it goes on.
        `words`: hears them for a `<Gather>`."""
        self.sid = call_sid(call.unique_id)
        self._call = call
        self._exchange = exchange
        self._webhooks = webhooks
        self._connect_s = connect_s
        self._facts = dict(facts or {})
        self._progress = progress
        self._words = words
        self._stream: BotStream | None = None
        self._held = False
        self._wanted: asyncio.Future[tuple[Verb, ...]] | None = None
        self._verbs = 0

    async def run(self, program: tuple[Verb, ...]) -> None:
        """Carry it out. Returns when nothing is left to be done, or the caller has hung up.

        Raises: ProviderFailed: a bot, or its webhook, failed.
        """
        self._exchange.enter(self.sid, self)
        began_at = asyncio.get_running_loop().time()
        if self._progress is not None:
            self._progress.tell("answered", self.form(), "in-progress")
        events = asyncio.ensure_future(self._read_events())
        work: asyncio.Future[None] | None = None
        try:
            while True:
                self._wanted = asyncio.get_running_loop().create_future()
                work = asyncio.ensure_future(self._perform(program))
                await asyncio.wait((work, events, self._wanted), return_when=asyncio.FIRST_COMPLETED)
                if events.done() or not self._wanted.done():
                    break
                await _ended(work)
                program = self._wanted.result()
            if work.done():
                work.result()
        finally:
            self._exchange.leave(self.sid, self)
            self._is_over(asyncio.get_running_loop().time() - began_at)
            for task in (work, events):
                if task is not None:
                    await _ended(task)

    def _is_over(self, seconds: float) -> None:
        form = self.form() | {"CallStatus": "completed"}
        if self._progress is not None:
            self._progress.tell("completed", form, "completed", seconds)
        self._exchange.over(form | {"CallDuration": str(round(seconds))})

    # -- the REST side

    def form(self) -> dict[str, str]:
        """What Twilio tells of a call, in its webhooks and in its answers."""
        call = self._call
        return {
            "AccountSid": self._exchange.account.sid,
            "ApiVersion": API_VERSION,
            "CallSid": self.sid,
            "CallStatus": "completed" if call.ended else "in-progress",
            "Called": call.destination_number,
            "Caller": call.caller_number,
            "CallerName": call.caller_name,
            "Direction": "inbound",
            "From": call.caller_number,
            "To": call.destination_number,
            **self._facts,
        }

    def end(self) -> None:
        """Hang up."""
        self._take_over((Hangup(),))

    def redirect(self, program: tuple[Verb, ...]) -> None:
        """Take the call from its bot, and carry out these. Raises: LocalProtocolError: it can't be, and why."""
        if self._call.phase is Phase.BRIDGED and not isinstance(program[0] if program else None, Hangup):
            raise LocalProtocolError("the caller talks to somebody; that can be ended, and nothing else")
        for verb in program:
            if isinstance(verb, Dial):
                self._destination(verb)
        self._take_over(program)

    def _take_over(self, program: tuple[Verb, ...]) -> None:
        if self._wanted is not None:
            if self._wanted.done():  # asked twice in one turn of the loop: the last word counts
                self._wanted = asyncio.get_running_loop().create_future()
            self._wanted.set_result(program)

    # -- inside

    async def _read_events(self) -> None:
        async for event in self._call.events():
            match event:
                case Dtmf(digit) if self._stream is not None:
                    self._stream.press(digit)
                case Held() | Resumed():
                    self._held = isinstance(event, Held)
                    if self._stream is not None:
                        self._stream.held = self._held
                case HungUp():
                    return

    async def _perform(self, program: tuple[Verb, ...]) -> None:
        waiting = list(program)
        while waiting:
            self._verbs += 1
            if self._verbs > MAX_VERBS:
                raise ProviderFailed("protocol", f"the bot has asked for more than {MAX_VERBS} things in one call")
            more = await self._do(waiting.pop(0))
            if more is not None:
                waiting = list(more)

    async def _do(self, verb: Verb) -> tuple[Verb, ...] | None:
        """Do one; return what comes after it instead of the rest."""
        call = self._call
        match verb:
            case ConnectStream():
                await self._connect(verb)
                return await self._ask(verb.action, verb.method) if verb.action else None
            case Dial():
                return await self._dial(verb)
            case Gather():
                return await self._gather(verb)
            case Redirect(url, method):
                return await self._ask(url, method)
            case Say(text, loops):
                await self._say(text, loops)
            case Play(url, loops):
                sound = await self._webhooks.sound(url)
                await self._say(sound.at(call.rate_hz), loops)
            case PlayDigits(digits):
                await call.send_dtmf(digits)
            case Pause(length_s):
                await asyncio.sleep(length_s)
            case Hangup(cause):
                await call.hangup(cause)
        return None

    async def _ask(self, url: str, method: Method, **more: str) -> tuple[Verb, ...]:
        return await self._webhooks.ask(url, self.form() | more, method)

    async def _say(self, what: str | bytes, loops: int) -> None:
        for _ in range(loops if what else 0):
            with contextlib.suppress(Interrupted):
                await self._call.say(what)

    async def _gather(self, verb: Gather) -> tuple[Verb, ...] | None:
        """Return what comes after what was pressed or said; None: nothing was, and the next verb follows."""
        if self._words is None and "dtmf" not in verb.takes:
            raise ProviderFailed("refused", "<Gather> of speech: nobody listens for words here; set `stt`")
        began = asyncio.Event()
        keys = asyncio.ensure_future(self._keys(verb, began))
        said = asyncio.ensure_future(self._said(verb, began))
        try:
            await asyncio.wait((keys, said), return_when=asyncio.FIRST_COMPLETED)
            if not said.done() and not keys.result() and began.is_set():  # he speaks, or it is being understood
                await asyncio.wait((said,), timeout=LONGEST_SPEECH_S)
            found = said.result() if said.done() else keys.result()
        finally:
            await asyncio.gather(_ended(keys), _ended(said))
        if not found and not verb.tells_nothing:
            return None
        return await self._ask(verb.action, verb.method, **(found or {"Digits": ""}))

    async def _keys(self, verb: Gather, began: asyncio.Event) -> dict[str, str]:
        """Have the prompt heard, and return what is pressed; nothing: he did not press anything in time."""

        async def prompt() -> None:
            saying, speaks = asyncio.ensure_future(self._all(verb.prompt)), asyncio.ensure_future(began.wait())
            try:
                await asyncio.wait((saying, speaks), return_when=asyncio.FIRST_COMPLETED)
                if saying.done():
                    saying.result()
            finally:
                await asyncio.gather(_ended(saying), _ended(speaks))

        gathered = await self._call.gather(
            min_digits=0,
            max_digits=verb.most,
            terminators=verb.ended_by,
            first_timeout_s=verb.timeout_s,
            inter_timeout_s=verb.timeout_s,
            prompt=prompt,
        )
        if not (gathered.digits or gathered.ok):
            return {}
        return {"Digits": gathered.digits} | ({"FinishedOnKey": gathered.terminator} if gathered.terminator else {})

    async def _said(self, verb: Gather, began: asyncio.Event) -> dict[str, str]:
        for_ever: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        if self._words is None or "speech" not in verb.takes:
            return await for_ever
        try:
            return {"SpeechResult": await self._words.heard(self._call, began), "Confidence": "1.0"}
        except NotCapable as error:
            if "dtmf" in verb.takes:
                self._call.log.warning("bot_hears_no_words", reason=str(error))
                return await for_ever
            raise ProviderFailed("quota", str(error)) from None

    async def _all(self, verbs: Sequence[Verb]) -> None:
        for verb in verbs:
            await self._do(verb)

    async def _connect(self, verb: ConnectStream) -> None:
        stream = self._stream = BotStream(self._call, self._exchange.account, self.sid, verb.url, verb.parameters)
        stream.held = self._held
        try:
            await stream.run(connect_s=self._connect_s)
        finally:
            self._stream = None
            self._call.log.info("bot_stream_over", dropped_ms=stream.dropped_ms, odd_messages=stream.odd_messages)

    async def _dial(self, verb: Dial) -> tuple[Verb, ...] | None:
        """Connect the caller with somebody; return what comes after their talk, or after it was in vain."""
        began_at = asyncio.get_running_loop().time()
        result = await self._connected(verb)
        if not verb.action:
            return None
        told = {"DialCallStatus": _DIALLED.get(result.outcome, "failed")}
        if result.b_leg:
            told["DialCallSid"] = call_sid(result.b_leg)
        if result.ok:
            told["DialCallDuration"] = str(round(asyncio.get_running_loop().time() - began_at))
        return await self._ask(verb.action, verb.method, **told)

    async def _connected(self, verb: Dial) -> TransferResult:
        """Returns when the other side has hung up again, or it is known why it could not be reached."""
        try:
            result = await self._call.transfer(self._destination(verb), timeout_s=verb.timeout_s)
        except (LocalProtocolError, NotCapable) as error:
            self._call.log.warning("bot_dial_refused", reason=str(error))
            return TransferResult("failed")
        if self._call.phase is Phase.BRIDGED:
            await self._call.wait_for(Unbridged)
        return result

    def _destination(self, verb: Dial) -> str | Destination:
        """One of the call's own destinations, by its name, or a number that `allow` lets through."""
        name = verb.target
        if verb.kind == "sip":
            name = name.removeprefix("sips:").removeprefix("sip:").partition("@")[0]
        known = {entry.lower(): entry for entry in self._call.destinations}
        if name.lower() in known:
            return known[name.lower()]
        if verb.kind != "number":
            raise LocalProtocolError("no destination of the configuration has that name")
        return Destination("number", self._exchange.numbers.dial_string(name))


async def _ended(task: "asyncio.Future[Any]") -> None:
    """Cancel it, and wait for its end, whatever that is."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()
