"""What agents that a voice provider speaks for are measured by."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from dueto.app.journal import Fields

_TURN_S = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10)
_CONNECT_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)


class AgentMetrics:
    """Counts what the journal says of providers, their turns and their tools."""

    def __init__(self, registry: CollectorRegistry, label: Callable[[str, object], str]) -> None:
        """`label`: keeps a label's values few and plain."""
        self._label = label
        turn_text = "From the end of the caller's speech to the first frame of the answer that he heard, by part."
        connect_text = "From the wish to an open conversation with the provider."
        self._turn = Histogram("dueto_turn_latency_seconds", turn_text, ["part"], registry=registry, buckets=_TURN_S)
        self._connect = Histogram("dueto_provider_connect_seconds", connect_text, registry=registry, buckets=_CONNECT_S)
        self._failures = Counter("dueto_provider_failures", "Providers that failed.", ["fault"], registry=registry)
        self._rolled = Counter("dueto_provider_rollovers", "Sessions carried on in a new one.", registry=registry)
        self._usage = Counter("dueto_provider_usage", "What providers were used, by unit.", ["unit"], registry=registry)
        dropped_text = "Caller's audio that a provider was too slow to take."
        self._dropped = Counter("dueto_provider_audio_dropped_seconds", dropped_text, registry=registry)
        self._tools = Counter("dueto_tools", "Tools that models ran.", ["tool", "outcome"], registry=registry)
        self._replaced = Counter("dueto_agents_replaced", "Agents that another relieved.", ["fault"], registry=registry)
        vain_text = "Connections, and the like, that were made ready for a call which did not use them."
        self._vain = Counter("dueto_ready_in_vain", vain_text, registry=registry)
        self._full = Counter("dueto_agents_full", "Calls for which one had no place.", ["who"], registry=registry)
        self._patience = Counter("dueto_patience", "What a conversation's clock did.", ["event"], registry=registry)
        self.handlers: dict[str, Callable[[str, Fields], None]] = {
            "turn": self._turned,
            "provider_connected": lambda _, fields: self._connect.observe(_number(fields.get("took_ms")) / 1000),
            "provider_failed": lambda _, fields: self._failures.labels(label("fault", fields.get("fault"))).inc(),
            "provider_rolled_over": lambda *_: self._rolled.inc(),
            "provider_ended": self._provider_ended,
            "tool": self._ran_tool,
            "agent_replaced": lambda _, fields: self._replaced.labels(label("fault", fields.get("fault"))).inc(),
            "ready_in_vain": lambda *_: self._vain.inc(),
            "agent_full": self._was_full,
            "tenant_full": self._was_full,
            **{event: self._ran_out(event) for event in ("dead_air", "no_input", "max_duration")},
        }

    def _ran_tool(self, _unique_id: str, fields: Fields) -> None:
        tool, outcome = (self._label(key, fields.get(name)) for key, name in (("tool", "name"), ("outcome", "outcome")))
        self._tools.labels(tool, outcome).inc()

    def _was_full(self, _unique_id: str, fields: Fields) -> None:
        self._full.labels(self._label("who", fields.get("name"))).inc()

    def _ran_out(self, event: str) -> Callable[[str, Fields], None]:
        return lambda _unique_id, _fields: self._patience.labels(event).inc()

    def _turned(self, _unique_id: str, fields: Fields) -> None:
        self._turn.labels("heard").observe(_number(fields.get("latency_ms")) / 1000)
        self._turn.labels("provider").observe(_number(fields.get("model_ms")) / 1000)

    def _provider_ended(self, _unique_id: str, fields: Fields) -> None:
        for name, value in fields.items():
            if name == "dropped_ms":
                self._dropped.inc(_number(value) / 1000)
            else:
                self._usage.labels(self._label("unit", name)).inc(_number(value))


def _number(value: object) -> float:
    return max(0.0, float(value)) if isinstance(value, int | float) else 0.0
