"""What is wrong with a configuration, one sentence per problem."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from dueto.app.environment import PREFIX, nearest

Path = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "string_type": 'text in quotes ("...")',
    "tuple_type": "a list ([...])",
    "dict_type": "a section ([name])",
    "model_type": "a section ([name])",
    "model_attributes_type": "a section ([name])",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}


_SECRET = re.compile(r"(^|_)(secret|password|api_?key|auth_token|credentials?)$", re.IGNORECASE)
_TABLES = ("destinations", "agents", "tenants")
"Sections of sections: `[destinations.NAME]`."


@dataclass(frozen=True, slots=True)
class _Models:
    """What reads each part of a configuration."""

    root: type[BaseModel]
    agents: Mapping[str, type[BaseModel]]
    "NAME -> the model of `[agents.NAME]`, which is its kind's."

    def at(self, path: Path) -> Any:
        """Return the type of what stands at `path`; of any one entry, where it is a table of sections."""
        model: Any = self.root
        if len(path) > 1 and path[0] == "agents":
            model, path = self.agents.get(str(path[1])), path[2:]
        for part in path:
            if isinstance(model, type) and issubclass(model, BaseModel):
                known = model.model_fields.get(str(part))
                model = known.annotation if known else None
            else:
                arguments: Any = getattr(model, "__args__", ())  # dict[str, X] or tuple[X, ...]
                at = 0 if isinstance(part, int) else 1
                model = arguments[at] if len(arguments) == 2 else None
        return model

    def keys_at(self, path: Path) -> list[str]:
        """Return the keys of the section at `path`."""
        model = self.at(path)
        return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def complain(
    error: ValidationError,
    root: type[BaseModel],
    origin: Callable[[Path], str | None],
    agents: Mapping[str, type[BaseModel]] | None = None,
) -> str:
    """Turn what pydantic found into one sentence a line.

    `origin` names the environment variable that a path came from, if one did; `agents` says what reads each
    `[agents.NAME]`. Secrets are never repeated.
    """
    models = _Models(root, agents or {})
    lines = []
    for problem in error.errors(include_url=False):
        path = problem["loc"]
        variable = origin(path)
        where = f"{variable}: " if variable else _place(path)
        lines.append(where + _sentence(problem["type"], path, problem, models, by_variable=variable is not None))
    return "\n".join(dict.fromkeys(lines))


def _sentence(kind: str, path: Path, problem: Mapping[str, Any], models: _Models, *, by_variable: bool) -> str:
    context = problem.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(path, models, by_variable=by_variable)
    if path == ("route",):
        return "expected [[route]], in two pairs of brackets, before the keys of each route"
    if kind == "missing":
        return "this key is missing"
    if kind == "value_error":
        expected, _, hint = str(context["error"]).partition("; ")
    elif kind in _EXPECTED:
        expected, hint = "expected " + _EXPECTED[kind].format(**context), ""
    else:
        expected, hint = str(problem["msg"]), ""
    value = problem.get("input")
    if kind == "literal_error" and isinstance(value, str):
        close = nearest(value, re.findall("'([^']+)'", context["expected"]))
        hint = f"did you mean '{close}'?" if close else ""
    secret = not path or _SECRET.search(str(path[-1])) or models.at(path) is SecretStr
    if expected.startswith("expected") and not secret and not isinstance(value, Mapping | BaseModel):
        expected += f", not {_shown(value)}"
    return f"{expected}; {hint}" if hint else expected


def _unknown(path: Path, models: _Models, *, by_variable: bool) -> str:
    parts = tuple(str(part) for part in path)
    root = models.root

    def written(*names: str) -> str:
        if by_variable:
            return f"{PREFIX}{'__'.join(names)}".upper()
        return f"[{names[0]}]" if len(names) == 1 else names[-1]

    if len(parts) == 1:
        close = nearest(parts[0], list(root.model_fields))
        hint = f"did you mean {written(close)}?" if close else f"there are {', '.join(sorted(root.model_fields))}"
        return f"no such section; {hint}"
    known = models.keys_at(path[:-1])
    close = nearest(parts[-1], known)
    if close:
        return f"no such key; did you mean {written(*parts[:-1], close)}?"
    elsewhere = [section for section in root.model_fields if parts[-1] in models.keys_at((section,))]
    if elsewhere:
        return f"no such key; {parts[-1]} belongs in [{elsewhere[0]}]"
    return f"no such key; there are {', '.join(sorted(known))}" if known else "no such key"


def _place(path: Path) -> str:
    if not path:
        return ""
    if len(path) == 1:
        return f"[{path[0]}]: "
    if path[0] == "route" and isinstance(path[1], int):
        return f"[[route]] {path[1] + 1}{''.join(f', {part}' for part in path[2:3])}: "
    depth = 2 if path[0] in _TABLES else 1
    section = ".".join(str(part) for part in path[:depth])
    if len(path) == depth:
        return f"[{section}]: "
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path[depth:]).lstrip(".")
    return f"[{section}] {key}: "


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
