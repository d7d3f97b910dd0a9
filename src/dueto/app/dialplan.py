"""What `dueto dialplan` prints: how the switch hands a call to this gateway, safe when the gateway is away.

Facts about the switch: `socket HOST:PORT` returns when nobody listens, and the dialplan goes on; it also goes on when
the gateway gives the call back. A stream survives both, so the fall-back stops it first.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from dueto.app.addresses import Address, parse_address
from dueto.app.settings import Settings
from dueto.errors import SettingsError
from dueto.wire.media import AUDIO_STREAM_BASE64, DIALECTS, Dialect

SECRET_VARIABLE = "dueto_secret"
LONGEST_MEDIA_ONLY_S = 3600
_CHECK_MS = 1500  # the audio module gives a connection 1 s
_AGAIN_MS = 2000
_SORRY = "ivr/ivr-call_cannot_be_completed_as_dialed.wav"
_REORDER_TONE = "tone_stream://%(500,500,480,620);loops=6"
_TALKING = "dueto_talking"

Tag = Literal["action", "anti-action"]


@dataclass(frozen=True, slots=True)
class _Line:
    """One action of an extension."""

    application: str
    data: str
    why: str = ""
    "For the XML comment in front of it; empty: the line goes with the one before."
    tag: Tag = "action"


@dataclass(frozen=True, slots=True)
class _Extension:
    name: str
    conditions: tuple[tuple[str, str], ...]
    "Field and expression; each is looked at only if those before it were met, and the lines belong to the last."
    lines: tuple[_Line, ...]


def dialplan_xml(settings: Settings, *, media_only: bool, number: str = "5000", secretary: str = "default") -> str:
    """Return the dialplan's XML: callers of `number` reach the gateway. `secretary` is the URL's routing key.

    Raises: SettingsError: an address is missing that the switch could dial.
    """
    out = ["<include>"]
    for extension in _extensions(settings, media_only, number, secretary, f"$${{{SECRET_VARIABLE}}}"):
        out.append(f"  <extension name={quoteattr(extension.name)}>")
        *guards, last = [f"field={quoteattr(f)} expression={quoteattr(e)}" for f, e in extension.conditions]
        out += [f"    <condition {guard}/>" for guard in guards]
        out.append(f"    <condition {last}>")
        for line in extension.lines:
            if line.why:
                out.append(f"      <!-- {escape(line.why)} -->")
            data = f" data={quoteattr(line.data)}" if line.data else ""
            out.append(f"      <{line.tag} application={quoteattr(line.application)}{data}/>")
        out += ["    </condition>", "  </extension>"]
    return "\n".join([*out, "</include>", ""])


def fusionpbx_rows(settings: Settings, *, media_only: bool, number: str = "5000", secretary: str = "default") -> str:
    """Return the same as rows to type into FusionPBX (Dialplan Manager), one table per dialplan entry.

    FusionPBX hands its dialplan to the switch at call time, where `$${...}` is no longer filled in: the secret is read
    with `global_getvar`.

    Raises: SettingsError: an address is missing that the switch could dial.
    """
    tables = []
    secret = f"${{global_getvar({SECRET_VARIABLE})}}"
    for extension in _extensions(settings, media_only, number, secretary, secret):
        rows: list[tuple[str, ...]] = [("Tag", "Type", "Data", "Break", "Inline", "Group", "Order")]
        entries = [("condition", field, expression) for field, expression in extension.conditions]
        entries += [(line.tag, line.application, line.data) for line in extension.lines]
        rows += [(*entry, "", "", "0", str(order * 10)) for order, entry in enumerate(entries, start=1)]
        tables.append(f"Dialplan entry {extension.name}\n\n{_table(rows)}\n")
    return "\n".join(tables)


def vars_xml_line(settings: Settings, *, show_secret: bool = False) -> str:
    """Return the line for the switch's `vars.xml` that holds the secret; a place-holder stands for it unless asked."""
    secret = settings.media.secret.get_secret_value() if show_secret else ""
    value = secret or "PUT-THE-VALUE-OF-media.secret-HERE"
    return f'<X-PRE-PROCESS cmd="set" data="{SECRET_VARIABLE}={value}"/>'


LUA_HOOK_XML = '<hook event="CUSTOM" subclass="{module}::disconnect" script="dueto_hangup.lua"/>'
"For `lua.conf.xml`: what ends a media-only call when the gateway closes its stream."
LUA_SCRIPT = """\
-- dueto_hangup.lua: the gateway has closed the stream of a media-only call, so the conversation is over.
if event:getHeader("variable_dueto_mode") == "media_only" then
    freeswitch.API():executeString("uuid_kill " .. event:getHeader("Unique-ID") .. " NORMAL_CLEARING")
end
"""


