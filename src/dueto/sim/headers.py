"""What a channel's events look like on the wire: the header blocks of a real switch, with values of our own making.

An event has about 150 headers and most don't change between two events of a call. So a block is built of pieces
(event, state, caller, variables), and a piece is encoded once and kept until the channel changes it. Most lines of a
new piece stood in another one: a line is made once, and the names of a piece are written out only where somebody asks.
"""

import time
from collections.abc import Collection, Iterable
from functools import cached_property, lru_cache
from typing import Final
from xml.sax.saxutils import escape

from dueto.wire.esl import quote

Pairs = tuple[tuple[str, str], ...]
VARIABLE: Final = "variable_"

CORE_UUID = "3f1f8a52-6d0c-4a65-9d5b-0c7a3f6e2b11"
_FROM: dict[str, tuple[str, str, int]] = {
    "CHANNEL_DATA": ("mod_event_socket.c", "parse_command", 2018),
    "CHANNEL_ANSWER": ("switch_channel.c", "switch_channel_perform_mark_answered", 3848),
    "CHANNEL_BRIDGE": ("switch_ivr_bridge.c", "switch_ivr_multi_threaded_bridge", 1846),
    "CHANNEL_UNBRIDGE": ("switch_ivr_bridge.c", "switch_ivr_multi_threaded_bridge", 1926),
    "CHANNEL_CALLSTATE": ("switch_channel.c", "switch_channel_perform_set_callstate", 302),
    "CHANNEL_EXECUTE": ("switch_core_session.c", "switch_core_session_exec", 2949),
    "CHANNEL_EXECUTE_COMPLETE": ("switch_core_session.c", "switch_core_session_exec", 2972),
    "CHANNEL_HANGUP": ("switch_channel.c", "switch_channel_perform_hangup", 3447),
    "CHANNEL_HANGUP_COMPLETE": ("switch_core_state_machine.c", "switch_core_session_reporting_state", 943),
    "CHANNEL_HOLD": ("switch_ivr.c", "switch_ivr_hold", 1558),
    "CHANNEL_UNHOLD": ("switch_ivr.c", "switch_ivr_unhold", 1638),
    "CHANNEL_PARK": ("switch_ivr.c", "switch_ivr_park", 1002),
    "CHANNEL_UNPARK": ("switch_ivr.c", "switch_ivr_park", 1213),
    "CHANNEL_PROGRESS": ("switch_channel.c", "switch_channel_perform_mark_ring_ready_value", 3507),
    "CHANNEL_PROGRESS_MEDIA": ("switch_channel.c", "switch_channel_perform_mark_pre_answered", 3562),
    "CHANNEL_STATE": ("switch_channel.c", "switch_channel_perform_set_running_state", 2409),
    "CUSTOM": ("mod_audio_stream.c", "responseHandler", 16),
    "DTMF": ("switch_channel.c", "switch_channel_dequeue_dtmf", 678),
    "BACKGROUND_JOB": ("mod_event_socket.c", "api_exec", 1569),
    "MEDIA_BUG_START": ("switch_core_media_bug.c", "switch_core_media_bug_add", 1014),
    "MEDIA_BUG_STOP": ("switch_core_media_bug.c", "switch_core_media_bug_destroy", 84),
    "PLAYBACK_START": ("switch_ivr_play_say.c", "switch_ivr_play_file", 1649),
    "PLAYBACK_STOP": ("switch_ivr_play_say.c", "switch_ivr_play_file", 2023),
}
Q850 = {
    "NORMAL_CLEARING": 16,
    "USER_BUSY": 17,
    "NO_USER_RESPONSE": 18,
    "NO_ANSWER": 19,
    "SUBSCRIBER_ABSENT": 20,
    "CALL_REJECTED": 21,
    "DESTINATION_OUT_OF_ORDER": 27,
    "NORMAL_UNSPECIFIED": 31,
    "NORMAL_CIRCUIT_CONGESTION": 34,
    "NETWORK_OUT_OF_ORDER": 38,
    "NORMAL_TEMPORARY_FAILURE": 41,
    "SWITCH_CONGESTION": 42,
    "UNALLOCATED_NUMBER": 1,
    "NO_ROUTE_DESTINATION": 3,
    "ORIGINATOR_CANCEL": 487,
    "ALLOTTED_TIMEOUT": 602,
    "MEDIA_TIMEOUT": 604,
    "USER_NOT_REGISTERED": 606,
    "BLIND_TRANSFER": 600,
}
"Causes the simulated switch knows; a hangup for any other becomes NORMAL_CLEARING."


