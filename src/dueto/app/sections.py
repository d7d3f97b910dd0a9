"""The sections of a configuration: names, defaults, limits. What each key is for: `docs/configuration.md`."""

import re
from ipaddress import IPv4Address
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from dueto.agents.failover import WhenFull
from dueto.agents.media_streams.account import NO_ACCOUNT
from dueto.agents.profiles import Seconds, Whole
from dueto.app.addresses import Address, Network, parse_address, parse_network
from dueto.call.hours import Hours
from dueto.errors import LocalProtocolError

RATES_HZ = (8000, 16000, 24000, 32000, 48000)


def _whole_path(what: str, example: str) -> AfterValidator:
    def check(text: str) -> str:
        if text and (not text.isprintable() or not text.startswith("/")):
            raise ValueError(f'expected the whole path of {what}, such as "/var/lib/dueto/{example}"')
        return text

    return AfterValidator(check)


Listen = Annotated[str, AfterValidator(lambda text: str(parse_address(text)))]
ListenOrNot = Annotated[str, AfterValidator(lambda text: str(parse_address(text)) if text else "")]
"Empty: nowhere."
WholeFile = Annotated[str, _whole_path("a file", "messages.jsonl")]
WholeFolder = Annotated[str, _whole_path("a folder", "calls")]
"It does not depend on where we were started. Empty: none."


class Section(BaseModel):
    """What all sections share: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class ControlSettings(Section):
    """The Event Socket server that the switch dials."""

    listen: Listen = "127.0.0.1:8022"
    public_address: str = ""
    engine: Literal["native", "greenswitch"] = "native"
    linger_s: Annotated[Whole, Field(ge=1, le=3600)] = 10
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_calls: Annotated[Whole, Field(ge=1, le=100_000)] = 1000
    event_loop_interval_s: Annotated[Seconds, Field(gt=0)] = 0.1

    @field_validator("public_address")
    @classmethod
    def _check_public_address(cls, text: str) -> str:
        for part in filter(None, text.split("|")):
            if parse_address(part, default_port=8022).is_wildcard:
                raise ValueError("expected an address that the switch can connect to")
        return text

    @field_validator("allow")
    @classmethod
    def _check_allow(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        if not networks:
            raise ValueError("expected at least one network; nobody could connect")
        return tuple(str(parse_network(text)) for text in networks)

    @property
    def listen_address(self) -> Address:
        """Where to listen."""
        return parse_address(self.listen)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Who may connect."""
        return tuple(parse_network(text) for text in self.allow)


class MediaSettings(Section):
    """The WebSocket server that the audio module dials."""

    listen: Listen = "127.0.0.1:8085"
    public_url: str = ""
    dialect: Literal[
        "auto",
        "audio_stream",
        "audio_stream-binary",
        "audio_stream-base64",
        "audio_fork",
        "audio_fork-binary",
        "unicast",
    ] = "auto"
    start: Literal["dialplan", "gateway"] = "dialplan"
    token: Literal["required", "off"] = "required"
    secret: SecretStr = SecretStr("")
    path: str = "/stream/{secretary}/{uuid}/{caller}"
    rate_hz: Whole = 16000
    max_lag_ms: Annotated[Whole, Field(ge=20, le=60_000)] = 400
    unicast_switch_address: str = "127.0.0.1"
    unicast_bind_address: str = "127.0.0.1"
    unicast_announce_address: str = ""
    unicast_ports: str = "10000-15999"
    unicast_idle: Literal["silence", "nothing"] = "silence"

    @field_validator("unicast_switch_address", "unicast_bind_address", "unicast_announce_address")
    @classmethod
    def _check_unicast_address(cls, text: str, info: ValidationInfo) -> str:
        if not text and info.field_name == "unicast_announce_address":
            return text
        try:
            address = IPv4Address(text)
        except ValueError:
            raise ValueError(
                'expected an IPv4 address such as "192.0.2.20": unicast knows no IPv6, and no names'
            ) from None
        if address.is_unspecified:
            raise ValueError("expected one address of one machine, not all of them: UDP is heard from whoever sends it")
        return text

    @field_validator("unicast_ports")
    @classmethod
    def _check_unicast_ports(cls, text: str) -> str:
        found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text)
        if not found or not 1024 <= int(found[1]) < int(found[2]) <= 65535:
            raise ValueError('expected "FIRST-LAST", such as "10000-15999", from 1024 to 65535')
        return text

    @property
    def unicast_range(self) -> tuple[int, int]:
        """The first and the last port of `unicast_ports`."""
        first, _, last = self.unicast_ports.partition("-")
        return int(first), int(last)

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, text: str) -> str:
        # No more than the audio module's own URL check takes: no IPv6, no user.
        if text and not re.fullmatch(r"wss?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?", text):
            raise ValueError('expected "ws://HOST:PORT" or "wss://HOST", without a query')
        return text.rstrip("/")

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr) -> SecretStr:
        # It is written into the switch's vars.xml and from there into an expression.
        if not re.fullmatch(r"[A-Za-z0-9._~-]{0,128}", secret.get_secret_value()):
            raise ValueError("expected up to 128 letters, digits and . _ ~ - only")
        return secret

    @field_validator("path")
    @classmethod
    def _check_path(cls, text: str) -> str:
        for part in text.split("/")[1:]:
            if part.startswith("{") and part not in ("{secretary}", "{uuid}", "{caller}"):
                raise ValueError(f"expected {{secretary}}, {{uuid}} or {{caller}} as a whole part, not {part}")
        if not re.fullmatch(r"(/(\{[a-z]+\}|[A-Za-z0-9._~-]+))+", text) or len(text) > 200:
            raise ValueError('expected a path such as "/stream/{secretary}/{uuid}/{caller}"')
        return text

    @field_validator("rate_hz")
    @classmethod
    def _check_rate(cls, rate_hz: int) -> int:
        if rate_hz not in RATES_HZ:
            raise ValueError(f"expected one of {', '.join(map(str, RATES_HZ))}")
        return rate_hz

    @property
    def listen_address(self) -> Address:
        """Where to listen."""
        return parse_address(self.listen)


