"""Settings from environment variables: `DUETO_SECTION__KEY`, and the older names."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dueto.app.addresses import Address, parse_address
from dueto.errors import SettingsError

PREFIX = "DUETO_"
Tree = dict[str, Any]
"Sections of keys of values, as a TOML file would give them."

OLDER_NAMES: dict[str, tuple[str, ...]] = {
    "DUAL_MODE_CORRELATION_TIMEOUT": ("correlation", "warn_after_s"),
    "DUAL_MODE_EVENT_LOOP_INTERVAL": ("control", "event_loop_interval_s"),
    "ESL_SERVER_HOST": ("control", "listen"),
    "ESL_SERVER_PORT": ("control", "listen"),
    "REALTIME_HOST": ("media", "listen"),
    "REALTIME_PORT": ("media", "listen"),
    "ESL_HOST": ("switch", "address"),
    "ESL_PORT": ("switch", "address"),
    "ESL_PASSWORD": ("switch", "password"),
}
"What the variables of earlier gateways set today."
NO_LONGER_MEANT = {"DUAL_MODE_CORRELATION_RETRY": "the legs are paired when the second one arrives, however late"}
"Variables that are accepted and do nothing, with the reason."


@dataclass(frozen=True)
class FromEnvironment:
    """What some variables say."""

    tree: Tree = field(default_factory=dict)
    names: dict[tuple[str, ...], str] = field(default_factory=dict)
    "Which variable set a key: (section, key) -> name."
    remarks: tuple[str, ...] = ()
    "Sentences the user should read once."


def read_environment(environ: Mapping[str, str], lists: frozenset[str], sections: frozenset[str]) -> FromEnvironment:
    """Collect every `DUETO_SECTION__KEY`. Values stay text, except for the keys (last part) named in `lists`.

    A list is written as JSON (`["a", "b"]`) or with commas (`a, b`). Whether a key exists is not decided here.
    """
    found = FromEnvironment()
    remarks = []
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(PREFIX):
            continue
        path = tuple(name[len(PREFIX) :].lower().split("__"))
        if len(path) == 1:
            section = next((s for s in sorted(sections) if path[0].startswith(f"{s}_")), None)
            if section is not None:
                meant = f"{PREFIX}{section}__{path[0][len(section) + 1 :]}".upper()
                remarks.append(f"{name} sets nothing: between section and key stand two underscores, {meant}")
            continue
        put(found.tree, path, _list(name, value) if path[-1] in lists else value)
        found.names[path] = name
    return FromEnvironment(found.tree, found.names, tuple(remarks))


def read_older_names(environ: Mapping[str, str], below: Mapping[str, Any]) -> FromEnvironment:
    """Translate the older names. `below` holds the values that they override, for a host without its port.

    Raises: SettingsError: a host and port together make no address.
    """
    given = {name: environ[name].strip() for name in OLDER_NAMES if environ.get(name, "").strip()}
    found = FromEnvironment()
    for name, value in given.items():
        path = OLDER_NAMES[name]
        if not name.endswith(("_HOST", "_PORT")):
            put(found.tree, path, value)
            found.names[path] = name
            continue
        stem = name.rpartition("_")[0]
        if path in found.names:
            continue  # the host has taken its port along
        put(found.tree, path, _address(stem, given, str(get(below, path) or "127.0.0.1:8021")))
        found.names[path] = " and ".join(n for n in (f"{stem}_HOST", f"{stem}_PORT") if n in given)
    remarks = [f"{name} is an older name; {'.'.join(OLDER_NAMES[name])} is set by it" for name in given]
    remarks += [f"{n} means nothing any more: {why}" for n, why in NO_LONGER_MEANT.items() if n in environ]
    return FromEnvironment(found.tree, found.names, tuple(remarks))


def put(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    """Set `value` at `path`, making the sections on the way."""
    for part in path[:-1]:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            inner = tree[part] = {}
        tree = inner
    tree[path[-1]] = value


def get(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return what stands at `path`, None where nothing does."""
    found: Any = tree
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def merge(*trees: Mapping[str, Any]) -> Tree:
    """Join trees, the first one winning. Sections are joined key by key, lists and other values replaced."""
    merged: Tree = {}
    for tree in reversed(trees):
        for key, value in tree.items():
            old = merged.get(key)
            merged[key] = merge(value, old if isinstance(old, Mapping) else {}) if isinstance(value, Mapping) else value
    return merged


def nearest(word: str, known: Mapping[str, Any] | list[str] | frozenset[str]) -> str | None:
    """Return the name that `word` was probably meant to be."""
    close = difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.6)
    return close[0] if close else None


def _address(stem: str, given: Mapping[str, str], below: str) -> str:
    try:
        old = parse_address(below)
    except ValueError:
        old = Address("127.0.0.1", 8021)
    host, port = given.get(f"{stem}_HOST", old.host).strip("[]"), given.get(f"{stem}_PORT", str(old.port))
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return str(parse_address(text))
    except ValueError as error:
        raise SettingsError(f'{stem}_HOST and {stem}_PORT make "{text}": {error}') from None


def _list(name: str, value: str) -> list[Any]:
    text = value.strip()
    if not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, list):
        raise SettingsError(f'{name}: expected a list, as JSON (["a", "b"]) or with commas (a, b)')
    return parsed
