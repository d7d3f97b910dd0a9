"""Prometheus metrics, in base units, fed by the journal alone."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Info

from dueto.app.agent_metrics import AgentMetrics
from dueto.app.counting import Counted, Family, Spread, Tally
from dueto.app.journal import Fields

CALL_STATES = ("waiting", "talking", "held", "transferring", "bridged", "leaving", "ending")
_PAIRING_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
_HANGUP_S = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_DURATION_S = (1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_SILENCE_S = (0.01, 0.02, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.5, 1)
_TRANSFER_S = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
MAX_LABELS = 100
"How many different values one label may take before the rest is counted as `other`."


class _Label:
    """Keeps a label's values few and plain, wherever they come from."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, value: object) -> str:
        text = str(value) if value not in (None, "") else "none"
        if text not in self._seen:
            if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text):
                return "other"
            if len(self._seen) >= MAX_LABELS:
                return "other"
            self._seen.add(text)
        return text


@dataclass(slots=True)
class _Live:
    """What is remembered of a call between its first and its last event."""

    state: str = "waiting"
    before_hold: str = "talking"
    facts: set[str] = field(default_factory=set)
    "Events that its outcome is read from."


class Metrics:
    """All metrics of a gateway; `journal` counts into them. One per registry.

    A call is remembered from `control_connected` or `media_connected` until `call_ended`, by its id only.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counters(name: str, text: str, *labels: str) -> Family[Counted]:
            return Family("counter", f"dueto_{name}", text, labels, Counted, registry)

        def counter(name: str, text: str) -> Counted:
            return counters(name, text).labels()

        def histograms(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Family[Spread]:
            return Family("histogram", f"dueto_{name}", text, labels, lambda: Spread(bounds), registry)

        def histogram(name: str, text: str, bounds: tuple[float, ...]) -> Spread:
            return histograms(name, text, bounds).labels()

        from dueto import __version__  # at the latest moment: the package itself imports the app

        Info("dueto_build", "The version that runs.", registry=registry).info({"version": __version__})
        calls = Family("gauge", "dueto_calls_in_progress", "Calls right now, by state.", ("state",), Tally, registry)
        self._in_state = {state: calls.labels(state) for state in CALL_STATES}
        self._ended = counters("calls", "Calls that ended, by outcome.", "outcome")
        self._duration = histogram("call_duration_seconds", "From the first leg to the end of the call.", _DURATION_S)
        self._pairing = histograms("pairing_seconds", "From the first leg to the second.", _PAIRING_S, "order")
        self._late = counter("pairing_late", "Calls that waited longer than correlation.warn_after_s.")
        self._to_agent = histogram("hangup_to_agent_seconds", "From the proof of hangup to the agent.", _HANGUP_S)
        self._witness = counters("hangups", "Hangups, by who told first.", "witness")
        self._causes = counters("hangup_causes", "Hangups, by the switch's cause.", "cause")
        frames = counters("frames", "Audio frames, by direction.", "direction")
        self._totals = (
            ("frames_up", frames.labels("up"), 1),
            ("frames_down", frames.labels("down"), 1),
            ("dropped_ms", counter("audio_dropped_seconds", "Audio that was thrown away because it was late."), 0.001),
            ("odd_messages", counter("odd_messages", "Audio messages of another size than the stream's rate says."), 1),
            ("underruns", counter("underruns", "Gaps in the agent's voice."), 1),
        )
        "What a call adds when it ends: the name of a field, the counter, how much of it one is."
        self._said = counters("speech_seconds", "Speech of agents: queued, and heard by the caller.", "part")
        self._interruptions = counter("interruptions", "Sentences of agents that were cut off.")
        self._silence = histograms(
            "bargein_silence_seconds", "From the decision to interrupt to the last sound.", _SILENCE_S, "known_by"
        )
        self._digits = counter("dtmf", "Keys that callers pressed.")
        self._transfers = counters("transfers", "Transfers, by outcome.", "outcome")
        self._transfer_took = histogram("transfer_seconds", "From the wish to its outcome.", _TRANSFER_S)
        self._returned = counters("returned_to_dialplan", "Calls given back to the dialplan, by result.", "result")
        self._refused = counters("refused", "Connections and calls turned away.", "leg", "reason")
        self._protocol = counters("protocol_errors", "Legs that broke their protocol.", "leg")
        self._agent_failed = counters("agent_failures", "Agents that failed, by error.", "error")
        self._recordings = counters("recordings", "Recordings, by what became of them.", "outcome")
        self._lost = counters("legs_lost", "Legs that ended before their call.", "leg")
        self._back = counters("reconnects", "Legs that came back to their call.", "leg")

        self._live: dict[str, _Live] = {}
        self._label: defaultdict[str, _Label] = defaultdict(_Label)
        self._handlers: dict[str, Callable[[str, Fields], None]] = {
            "control_connected": self._control_connected,
            "media_connected": lambda unique_id, _: self._begin(unique_id),
            "paired": self._paired,
            "pairing_late": lambda *_: self._late.inc(),
            "agent_started": lambda unique_id, _: self._enter(unique_id, "talking"),
            "barge_in": self._barged_in,
            "dtmf": lambda *_: self._digits.inc(),
            "held": self._held,
            "resumed": self._resumed,
            "bridged": lambda unique_id, _: self._enter(unique_id, "bridged"),
            "unbridged": lambda unique_id, _: self._enter(unique_id, "talking"),
            "said": self._has_said,
            "transferring": lambda unique_id, _: self._enter(unique_id, "transferring"),
            "transfer": self._transferred,
            "media_lost": lambda *_: self._lost.labels("media").inc(),
            "media_resumed": lambda *_: self._back.labels("media").inc(),
            "control_lost": self._control_lost,
            "hungup": self._hungup,
            "hangup_delivered": self._hangup_delivered,
            "agent_failed": lambda _, fields: self._count(self._agent_failed, error=_kind(fields.get("error"))),
            "recording": lambda *_: self._recordings.labels("begun").inc(),
            "recording_failed": lambda *_: self._recordings.labels("failed").inc(),
            "refused": lambda _, fields: self._count(self._refused, leg=fields.get("leg"), reason=fields.get("reason")),
            "protocol_error": lambda _, fields: self._count(self._protocol, leg=fields.get("leg")),
            "returned_to_dialplan": self._has_returned,
            "call_ended": self._call_ended,
            **AgentMetrics(registry, self._labelled).handlers,
        }

    def journal(self, unique_id: str, event: str, fields: Fields) -> None:
        """Count one event; one that no metric speaks of is passed over."""
        live = self._live.get(unique_id)
        if live is not None and event in _OUTCOMES and not (event == "agent_finished" and "hungup" in live.facts):
            live.facts.add(event)  # an agent that returns because of the hangup has not ended the call
        handler = self._handlers.get(event)
        if handler is not None:
            handler(unique_id, fields)

    def _begin(self, unique_id: str) -> None:
        if unique_id and unique_id not in self._live:
            self._live[unique_id] = _Live()
            self._in_state["waiting"].inc()

    def _enter(self, unique_id: str, state: str) -> None:
        live = self._live.get(unique_id)
        if live is None or live.state in (state, "ending"):
            return
        self._in_state[live.state].dec()
        self._in_state[state].inc()
        live.state = state

    def _control_connected(self, unique_id: str, _fields: Fields) -> None:
        live = self._live.get(unique_id)
        if live is not None and "control_lost" in live.facts:
            live.facts.discard("control_lost")
            self._back.labels("control").inc()
        self._begin(unique_id)

    def _control_lost(self, unique_id: str, _fields: Fields) -> None:
        self._lost.labels("control").inc()
        live = self._live.get(unique_id)
        if live is not None:
            live.facts.add("control_lost")

    def _paired(self, _unique_id: str, fields: Fields) -> None:
        waited_ms = _number(fields, "waited_ms")
        if waited_ms is not None:
            self._pairing.labels(self._labelled("order", fields.get("order"))).observe(waited_ms / 1000)

    def _held(self, unique_id: str, _fields: Fields) -> None:
        live = self._live.get(unique_id)
        if live is not None and live.state != "held":
            live.before_hold = live.state
            self._enter(unique_id, "held")

    def _resumed(self, unique_id: str, _fields: Fields) -> None:
        live = self._live.get(unique_id)
        if live is not None and live.state == "held":
            self._enter(unique_id, live.before_hold)

    def _has_said(self, _unique_id: str, fields: Fields) -> None:
        self._said.labels("queued").inc((_number(fields, "ms") or 0) / 1000)
        self._said.labels("heard").inc((_number(fields, "heard_ms") or 0) / 1000)
        if fields.get("interrupted"):
            self._interruptions.inc()

    def _barged_in(self, _unique_id: str, fields: Fields) -> None:
        silence_ms = _number(fields, "silence_ms")
        if silence_ms is not None:
            self._silence.labels(self._labelled("known_by", fields.get("known_by"))).observe(silence_ms / 1000)

    def _transferred(self, unique_id: str, fields: Fields) -> None:
        self._count(self._transfers, outcome=fields.get("outcome"))
        took_ms = _number(fields, "took_ms")
        if took_ms is not None:
            self._transfer_took.observe(took_ms / 1000)
        live = self._live.get(unique_id)
        if live is not None and live.state == "transferring":
            self._enter(unique_id, "bridged" if fields.get("outcome") == "bridged" else "talking")

    def _hungup(self, unique_id: str, fields: Fields) -> None:
        self._count(self._witness, witness=fields.get("witness"))
        self._count(self._causes, cause=fields.get("cause"))
        self._hangup_delivered(unique_id, fields)
        self._enter(unique_id, "ending")

    def _hangup_delivered(self, _unique_id: str, fields: Fields) -> None:
        to_agent_ms = _number(fields, "to_agent_ms")
        if to_agent_ms is not None:
            self._to_agent.observe(to_agent_ms / 1000)

    def _has_returned(self, unique_id: str, fields: Fields) -> None:
        self._count(self._returned, result=fields.get("result"))
        self._enter(unique_id, "leaving")

    def _call_ended(self, unique_id: str, fields: Fields) -> None:
        live = self._live.pop(unique_id, None)
        if live is not None:
            self._in_state[live.state].dec()
        self._ended.labels(_outcome(live.facts if live else set())).inc()
        self._duration.observe(_number(fields, "duration_s") or 0)
        for name, total, unit in self._totals:
            if fields.get(name):
                total.inc((_number(fields, name) or 0) * unit)

    def _count(self, counters: Family[Counted], **labels: object) -> None:
        counters.labels(*[self._labelled(name, value) for name, value in labels.items()]).inc()

    def _labelled(self, name: str, value: object) -> str:
        return self._label[name](value)


_OUTCOMES = {
    "agent_failed": "agent_failed",
    "returned_to_dialplan": "returned_to_dialplan",
    "bridged": "transferred",
    "agent_finished": "agent_finished",
    "hungup": "hungup",
}
"What a call is counted as: the topmost of these that ever happened to it; none of them is `lost`."


def _outcome(facts: set[str]) -> str:
    return next((outcome for fact, outcome in _OUTCOMES.items() if fact in facts), "lost")


def _number(fields: Fields, name: str) -> float | None:
    value = fields.get(name)
    return max(0.0, float(value)) if isinstance(value, int | float) else None


def _kind(error: object) -> str:
    """Return an error's class: of an exception its type, of a text what stands before the colon."""
    return type(error).__name__ if isinstance(error, BaseException) else str(error or "").partition(":")[0]