class CorrelationSettings(Section):
    """How the two legs find each other."""

    warn_after_s: Seconds = 5.0
    give_up_after_s: Seconds = 30.0
    on_missing_media: Literal["return_to_dialplan", "hangup"] = "return_to_dialplan"
    while_waiting: str = "silence"
    control: Literal["expected", "none"] = "expected"

    @field_validator("while_waiting")
    @classmethod
    def _check_while_waiting(cls, text: str) -> str:
        if text != "silence" and not (text.startswith("tone_stream://") and text.isprintable() and "$" not in text):
            raise ValueError('expected "silence" or "tone_stream://..."')
        return text


class CallSettings(Section):
    """How a call ends."""

    hangup_grace_ms: Annotated[Whole, Field(ge=0, le=10_000)] = 250
    drain_s: Seconds = 60.0


class AgentSettings(Section):
    """Who talks to the caller."""

    use: str = "receptionist"
    closing_s: Seconds = 5.0
    when_done: Literal["hangup", "return_to_dialplan"] = "hangup"
    when_failed: str = "return_to_dialplan"
    when_full: WhenFull = "return_to_dialplan"


def _as_patterns(value: object) -> object:
    return (value,) if isinstance(value, str) else value


PatternList = Annotated[tuple[str, ...], BeforeValidator(_as_patterns)]
"One text, or several: any of them."


class RouteSettings(Section):
    """Who takes which calls: `[[route]]`, the first that matches. What it does not speak of may be anything."""

    dialled: PatternList = ()
    caller: PatternList = ()
    domain: PatternList = ()
    secretary: PatternList = ()
    variables: dict[str, PatternList] = {}
    agent: str = ""
    tenant: str = ""

    @field_validator("variables")
    @classmethod
    def _check_variables(cls, variables: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in variables:
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name):
                raise ValueError(f'expected names of channel variables, not "{ascii(name)[1:-1]}"')
        return variables


class TenantSettings(Section):
    """Whose calls those of a route are: `[tenants.NAME]`."""

    destinations: tuple[str, ...] = ()
    max_calls: Annotated[Whole, Field(ge=0)] = 0
    when_failed: str = ""
    when_full: WhenFull = "return_to_dialplan"
    messages: WholeFile = ""