def dialplan_guide(settings: Settings, *, media_only: bool, show_secret: bool = False) -> str:
    """Return everything an operator needs on one page: variable, XML, FusionPBX rows, and the hook where one is needed.

    Raises: SettingsError: an address is missing that the switch could dial.
    """
    parts = []
    step = map("# {}.".format, itertools.count(1))
    if _wants_token(settings, media_only):
        note = "" if show_secret else " (the value: media.secret of this configuration; --show-secret prints it)"
        parts += [
            f"{next(step)} vars.xml{note}; in FusionPBX: Advanced > Variables, name {SECRET_VARIABLE}. Then reloadxml.",
            vars_xml_line(settings, show_secret=show_secret) + "\n",
        ]
    parts += [
        f"{next(step)} FreeSWITCH: dialplan/default/00_dueto.xml, then reloadxml.",
        dialplan_xml(settings, media_only=media_only),
        "# or FusionPBX: Dialplan > Dialplan Manager > add, one entry per table.",
        fusionpbx_rows(settings, media_only=media_only),
    ]
    if media_only:
        parts += [
            f"{next(step)} So that the call ends when the agent is done: this in autoload_configs/lua.conf.xml ...",
            LUA_HOOK_XML.format(module=_dialect(settings).module) + "\n",
            "# ... and this script in the switch's script folder.",
            LUA_SCRIPT,
        ]
    return "\n".join(parts)


def _extensions(
    settings: Settings, media_only: bool, number: str, secretary: str, secret: str
) -> tuple[_Extension, ...]:
    if not re.fullmatch(r"[A-Za-z0-9*#+_-]{1,32}", number):
        raise SettingsError(f"the number that callers dial: expected digits, not {number!a}")
    if not re.fullmatch(r"[A-Za-z0-9._~-]{1,64}", secretary):
        raise SettingsError(f"the routing key: expected letters, digits and . _ ~ -, not {secretary!a}")
    if media_only and settings.media.dialect == "unicast":
        raise SettingsError('[media] dialect: "unicast" is started over the control leg: there is no call without one')
    dialled = ("destination_number", f"^{re.escape(number)}$")
    if not media_only:
        return (_Extension("dueto", (dialled,), (*_dual(settings, secretary, secret), *_fallback(settings))),)
    # Conditions are looked at before any action runs. So the call is transferred to an extension whose condition asks
    # the audio module: `resume` does nothing to a stream that is attached, and fails where there is none.
    asked = (f"${{{_dialect(settings).command}(${{uuid}} resume)}}", "^\\+OK")
    return (
        _Extension("dueto", (dialled,), tuple(_media_only(settings, secretary, secret))),
        _Extension(_TALKING, (("destination_number", f"^{_TALKING}$"), asked), tuple(_while_talking(settings))),
    )


def _dual(settings: Settings, secretary: str, secret: str) -> Iterator[_Line]:
    if settings.media.dialect == "unicast":
        yield from _unicast(secretary)
    else:
        yield from _playing(settings)
        if settings.media.start == "dialplan":
            yield from _start_stream(settings, secretary, secret)
    yield _Line("answer", "")
    yield _Line(
        "socket",
        f"{_switch_dials(settings)} async full",
        "The control leg: the gateway has the call from here on. With nobody there the next line runs.",
    )


def _unicast(secretary: str) -> Iterator[_Line]:
    if secretary != "default":
        yield _Line("set", f"dueto_secretary={secretary}", "The routing key: no URL carries it here.")
    yield _Line(
        "unset",
        "send_silence_when_idle",
        "No module, no stream to start: the gateway asks for the audio itself. That variable would add a packet of "
        "silence to each of its own.",
    )


def _media_only(settings: Settings, secretary: str, secret: str) -> Iterator[_Line]:
    yield from _playing(settings)
    yield from _start_stream(settings, secretary, secret)
    yield _Line("set", "dueto_mode=media_only", "Tells the Lua hook whose stream it is.")
    yield _Line("answer", "")
    yield _Line("sched_hangup", f"+{LONGEST_MEDIA_ONLY_S} ALLOTTED_TIMEOUT", "No call lasts for ever.")
    yield _Line("sleep", str(_CHECK_MS), "The audio module connects within a second, or not at all.")
    yield _Line("transfer", _TALKING)