@lru_cache(maxsize=4096)
def _line(prefix: str, name: str, value: str) -> bytes:
    """Return one header line; most of a call's lines are those of the call before, or of the event before."""
    quoted = quote(value.encode("utf-8", "surrogateescape")) or b"_undef_"
    return b"%s%s: %s\n" % (prefix.encode(), name.encode(), quoted)


class Piece:
    """Some headers whose names begin with `prefix`, and their bytes once somebody wanted them."""

    __slots__ = ("_encoded", "_pairs", "_prefix")

    def __init__(self, pairs: Collection[tuple[str, str]], prefix: str = "", encoded: bytes | None = None) -> None:
        self._pairs = pairs
        self._prefix = prefix
        self._encoded = encoded

    @property
    def pairs(self) -> Pairs:
        """The headers, values as they are."""
        prefix = self._prefix
        return tuple((prefix + name, value) for name, value in self._pairs)

    @property
    def encoded(self) -> bytes:
        """The header lines as an event carries them; an empty value is written `_undef_`."""
        if self._encoded is None:
            prefix = self._prefix
            self._encoded = b"".join([_line(prefix, name, value) for name, value in self._pairs])
        return self._encoded


NOTHING = Piece(())


class Variables:
    """A channel's variables, in the order in which they were set, each with the line that events tell of it."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self._lines = {name: _line(VARIABLE, name, value) for name, value in values.items()}
        self._piece: Piece | None = None

    def set(self, name: str, value: str | None) -> None:
        """Set a variable, as the last one; None or an empty value removes it."""
        self._piece = None
        self.values.pop(name, None)
        self._lines.pop(name, None)
        if value:
            self.values[name] = value
            self._lines[name] = _line(VARIABLE, name, value)

    @property
    def piece(self) -> Piece:
        """The variables as they are now."""
        if self._piece is None:
            self._piece = Piece(self.values.copy().items(), VARIABLE, b"".join(self._lines.values()))
        return self._piece


class ChannelEvent:
    """One event on its way to the sockets that want it."""

    def __init__(self, name: str, pieces: Iterable[Piece], *, subclass: str = "", body: bytes = b"") -> None:
        self.name = name
        self.subclass = subclass
        self.body = body
        self._pieces = tuple(pieces)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """All headers in order, values as they are."""
        return [pair for piece in self._pieces for pair in piece.pairs]

    @cached_property
    def plain(self) -> bytes:
        """The event in the plain format, as a block of the socket."""
        inner = b"".join([piece.encoded for piece in self._pieces])
        inner += b"Content-Length: %d\n\n" % len(self.body) + self.body if self.body else b"\n"
        return b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(inner) + inner

    @cached_property
    def xml(self) -> bytes:
        """The event in the XML format, as a block of the socket: values URL-encoded inside the elements."""
        lines = [f"    <{name}>{quote(value.encode()).decode()}</{name}>" for name, value in self.pairs]
        body = self.body.decode("utf-8", "replace")
        tail = f"  <Content-Length>{len(self.body)}</Content-Length>\n  <body>{escape(body)}</body>\n" if body else ""
        inner = "\n".join(("<event>", "  <headers>", *lines, "  </headers>", f"{tail}</event>")).encode()
        return b"Content-Length: %d\nContent-Type: text/event-xml\n\n" % len(inner) + inner


def event_piece(name: str, epoch: float, sequence: int, first: Pairs = ()) -> Piece:
    """Return the headers every event begins with. `epoch` in seconds; `first` go in front (Event-Subclass does)."""
    file, function, line = _FROM.get(name, ("switch_event.c", "switch_event_fire", 1))
    local, gmt = _dates(int(epoch))
    return Piece(
        (
            *first,
            ("Event-Name", name),
            ("Core-UUID", CORE_UUID),
            ("FreeSWITCH-Hostname", "switch"),
            ("FreeSWITCH-Switchname", "switch"),
            ("FreeSWITCH-IPv4", "192.0.2.2"),
            ("FreeSWITCH-IPv6", "fd00::2"),
            ("Event-Date-Local", local),
            ("Event-Date-GMT", gmt),
            ("Event-Date-Timestamp", str(int(epoch * 1e6))),
            ("Event-Calling-File", file),
            ("Event-Calling-Function", function),
            ("Event-Calling-Line-Number", str(line)),
            ("Event-Sequence", str(sequence)),
        )
    )


@lru_cache(maxsize=64)
def _dates(epoch: int) -> tuple[str, str]:
    gmt = time.gmtime(epoch)
    return time.strftime("%Y-%m-%d %H:%M:%S", gmt), time.strftime("%a, %d %b %Y %H:%M:%S GMT", gmt)


_COUNTED = ("raw_bytes", "media_bytes", "packet_count", "media_packet_count", "skip_packet_count")
_COUNTED_TOO = ("jitter_packet_count", "dtmf_packet_count", "cng_packet_count", "flush_packet_count")
_RTP: Pairs = (
    *((f"rtp_audio_{side}_{name}", "0") for side in ("in", "out") for name in (*_COUNTED, *_COUNTED_TOO)),
    ("rtp_audio_in_mean_interval", "20.00"),
    ("rtp_audio_in_mos", "4.50"),
)


def end_variables(
    *, cause: str, started: float, answered: float, ended: float, application: str, data: str, caller_id: str
) -> Piece:
    """Return what CHANNEL_HANGUP_COMPLETE knows beyond the channel's variables. Times in seconds since the epoch."""

    def stamp(at: float) -> str:
        return _dates(int(at))[0]

    def span(seconds: float, scale: int) -> str:
        return str(int(max(seconds, 0.0) * scale))

    total, billed, waited = ended - started, ended - answered if answered else 0.0, answered - started
    pairs = [
        ("hangup_cause", cause),
        ("hangup_cause_q850", str(Q850.get(cause, 16) if Q850.get(cause, 16) < 128 else 16)),
        ("digits_dialed", "none"),
        ("start_stamp", stamp(started)),
        ("profile_start_stamp", stamp(started)),
        *([("answer_stamp", stamp(answered))] if answered else []),
        ("end_stamp", stamp(ended)),
    ]
    moments = {"start": started, "profile_start": started, "answer": answered, "bridge": 0.0, "last_hold": 0.0}
    for name, at in moments.items():
        pairs += [(f"{name}_epoch", str(int(at))), (f"{name}_uepoch", str(int(at * 1e6)))]
    pairs += [("hold_accum_seconds", "0"), ("hold_accum_usec", "0"), ("hold_accum_ms", "0")]
    for name, at in {"resurrect": 0.0, "progress": 0.0, "progress_media": 0.0, "end": ended}.items():
        pairs += [(f"{name}_epoch", str(int(at))), (f"{name}_uepoch", str(int(at * 1e6)))]
    pairs += [("last_app", application), ("last_arg", data), ("caller_id", caller_id)]
    for unit, scale in (("", 1), ("m", 1000), ("u", 1_000_000)):
        pairs += [
            (f"{unit}duration", span(total, scale)),
            (f"bill{unit}sec", span(billed, scale)),
            (f"progress{unit}sec", "0"),
            (f"answer{unit}sec", span(waited, scale)),
            (f"wait{unit}sec", span(waited, scale)),
            (f"progress_media{unit}sec", "0"),
            (f"flow_bill{unit}sec", span(billed, scale)),
        ]
    return Piece((*pairs, *_RTP), VARIABLE)