class DestinationSettings(Section):
    """Somebody to transfer to: `[destinations.NAME]`."""

    dial: str
    words: tuple[str, ...] = ()
    digit: str = ""
    when: str = ""
    fallback: str = ""
    mode: Literal["blind", "announced", "attended"] = "blind"
    after: Literal["agent", "hangup"] = "agent"
    via: Literal["bridge", "transfer", "refer"] = "bridge"

    @field_validator("when")
    @classmethod
    def _check_when(cls, text: str) -> str:
        try:
            if text:
                Hours.parse(text)
        except LocalProtocolError as error:
            raise ValueError(str(error).partition(", not ")[0]) from None
        return text

    @field_validator("dial")
    @classmethod
    def _check_dial(cls, text: str) -> str:
        # It becomes the argument of `bridge`, and one word of an api line. A line break would begin a header, a space
        # outside of quotes a further argument, and `$` pulls in variables, some of which the caller chose. The dial
        # string's own `,` `|` `{}` `[]` `;` stay the configuration's to use.
        if not text or not text.isprintable():
            raise ValueError('expected a dial string such as "user/1001", without control characters')
        if re.search(r"[$`\"\\]", text) or text.count("'") % 2:
            raise ValueError('expected a dial string without $ ` " \\ and with single quotes in pairs')
        if " " in re.sub(r"'[^']*'", "", text):
            raise ValueError("expected a dial string with spaces only between single quotes")
        return text

    @field_validator("words")
    @classmethod
    def _check_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[^\W\d_]+(?:['’ -][^\W\d_]+)*", word) for word in words):
            raise ValueError("expected words as they are spoken: letters only, and single spaces between them")
        return tuple(word.lower() for word in words)

    @field_validator("digit")
    @classmethod
    def _check_digit(cls, text: str) -> str:
        if not re.fullmatch(r"[0-9*#A-D]?", text):
            raise ValueError('expected one key: "0" to "9", "*" or "#"')
        return text


class SwitchSettings(Section):
    """The switch's own event socket, where we are the client."""

    address: str = ""
    password: SecretStr = SecretStr("")
    user: str = ""

    @field_validator("user")
    @classmethod
    def _check_user(cls, text: str) -> str:
        if not re.fullmatch(r"([A-Za-z0-9._-]{1,64}@[A-Za-z0-9.-]{1,128})?", text):
            raise ValueError('expected "NAME@DOMAIN", or nothing for the socket\'s own password')
        return text

    @field_validator("address")
    @classmethod
    def _check_address(cls, text: str) -> str:
        return str(parse_address(text, default_port=8021)) if text else ""

    @field_validator("password")
    @classmethod
    def _check_password(cls, password: SecretStr) -> SecretStr:
        if not password.get_secret_value().isprintable():
            raise ValueError("expected no line breaks or control characters")
        return password


class RecordsSettings(Section):
    """What is kept of calls, besides the log."""

    messages: WholeFile = ""
    timelines: WholeFolder = ""


class TwilioSettings(Section):
    """The account that bots written for Twilio think they have."""

    account_sid: str = NO_ACCOUNT
    auth_token: SecretStr = SecretStr("")
    api_keys: dict[str, SecretStr] = {}
    listen: ListenOrNot = "127.0.0.1:8090"
    allow: tuple[str, ...] = ()
    dial: str = ""

    @field_validator("account_sid")
    @classmethod
    def _check_account_sid(cls, text: str) -> str:
        if not re.fullmatch(r"AC[0-9a-f]{32}", text):
            raise ValueError('expected "AC" and 32 of 0-9 a-f')
        return text

    @field_validator("allow")
    @classmethod
    def _check_allow(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"\+?[0-9*]{1,32}", pattern) for pattern in patterns):
            raise ValueError('expected numbers such as "+4930*": digits, a + before them, * for any digits')
        return patterns

    @field_validator("dial")
    @classmethod
    def _check_dial(cls, text: str) -> str:
        if text and (text.count("{number}") != 1 or not re.fullmatch(r"[!#%&(-\[\]-_a-~]+", text)):
            raise ValueError('expected a dial string such as "sofia/gateway/trunk/{number}"')
        return text

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in keys.items():
            if not re.fullmatch(r"SK[0-9a-f]{32}", name):
                raise ValueError('expected "SK" and 32 of 0-9 a-f, and the secret of each')
            if len(secret.get_secret_value()) < 16:
                raise ValueError(f"the secret of {name} is shorter than 16 characters")
        return keys

    @property
    def listen_address(self) -> Address | None:
        """Where to listen; None: nowhere. Without a token nobody could ask anything."""
        return parse_address(self.listen) if self.listen and self.auth_token.get_secret_value() else None


class RecordingSettings(Section):
    """Recordings of calls, by the gateway."""

    directory: WholeFolder = ""
    format: Literal["wav", "flac", "opus"] = "wav"
    calls: Literal["none", "all", "matching"] = "none"
    numbers: tuple[str, ...] = ()
    announce: str = ""

    @field_validator("numbers")
    @classmethod
    def _check_numbers(cls, numbers: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[A-Za-z0-9+*._-]{1,64}", pattern) for pattern in numbers):
            raise ValueError('expected numbers, or patterns of them such as "5511*"')
        return numbers


class LogsSettings(Section):
    """Log lines."""

    format: Literal["json", "console"] = "json"


class MetricsSettings(Section):
    """The listener for Prometheus, `/healthz` and `/readyz`."""

    listen: ListenOrNot = "127.0.0.1:9108"

    @property
    def listen_address(self) -> Address | None:
        """Where to listen; None: nowhere."""
        return parse_address(self.listen) if self.listen else None
