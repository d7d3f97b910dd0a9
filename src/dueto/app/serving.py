"""What a configuration must have before a gateway may open its doors with it."""

import importlib.util
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from dueto.app.addresses import Address, parse_address
from dueto.errors import LocalProtocolError, SettingsError
from dueto.wire.media.request import StreamPath

if TYPE_CHECKING:
    from dueto.app.settings import Settings

MIN_SECRET_CHARACTERS = 16
MAKE_A_SECRET = 'python3 -c "import secrets; print(secrets.token_hex(16))"'


def check_for_serving(settings: "Settings", *, agent_given: bool = False) -> None:
    """Return if a gateway may serve with `settings`. With `agent_given`, `agent.use` is not asked.

    Raises: SettingsError: one line per problem, each with a way out.
    """
    checks = (_doors, _token, _media, _engine, _twilio, _recording)
    problems = [problem for check in checks for problem in check(settings)]
    if not agent_given:
        problems += _agent(settings)
    if problems:
        raise SettingsError("\n".join(problems))


def _doors(settings: "Settings") -> Iterator[str]:
    taken: dict[int, tuple[str, Address]] = {}
    for key, address in (
        ("[control] listen", settings.control.listen_address),
        ("[media] listen", settings.media.listen_address),
        ("[metrics] listen", settings.metrics.listen_address),
        ("[twilio] listen", settings.twilio.listen_address),
    ):
        if address is None or address.port == 0:
            continue
        other_key, other = taken.setdefault(address.port, (key, address))
        if other_key != key and (other.host == address.host or other.is_wildcard or address.is_wildcard):
            yield f"{key}: port {address.port} is that of {other_key} already; choose another"
    address_text, password = settings.switch.address, settings.switch.password.get_secret_value()
    if address_text and not password:
        yield "[switch] password: missing; it stands in the switch's event_socket.conf.xml"
    if address_text and password == "ClueCon" and not parse_address(address_text).is_loopback:
        yield "[switch] password: everybody knows ClueCon; change it in the switch's event_socket.conf.xml and here"


def _token(settings: "Settings") -> Iterator[str]:
    media = settings.media
    if media.dialect == "unicast":
        return  # nobody dials us for a stream
    if media.token == "off":
        if not media.listen_address.is_loopback:
            yield f'[media] token: "off" is for loopback only, not for {media.listen}; set it to "required"'
        return
    secret = media.secret.get_secret_value()
    if media.start == "gateway" and not secret:
        return  # its tokens are random, made for one call each
    if not secret:
        yield f"[media] secret: missing, and the token is made from it; make one with: {MAKE_A_SECRET}"
    elif len(secret) < MIN_SECRET_CHARACTERS:
        yield f"[media] secret: shorter than {MIN_SECRET_CHARACTERS} characters; make one with: {MAKE_A_SECRET}"


def _media(settings: "Settings") -> Iterator[str]:
    media, control = settings.media, settings.correlation.control
    if media.dialect == "unicast":
        yield from _unicast(settings)
        return
    try:
        StreamPath(media.path)
    except LocalProtocolError:
        yield f'[media] path: "{media.path}" needs {{uuid}}, once: without it no stream finds its call'
    if media.start == "gateway" and not media.public_url:
        yield '[media] public_url: missing; with start = "gateway" the switch is told to dial it ("ws://HOST:8085")'
    if media.start == "gateway" and control == "none":
        yield '[media] start: "gateway" needs the control leg; with [correlation] control = "none" write "dialplan"'
    if media.dialect in ("audio_stream", "audio_fork") and control == "none" and not settings.switch.address:
        yield (
            f'[media] dialect: "{media.dialect}" speaks through the control leg, and there is none; '
            f'write "{media.dialect}-binary" (a build that plays what it receives)'
        )


def _recording(settings: "Settings") -> Iterator[str]:
    recording = settings.recording
    if recording.calls != "none" and not recording.directory:
        yield "[recording] directory: missing; it says where the recordings go"
    if recording.calls == "matching" and not recording.numbers:
        yield '[recording] numbers: missing; with calls = "matching" they say which calls'
    timelines = settings.records.timelines
    if timelines and recording.directory and Path(timelines).resolve() == Path(recording.directory).resolve():
        yield "[records] timelines: the folder of [recording] directory, where files have the same names; write another"
    if recording.format != "wav" and importlib.util.find_spec("soundfile") is None:
        yield f"[recording] format: {recording.format} needs soundfile: pip install 'dueto[recording]'"


def _unicast(settings: "Settings") -> Iterator[str]:
    media, control = settings.media, settings.control
    if settings.correlation.control == "none":
        yield (
            '[media] dialect: "unicast" is started over the control leg; with [correlation] control = "none" '
            "there is none, and an audio module is needed"
        )
    if media.start == "dialplan" and "start" in media.model_fields_set:
        yield '[media] start: no dialplan can start "unicast"; write "gateway", or leave it out'
    if settings.correlation.while_waiting != "silence":
        yield (
            '[correlation] while_waiting: a tone of the switch ends "unicast", which is there within 40 ms; '
            'write "silence"'
        )
    if control.listen_address.is_wildcard and not control.public_address:
        yield (
            '[control] public_address: missing; with "unicast" the switch is told to dial it again after each bridge '
            '("HOST:8022")'
        )
    switch, ours = IPv4Address(media.unicast_switch_address), IPv4Address(media.unicast_bind_address)
    if ours.is_loopback != switch.is_loopback and not media.unicast_announce_address:
        yield (
            f"[media] unicast_bind_address: {switch} and {ours} can't send to each other; write this machine's "
            "address in the switch's network (and the switch's own as unicast_switch_address)"
        )
    first, last = media.unicast_range
    calls = (last - first + 1) // (2 if switch == ours else 1)
    if calls < control.max_calls:
        yield (
            f"[media] unicast_ports: {first} to {last} is enough for {calls} calls, and [control] max_calls is "
            f"{control.max_calls}; widen the range, or lower that"
        )


def _engine(settings: "Settings") -> Iterator[str]:
    if settings.control.engine != "greenswitch":
        return
    if importlib.util.find_spec("dueto.legs.greenswitch_engine") is None:
        yield '[control] engine: "greenswitch" is not in this version yet; write "native"'
    elif importlib.util.find_spec("greenswitch") is None:
        yield "[control] engine: greenswitch is not installed; pip install 'dueto[greenswitch]'"


def _twilio(settings: "Settings") -> Iterator[str]:
    twilio = settings.twilio
    token = twilio.auth_token.get_secret_value()
    if token and len(token) < MIN_SECRET_CHARACTERS:
        yield f"[twilio] auth_token: shorter than {MIN_SECRET_CHARACTERS} characters; make one with: {MAKE_A_SECRET}"
    if twilio.allow and not twilio.dial:
        yield '[twilio] dial: missing, and allow is for it; "sofia/gateway/NAME/{number}"'


def _agent(settings: "Settings") -> Iterator[str]:
    pairs = [(settings.agent.use, ""), *((route.agent or settings.agent.use, route.tenant) for route in settings.route)]
    for use, tenant in dict.fromkeys(pairs):
        profile = settings.agents.get(use)
        if (use if profile is None else profile.use) == "receptionist" and not settings.destinations_of(tenant):
            whose = f" of tenant {tenant}" if tenant else ""
            yield (
                f'[agent] use: "{use}" has nobody to transfer the callers{whose} to; '
                'add [destinations.NAME] with dial = "user/1001"'
            )
