"""What the journal becomes in Prometheus."""

import gc
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dueto.app.metrics import CALL_STATES, MAX_LABELS, Metrics


class Book:
    """A journal and the figures it made."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def tell(self, event: str, unique_id: str = "a", **fields: object) -> None:
        self.metrics.journal(unique_id, event, fields)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"dueto_{name}", labels) or 0.0

    def states(self) -> dict[str, float]:
        counts = {state: self.value("calls_in_progress", state=state) for state in CALL_STATES}
        return {state: count for state, count in counts.items() if count}


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_call_is_counted_in_one_state_at_a_time_and_in_none_after_its_end(book: Book) -> None:
    seen = []
    for event in ("control_connected", "media_connected", "agent_started", "held", "resumed", "bridged", "held"):
        book.tell(event)
        seen.append(book.states())
    for event in ("resumed", "unbridged", "returned_to_dialplan", "hungup", "held", "call_ended"):
        book.tell(event)
        seen.append(book.states())
    states = [next(iter(state), None) for state in seen]
    assert all(sum(state.values()) <= 1 for state in seen)
    assert states == [
        "waiting", "waiting", "talking", "held", "talking", "bridged", "held",
        "bridged", "talking", "leaving", "ending", "ending", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        (("agent_started", "hungup", "agent_finished"), "hungup"),
        (("agent_started", "agent_finished", "hungup"), "agent_finished"),
        (("agent_started", "bridged", "hungup"), "transferred"),
        (("agent_started", "agent_finished", "returned_to_dialplan"), "returned_to_dialplan"),
        (("agent_started", "agent_failed", "returned_to_dialplan"), "agent_failed"),
        (("agent_started", "media_lost", "control_lost"), "lost"),
    ],
)
def test_a_call_is_counted_by_how_it_went(book: Book, events: tuple[str, ...], outcome: str) -> None:
    book.tell("control_connected")
    for event in (*events, "call_ended"):
        book.tell(event)
    assert book.value("calls_total", outcome=outcome) == 1
    assert sum(s.value for m in book.registry.collect() for s in m.samples if s.name == "dueto_calls_total") == 1


def test_times_are_in_seconds(book: Book) -> None:
    book.tell("paired", order="media_first", waited_ms=250)
    book.tell("hungup", witness="CHANNEL_HANGUP", cause="NORMAL_CLEARING")
    book.tell("hangup_delivered", to_agent_ms=1.5)
    book.tell("transfer", outcome="busy", took_ms=2000)
    book.tell("said", ms=1000, heard_ms=400, interrupted=True)
    book.tell("barge_in", by="speech", silence_ms=160, known_by="ledger")
    book.tell("call_ended", duration_s=61.5, frames_up=3000, frames_down=100, dropped_ms=500, underruns=2)
    assert book.value("pairing_seconds_sum", order="media_first") == 0.25
    assert book.value("hangup_to_agent_seconds_sum") == 0.0015
    assert book.value("hangups_total", witness="CHANNEL_HANGUP") == 1
    assert book.value("hangup_causes_total", cause="NORMAL_CLEARING") == 1
    assert book.value("transfers_total", outcome="busy") == 1
    assert book.value("transfer_seconds_sum") == 2
    assert book.value("speech_seconds_total", part="queued") == 1
    assert book.value("speech_seconds_total", part="heard") == 0.4
    assert book.value("interruptions_total") == 1
    assert book.value("bargein_silence_seconds_sum", known_by="ledger") == 0.16
    assert book.value("call_duration_seconds_sum") == 61.5
    assert book.value("frames_total", direction="up") == 3000
    assert book.value("frames_total", direction="down") == 100
    assert book.value("audio_dropped_seconds_total") == 0.5
    assert book.value("underruns_total") == 2


def test_refusals_and_failures_are_counted_by_their_reason(book: Book) -> None:
    book.tell("refused", "", leg="media", reason="bad_token", peer="192.0.2.1")
    book.tell("protocol_error", leg="control", error="x")
    book.tell("agent_failed", error="ValueError: what the caller said")
    book.tell("agent_failed", error=KeyError("x"))
    book.tell("pairing_late", waited_ms=5000)
    assert book.value("refused_total", leg="media", reason="bad_token") == 1
    assert book.value("protocol_errors_total", leg="control") == 1
    assert book.value("agent_failures_total", error="ValueError") == 1
    assert book.value("agent_failures_total", error="KeyError") == 1
    assert book.value("pairing_late_total") == 1
    assert book.states() == {}, "a refusal is no call"


def test_a_leg_that_comes_back_is_a_reconnect_and_a_first_one_is_not(book: Book) -> None:
    book.tell("control_connected")
    assert book.value("reconnects_total", leg="control") == 0
    book.tell("control_lost")
    book.tell("control_connected")
    book.tell("media_lost", code=1006)
    book.tell("media_resumed")
    assert book.value("reconnects_total", leg="control") == 1
    assert book.value("reconnects_total", leg="media") == 1
    assert book.value("legs_lost_total", leg="control") == 1
    assert book.states() == {"waiting": 1}


def test_a_label_from_outside_can_not_grow_without_bound(book: Book) -> None:
    for number in range(MAX_LABELS + 50):
        book.tell("hungup", cause=f"CAUSE_{number}", witness="linger")
    book.tell("hungup", cause='x"\n', witness="linger")
    causes = {
        sample.labels["cause"]
        for metric in book.registry.collect()
        for sample in metric.samples
        if sample.name == "dueto_hangup_causes_total"
    }
    assert len(causes) == MAX_LABELS + 1
    assert book.value("hangup_causes_total", cause="other") == 51


def test_an_event_that_no_metric_knows_is_passed_over(book: Book) -> None:
    before = generate_latest(book.registry)
    book.tell("never_heard_of", anything=1)
    book.tell("held")
    book.tell("paired", order="media_first", waited_ms="soon")
    assert generate_latest(book.registry) == before


EVENTS = [
    "control_connected", "media_connected", "paired", "agent_started", "held", "resumed", "bridged", "unbridged",
    "transfer", "media_lost", "control_lost", "hungup", "agent_finished", "agent_failed", "returned_to_dialplan",
    "call_ended", "dtmf", "unknown",
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(EVENTS))))
def test_in_any_order_no_state_is_negative_and_ended_calls_are_forgotten(history: list[tuple[str, str]]) -> None:
    book = Book()
    for unique_id, event in history:
        book.tell(event, unique_id)
    assert all(count > 0 for count in book.states().values())
    for unique_id in "abc":
        book.tell("call_ended", unique_id)
    assert book.states() == {}


def test_ten_thousand_calls_leave_nothing_behind(book: Book) -> None:
    def calls(first: int, last: int) -> None:
        for number in range(first, last):
            for event in ("control_connected", "paired", "agent_started", "hungup", "call_ended"):
                book.tell(event, f"call-{number}", order="control_first", waited_ms=3, witness="linger", duration_s=1)

    calls(0, 1000)
    gc.collect()
    before = len(gc.get_objects())
    calls(1000, 10_000)
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert book.value("calls_total", outcome="hungup") == 10_000


def test_the_text_is_what_prometheus_reads_and_every_metric_is_documented(book: Book) -> None:
    text = generate_latest(book.registry).decode()
    families = {f.name for f in text_string_to_metric_families(text) if not f.name.endswith("_created")}
    documented = (Path(__file__).parents[2] / "docs/configuration.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`(dueto_\w+)`", documented))
    missing = {
        f for f in families if f not in names and f"{f}_total" not in names and f.removesuffix("_info") not in names
    }
    assert missing == set()
    elsewhere = {"dueto_http_requests_total", "dueto_secret", "dueto_workers"}
    assert names - elsewhere <= families | {f"{f}_total" for f in families}


def test_turns_providers_and_tools_are_counted(book: Book) -> None:
    book.tell("turn", latency_ms=800, model_ms=550)
    book.tell("provider_connected", took_ms=300)
    book.tell("provider_failed", fault="quota", error="Acme refuses for now")
    book.tell("provider_rolled_over", reason="an hour")
    book.tell("tool", name="transfer_call", outcome="ok", took_ms=3)
    book.tell("agent_replaced", name="front", fault="quota", error="Acme refuses for now", by="spare")
    book.tell("agent_full", name="front", max_calls=3)
    book.tell("tenant_full", name="acme", max_calls=3)
    book.tell("no_input", times=1)
    book.tell("provider_ended", dropped_ms=500, input_tokens=70, output_tokens=30)
    book.tell("provider_ended", dropped_ms=0, input_tokens=30)
    assert book.value("turn_latency_seconds_sum", part="heard") == 0.8
    assert book.value("turn_latency_seconds_sum", part="provider") == 0.55
    assert book.value("provider_connect_seconds_sum") == 0.3
    assert book.value("provider_failures_total", fault="quota") == 1
    assert book.value("provider_rollovers_total") == 1
    assert book.value("tools_total", tool="transfer_call", outcome="ok") == 1
    assert book.value("agents_replaced_total", fault="quota") == 1
    assert book.value("agents_full_total", who="front") == book.value("agents_full_total", who="acme") == 1
    assert book.value("patience_total", event="no_input") == 1
    assert book.value("provider_usage_total", unit="input_tokens") == 100
    assert book.value("provider_audio_dropped_seconds_total") == 0.5
