"""From Python types to the JSON schema that models read: plain, whole, without references."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, create_model

from dueto.call.call import Call
from dueto.errors import SettingsError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
LONGEST_DESCRIPTION_CHARS = 1000


def schema_of(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return the schema of a tool's arguments: an object, every reference written out, no titles.

    Raises: SettingsError: a type contains itself; no model could be told of it.
    """
    schema = model.model_json_schema()
    written = _written_out(schema, schema.get("$defs", {}), ())
    return {"type": "object", "properties": {}, **written, "additionalProperties": False}


def _written_out(part: Any, definitions: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_written_out(item, definitions, inside) for item in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if reference is not None:
        name = reference.rpartition("/")[2]
        if name in inside:
            raise SettingsError(f"{name} contains itself: a tool can't take it")
        rest = {key: value for key, value in part.items() if key != "$ref"}
        return {**_written_out(definitions[name], definitions, (*inside, name)), **rest}
    return {
        key: {name: _written_out(inner, definitions, inside) for name, inner in value.items()}
        if key == "properties"  # a property may be called `title` or `$defs`
        else _written_out(value, definitions, inside)
        for key, value in part.items()
        if key not in ("title", "$defs", "additionalProperties") or not isinstance(value, str | dict | bool)
    }


def described(function: Callable[..., Any], where: str) -> tuple[str, str]:
    """Return name and description of a function that is to be a tool. Raises: SettingsError: it lacks one."""
    name = getattr(function, "__name__", "")
    if not _NAME.fullmatch(name):
        raise SettingsError(f'{where}: a tool needs a name of letters, digits and _, not "{name}"')
    text = inspect.getdoc(function) or ""
    if not text:
        raise SettingsError(f"{where}: a tool needs a docstring: it is what the model knows of it")
    return name, text[:LONGEST_DESCRIPTION_CHARS]


def arguments_of(function: Callable[..., Any], where: str) -> tuple[type[BaseModel], str]:
    """Return the model of a function's parameters, and the name of the one that takes the `Call` (empty: none).

    Raises: SettingsError: a parameter has no type, or one that no JSON can be.
    """
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:  # whatever evaluating somebody's annotations raises
        raise SettingsError(f"{where}: its types can't be read: {error}") from None
    fields: dict[str, Any] = {}
    takes_call = ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise SettingsError(f"{where}: {parameter}: a tool's parameters are given by name, one by one")
        hint = hints.get(parameter.name)
        if hint is Call:
            takes_call = parameter.name
        elif hint is None:
            raise SettingsError(
                f"{where}: {parameter.name} needs a type: def {function.__name__}({parameter.name}: str)"
            )
        else:
            fields[parameter.name] = (hint, ... if parameter.default is parameter.empty else parameter.default)
    config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    try:
        model: type[BaseModel] = create_model(function.__name__, __config__=config, **fields)
        schema_of(model)
    except (PydanticUserError, NameError, TypeError) as error:
        raise SettingsError(f"{where}: its types can't be had from a model: {str(error).splitlines()[0]}") from None
    return model, takes_call