def sip_variables(
    *, unique_id: str, session: int, number: str, name: str, destination: str, port: int, codec: str, epoch: float
) -> dict[str, str]:
    """Return the channel variables of a fresh SIP call, in the order the switch sets them."""
    host, rtp = "127.0.0.1", str(16384 + session * 2 % 16000)
    caller, callee = f"{number}@{host}:{port}", f"{destination}@{host}:5060"
    stamp = str(int(epoch * 1e6))
    rate = "8000" if codec == "PCMU" else "16000"
    payload = "0" if codec == "PCMU" else "9"
    sdp = "v=0\r\no=- {0} {0} IN IP4 {1}\r\ns=-\r\nc=IN IP4 {1}\r\nt=0 0\r\nm=audio {2} RTP/AVP {3} 101\r\n"
    sdp += "a=rtpmap:{3} {4}/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n"
    display = f'"{name}" <sip:{caller}>' if name else f"<sip:{caller}>"
    return {
        "direction": "inbound",
        "uuid": unique_id,
        "session_id": str(session),
        "sip_from_user": number,
        "sip_from_port": str(port),
        "sip_from_uri": caller,
        "sip_from_host": host,
        "video_media_flow": "disabled",
        "text_media_flow": "disabled",
        "channel_name": f"sofia/internal/{caller}",
        "sip_local_network_addr": host,
        "sip_network_ip": host,
        "sip_network_port": str(port),
        "sip_invite_stamp": stamp,
        "sip_received_ip": host,
        "sip_received_port": str(port),
        "sip_via_protocol": "udp",
        "sip_from_user_stripped": number,
        "sofia_profile_name": "internal",
        "sofia_profile_url": f"sip:mod_sofia@{host}:5060",
        "recovery_profile_name": "internal",
        "sip_req_user": destination,
        "sip_req_port": "5060",
        "sip_req_uri": callee,
        "sip_req_host": host,
        "sip_to_user": destination,
        "sip_to_port": "5060",
        "sip_to_uri": callee,
        "sip_to_host": host,
        "sip_contact_user": number,
        "sip_contact_port": str(port),
        "sip_contact_uri": caller,
        "sip_contact_host": host,
        "sip_via_host": host,
        "sip_via_port": str(port),
        "max_forwards": "70",
        "switch_r_sdp": sdp.format(session, host, 40000 + session * 2 % 9000, payload, codec),
        "ep_codec_string": f"CORE_PCM_MODULE.{codec}@{rate}h@20i@64000b",
        "rtp_use_codec_string": f"{codec},PCMA",
        "remote_video_media_flow": "inactive",
        "remote_text_media_flow": "inactive",
        "remote_audio_media_flow": "sendrecv",
        "audio_media_flow": "sendrecv",
        "rtp_audio_recv_pt": payload,
        "rtp_use_codec_name": codec,
        "rtp_use_codec_rate": rate,
        "rtp_use_codec_ptime": "20",
        "rtp_use_codec_channels": "1",
        "rtp_last_audio_codec_string": f"{codec}@{rate}h@20i@1c",
        "read_codec": codec,
        "original_read_codec": codec,
        "read_rate": rate,
        "original_read_rate": rate,
        "write_codec": codec,
        "write_rate": rate,
        "dtmf_type": "rfc2833",
        "DP_MATCH": f"ARRAY::{destination}|:{destination}",
        "call_uuid": unique_id,
        "sip_call_id": f"{session}-{port}@{host}",
        "sip_full_via": f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK-{port}-{session}-0",
        "sip_from_display": name or number,
        "sip_full_from": f"{display};tag={port}sim{session}",
        "rtp_local_sdp_str": sdp.format(session + 1, host, rtp, payload, codec) + "a=sendrecv\r\n",
        "local_media_ip": host,
        "local_media_port": rtp,
        "advertised_media_ip": host,
        "rtp_use_timer_name": "soft",
        "rtp_use_pt": payload,
        "rtp_use_ssrc": str(3000000000 + session),
        "rtp_2833_send_payload": "101",
        "rtp_2833_recv_payload": "101",
        "remote_media_ip": host,
        "remote_media_port": str(40000 + session * 2 % 9000),
        "endpoint_disposition": "RECEIVED",
    }
