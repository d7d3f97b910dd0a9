"""The parts of a gateway, each made of the sections of the configuration that speak of it."""

import tempfile
from pathlib import Path
from typing import Protocol

import structlog

from dueto.agents.media_streams import Account, Exchange, NumberPolicy
from dueto.agents.messages import KeepMessage, MessageFile
from dueto.app.addresses import parse_address
from dueto.app.redact import redact
from dueto.app.settings import Settings
from dueto.app.timeline import Timelines
from dueto.call import CallRules, Desk, Journal, Mouth
from dueto.call.recorder import Recorder, RecordingRules
from dueto.clock import Clock
from dueto.errors import SettingsError
from dueto.legs.esl_inbound import InboundLink
from dueto.legs.esl_outbound import ControlServer, OutboundOptions
from dueto.legs.unicast import UnicastDoor, UnicastOptions


def spare_mouth() -> Mouth | None:
    """What speaks where no agent brings a voice."""
    from dueto.agents.speech.mouth import SpeechMouth, installed

    return SpeechMouth(installed())


def timelines(settings: Settings) -> Timelines | None:
    """Who keeps a file for each call, where that is wanted. Raises: SettingsError: nothing can be written there."""
    if not settings.records.timelines:
        return None

    def complain(text: str) -> None:
        structlog.get_logger().error("timelines_failed", error=text)

    return Timelines(Path(settings.records.timelines), complain=complain)


def keepers(settings: Settings) -> dict[str, KeepMessage]:
    """Where messages go, by tenant. Two that name the same file share it. Raises: SettingsError: one can't be had."""
    paths = {"": settings.records.messages, **{name: tenant.messages for name, tenant in settings.tenants.items()}}
    files = {path: MessageFile(Path(path)) for path in paths.values() if path}
    for file in files.values():
        file.check()
    return {name: files[path].keep for name, path in paths.items() if path}


class Listening(Protocol):
    """The door for control legs, of either engine."""

    async def start(self, host: str, port: int) -> int: ...
    async def stop_listening(self) -> None: ...
    async def aclose(self) -> None: ...


def control_server(settings: Settings, desk: Desk) -> Listening:
    """Raises: SettingsError: the engine is not installed."""
    control = settings.control
    options = OutboundOptions(control.linger_s, allow=control.networks)
    if control.engine == "native":
        return ControlServer(desk, options)
    try:
        from dueto.legs.greenswitch_engine import GreenswitchServer
    except ImportError as error:
        missing = f"[control] engine: greenswitch needs {error.name}: pip install 'dueto[greenswitch]'"
        raise SettingsError(missing) from None
    return GreenswitchServer(desk, options, event_loop_interval_s=control.event_loop_interval_s)


def exchange(settings: Settings) -> Exchange:
    """The account that bots written for Twilio think they have."""
    twilio = settings.twilio
    keys = {name: secret.get_secret_value() for name, secret in twilio.api_keys.items()}
    account = Account(twilio.account_sid, twilio.auth_token.get_secret_value(), keys)
    return Exchange(account, NumberPolicy(twilio.allow, twilio.dial))


def packet_door(settings: Settings, clock: Clock) -> UnicastDoor | None:
    """Where streams come from on a switch without an audio module, where that is configured."""
    media = settings.media
    if media.dialect != "unicast":
        return None
    options = UnicastOptions(
        switch_address=media.unicast_switch_address,
        bind_address=media.unicast_bind_address,
        announce_address=media.unicast_announce_address,
        ports=media.unicast_range,
        idle_silence=media.unicast_idle == "silence",
    )
    return UnicastDoor(options, clock=clock)


def switch_link(settings: Settings, journal: Journal) -> InboundLink | None:
    """The switch's own event socket, where one is configured."""
    if not settings.switch.address:
        return None
    address = parse_address(settings.switch.address)
    return InboundLink(
        address.host,
        address.port,
        settings.switch.password.get_secret_value(),
        user=settings.switch.user,
        journal=lambda event, fields: journal("", event, fields),
    )


def recorder(settings: Settings) -> Recorder | None:
    """Who keeps recordings. Raises: SettingsError: nothing can be written there."""
    recording = settings.recording
    if not recording.directory:
        return None
    directory = Path(recording.directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise SettingsError(
            f"[recording] directory: nothing can be written to {directory} ({error.strerror})"
        ) from None
    return Recorder(
        RecordingRules(directory, recording.format, recording.calls, recording.numbers, recording.announce, redact)
    )


def call_rules(settings: Settings) -> CallRules:
    """What holds for every call."""
    media, correlation = settings.media, settings.correlation
    return CallRules(
        control_expected=correlation.control == "expected",
        warn_after_s=correlation.warn_after_s,
        give_up_after_s=correlation.give_up_after_s,
        on_missing_media=correlation.on_missing_media,
        while_waiting=correlation.while_waiting,
        hangup_grace_s=settings.call.hangup_grace_ms / 1000,
        closing_s=settings.agent.closing_s,
        when_done=settings.agent.when_done,
        when_failed=settings.agent.when_failed,
        max_lag_ms=media.max_lag_ms,
        rate_hz=media.rate_hz,
        stream_start="gateway" if media.dialect == "unicast" else media.start,
        public_url=media.public_url,
        token_required=media.token == "required",
        secret=media.secret.get_secret_value(),
        max_calls=settings.control.max_calls,
    )