def _while_talking(settings: Settings) -> Iterator[_Line]:
    yield _Line("sleep", str(_AGAIN_MS), "The stream is there: the caller talks with the agent. Look again soon.")
    yield _Line("transfer", _TALKING)
    yield _Line("sched_cancel", "${uuid}", tag="anti-action")
    for line in _fallback(settings):
        yield _Line(line.application, line.data, line.why, "anti-action")


def _playing(settings: Settings) -> Iterator[_Line]:
    auto = settings.media.dialect == "auto"
    why = "For a build that plays what the gateway sends; others don't mind." if auto else "So that this build plays."
    for name, value in _dialect(settings).variables(settings.media.rate_hz):
        yield _Line("set", f"{name}={value}", why)
        why = ""


def _dialect(settings: Settings) -> Dialect:
    """How streams are started. For `auto`, as is right for every build of mod_audio_stream that takes base64."""
    return DIALECTS.get(settings.media.dialect, AUDIO_STREAM_BASE64)


def _start_stream(settings: Settings, secretary: str, secret: str) -> Iterator[_Line]:
    media = settings.media
    path = media.path.format(secretary=secretary, uuid="${uuid}", caller="${caller_id_number}")
    url = f"{_stream_base(settings)}{path}?rate={media.rate_hz}&mix=mono"
    if media.token == "required":
        url += f"&token=${{md5({secret}:${{uuid}}:{secret})}}"
    dialect = _dialect(settings)
    rate = {8000: "8k", 16000: "16k"}.get(media.rate_hz, str(media.rate_hz))
    yield _Line(
        "set",
        f"api_on_answer={dialect.command} {dialect.start('${uuid}', url, 'mono', media.rate_hz, rate=rate)}",
        "The media leg: it starts with the answer."
        + (" The token is this call's." if media.token == "required" else ""),
    )


def _fallback(settings: Settings) -> Iterator[_Line]:
    yield _Line(
        "set",
        "dueto_state=fallback",
        "Only reached when the gateway is away, went away, or gave the call back; dueto_result tells why.",
    )
    if settings.media.dialect != "unicast":  # that one ends with `socket`
        yield _Line(
            "set",
            f"dueto_stopped=${{{_dialect(settings).command}(${{uuid}} stop)}}",
            "The stream outlives the gateway's leave: no agent may listen to what comes now.",
        )
    dial = _somebody(settings)
    if dial:
        yield _Line("set", "continue_on_fail=true", "Somebody takes the call; if nobody does, go on.")
        yield _Line("set", "hangup_after_bridge=true")
        yield _Line("bridge", dial)
    yield _Line("playback", _SORRY, "Say so, where the sounds are installed; the tone is heard everywhere.")
    yield _Line("playback", _REORDER_TONE)
    yield _Line("hangup", "NORMAL_TEMPORARY_FAILURE")


def _somebody(settings: Settings) -> str:
    """Return who takes a call without a gateway: `agent.when_failed`'s destination, or the one named `operator`."""
    for name in (settings.agent.when_failed, "operator"):
        if name in settings.destinations:
            return settings.destinations[name].dial
    return ""


def _wants_token(settings: Settings, media_only: bool) -> bool:
    if settings.media.dialect == "unicast":
        return False
    return settings.media.token == "required" and (media_only or settings.media.start == "dialplan")


def _switch_dials(settings: Settings) -> str:
    """Return HOST:PORT of the control listener as the switch sees it; several, with `|`, where so configured."""
    listen, public = settings.control.listen_address, settings.control.public_address
    if public:
        return "|".join(str(parse_address(part, default_port=listen.port)) for part in public.split("|"))
    return str(_reachable(listen, '[control] public_address: missing; write the "HOST:PORT" that the switch dials'))


def _stream_base(settings: Settings) -> str:
    if settings.media.public_url:
        return settings.media.public_url
    missing = '[media] public_url: missing; write the "ws://HOST:PORT" that the switch dials'
    address = _reachable(settings.media.listen_address, missing)
    if ":" in address.host:
        raise SettingsError("[media] public_url: missing; the audio module dials no IPv6 address, give it a name")
    return f"ws://{address}"


def _reachable(address: Address, otherwise: str) -> Address:
    if address.is_wildcard or address.port == 0:
        raise SettingsError(f"{otherwise} (listen is {address}, which is no address to connect to)")
    return address


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    ruled = [rows[0], tuple("-" * width for width in widths), *rows[1:]]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in ruled
    )
