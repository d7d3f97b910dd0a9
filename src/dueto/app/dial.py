"""`dueto dial`: one call placed from the command line, and what became of it."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dueto.app.gateway import Gateway
from dueto.app.journal import fan_out
from dueto.app.serve import Stop, run_to_the_end, stopped_by_signals
from dueto.app.settings import Settings
from dueto.call.house import Journal, no_journal
from dueto.call.phase import HangupAsked
from dueto.call.placing import Dialled
from dueto.errors import DuetoError

LINK_S = 10.0
"How long the switch's event socket may take to let us in."
NOT_ANSWERED, CANT_DIAL, STOPPED = 1, 2, 130


@dataclass(frozen=True, slots=True)
class Wish:
    """Whom to call, and how."""

    dial: str
    "A dial string of the switch: `user/1001`, `sofia/gateway/trunk/5511999990000`."
    caller_id: str = ""
    caller_name: str = ""
    timeout_s: float = 60.0
    detect_s: float = 0.0


def beside_a_running_gateway(settings: Settings) -> dict[str, Any]:
    """Return what to override so that this one call's doors are free ports, where no public address names them."""
    overrides: dict[str, Any] = {"metrics": {"listen": ""}}
    for section, public in (("control", settings.control.public_address), ("media", settings.media.public_url)):
        if not public:
            address = getattr(settings, section).listen_address
            overrides[section] = {"listen": f"[{address.host}]:0" if ":" in address.host else f"{address.host}:0"}
    return overrides


def run_dial(settings: Settings, wish: Wish, *, as_json: bool) -> int:
    """Place the call, wait for its end, print its outcome; return the exit code."""
    return run_to_the_end(place_one(settings, wish, Stop(), as_json=as_json))


class _Ends:
    """Keeps what the journal says of the switch, and of the end of the call."""

    def __init__(self) -> None:
        self.reason = "no answer"
        self.end: Mapping[str, object] = {}

    def __call__(self, unique_id: str, event: str, fields: Mapping[str, object]) -> None:
        if event in ("switch_refused", "switch_down"):
            self.reason = str(fields["reason"])
        elif event == "call_ended":
            self.end = fields


async def place_one(
    settings: Settings, wish: Wish, stop: Stop, *, as_json: bool = False, journal: Journal = no_journal
) -> int:
    """As `run_dial`, until `stop` is asked for, which hangs up."""
    ends = _Ends()
    async with Gateway(settings, journal=fan_out(ends, journal), takes_back=False) as gateway:
        if gateway.link is not None:
            try:
                async with asyncio.timeout(LINK_S):
                    await gateway.link.wait_up()
            except TimeoutError:
                return _complain(f"[switch] address: {settings.switch.address} does not let us in: {ends.reason}")
        with stopped_by_signals(stop.ask):
            dialling = asyncio.ensure_future(
                gateway.dial(
                    wish.dial,
                    caller_id=wish.caller_id,
                    caller_name=wish.caller_name,
                    timeout_s=wish.timeout_s,
                    detect_s=wish.detect_s,
                )
            )
            over = asyncio.ensure_future(_until_over(gateway, dialling))
            asked = asyncio.ensure_future(stop.once())
            await asyncio.wait((over, asked), return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not over.done():
                dialling.cancel()  # which kills a channel that rings
                for session in gateway.desk:
                    session.happen(HangupAsked("NORMAL_CLEARING"))
                await asyncio.wait((over,), timeout=LINK_S)
                return STOPPED
    try:
        dialled = over.result()
    except DuetoError as error:
        return _complain(str(error))
    _print(wish, dialled, ends.end, as_json)
    return 0 if dialled.ok else NOT_ANSWERED


async def _until_over(gateway: Gateway, dialling: "asyncio.Future[Dialled]") -> Dialled:
    dialled = await dialling
    await gateway.desk.empty()
    return dialled


def _complain(text: str) -> int:
    print(f"dueto: {text}", file=sys.stderr)
    return CANT_DIAL


def _print(wish: Wish, dialled: Dialled, end: Mapping[str, object], as_json: bool) -> None:
    talked_s = round(float(str(end.get("duration_s", 0.0))), 1)
    ended = str(end.get("cause") or "")
    if as_json:
        fields = {
            "dial": wish.dial,
            "unique_id": dialled.unique_id,
            "outcome": dialled.outcome,
            "cause": dialled.hangup_cause,
            "answered_by": dialled.answered_by,
            "talked_s": talked_s,
            "ended": ended,
        }
        print(json.dumps(fields))
        return
    who = f" by a {dialled.answered_by}" if dialled.answered_by != "unknown" else ""
    if dialled.ok:
        print(f"{wish.dial}: answered{who}, talked for {talked_s} s, ended with {ended or 'no cause told'}")
    else:
        print(f"{wish.dial}: {dialled.outcome} ({dialled.hangup_cause or 'no cause told'})")
