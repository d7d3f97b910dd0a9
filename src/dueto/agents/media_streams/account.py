"""What a bot takes for its Twilio account: the ids of calls, the signature of what reaches it, and the live calls."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dueto.agents.media_streams.verbs import Verb
from dueto.errors import LocalProtocolError

API_VERSION = "2010-04-01"
NO_ACCOUNT = "AC" + "0" * 32
MOST_OVER = 1000


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are to a bot."""

    sid: str = NO_ACCOUNT
    "`AC` and 32 hex digits."
    token: str = field(default="", repr=False)
    "The auth token: signs what we send, and is the password of what a bot asks; empty: neither."
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    "API keys, `SK` and 32 hex digits, and their secrets: what a bot may ask with as well."

    def sign(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the header that proves a request of ours, for those who check it; none without a token.

        HMAC-SHA1 of the URL and of the form's names and values in the order of the names (Twilio: "Webhook security").
        """
        if not self.token:
            return {}
        text = url + "".join(name + value for name, value in sorted((form or {}).items()))
        digest = hmac.digest(self.token.encode(), text.encode(), hashlib.sha1)
        return {"X-Twilio-Signature": base64.b64encode(digest).decode()}

    def admits(self, user: str, password: str) -> bool:
        """Whether these are this account's credentials. Takes the same time whatever is wrong with them."""
        good = False
        for known, secret in ((self.sid, self.token), *self.keys.items()):
            good_user = hmac.compare_digest(user.encode(), known.encode())
            good_password = hmac.compare_digest(password.encode(), secret.encode())
            good = good or (good_user and good_password and bool(secret))
        return good


def call_sid(unique_id: str) -> str:
    """Return the `CallSid` of a channel: `CA` and its Unique-ID without the dashes, where that is a UUID."""
    digits = unique_id.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        digits = hashlib.md5(unique_id.encode(), usedforsecurity=False).hexdigest()
    return f"CA{digits}"


@dataclass(frozen=True, slots=True)
class NumberPolicy:
    """Which numbers a bot may have dialled, and how: nothing by default."""

    allow: tuple[str, ...] = ()
    "Patterns: digits, `+`, and `*` for any digits: `+4930*`."
    dial: str = ""
    "The dial string of a number: `sofia/gateway/trunk/{number}`."

    def dial_string(self, number: str) -> str:
        """Return how `number` is dialled. Raises: LocalProtocolError: it is no number, or not one of these."""
        number = re.sub(r"[ ().-]", "", number)
        if not re.fullmatch(r"\+?[0-9]{1,32}", number):
            raise LocalProtocolError("that is neither a destination of the configuration nor a number")
        if not self.dial or not any(_matches(pattern, number) for pattern in self.allow):
            raise LocalProtocolError("no `allow` of the configuration lets a bot dial that number")
        return self.dial.replace("{number}", number)


def _matches(pattern: str, number: str) -> bool:
    return re.fullmatch("[0-9]*".join(re.escape(part) for part in pattern.split("*")), number) is not None


class LiveCall(Protocol):
    """A call that a bot has, as the REST side sees it."""

    def form(self) -> dict[str, str]:
        """What Twilio tells of a call: `CallSid`, `From`, `To`, `CallStatus`, ..."""
        ...

    def end(self) -> None:
        """Hang up; at once, without waiting for it."""
        ...

    def redirect(self, program: tuple[Verb, ...]) -> None:
        """Take it from the bot, and carry out these. Raises: LocalProtocolError: one of them is not possible here."""
        ...


class OverCall:
    """A call that is over, as the REST side remembers it."""

    def __init__(self, form: Mapping[str, str]) -> None:
        self._form = dict(form)

    def form(self) -> dict[str, str]:
        """What Twilio tells of a call."""
        return self._form

    def end(self) -> None:
        """It has ended."""

    def redirect(self, program: tuple[Verb, ...]) -> None:
        """Raises: LocalProtocolError."""
        raise LocalProtocolError("Call is not in-progress. Cannot redirect.")


class Exchange:
    """The account, and the calls that its bots have right now, by `CallSid`. One per gateway.

    The last `MOST_OVER` calls that are over are remembered: a bot may ask what became of them.
    """

    def __init__(self, account: Account | None = None, numbers: NumberPolicy | None = None) -> None:
        self.account = account or Account()
        self.numbers = numbers or NumberPolicy()
        self._calls: dict[str, LiveCall] = {}
        self._over: dict[str, OverCall] = {}

    def enter(self, sid: str, call: LiveCall) -> None:
        """A bot has this call from now on."""
        self._calls[sid] = call

    def leave(self, sid: str, call: LiveCall) -> None:
        """It has it no more; of one that was entered anew since, nothing happens."""
        if self._calls.get(sid) is call:
            del self._calls[sid]

    def over(self, form: Mapping[str, str]) -> None:
        """That call is over: this is what it was."""
        self._over.pop(form["CallSid"], None)
        self._over[form["CallSid"]] = OverCall(form)
        while len(self._over) > MOST_OVER:
            del self._over[next(iter(self._over))]

    def find(self, sid: str) -> LiveCall | None:
        """Return the call of that id, or what is remembered of it; None: there is none."""
        return self._calls.get(sid) or self._over.get(sid)

    def __len__(self) -> int:
        return len(self._calls)
