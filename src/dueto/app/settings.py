"""The whole configuration, and where it comes from. The sections: `sections.py`; each key: `docs/configuration.md`."""

import re
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from os import environ as process_environment
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from dueto.agents.profiles import Keys
from dueto.app.agent_sections import AgentSection, list_keys, profile_classes
from dueto.app.complaints import complain
from dueto.app.environment import FromEnvironment, Tree, get, merge, read_environment, read_older_names
from dueto.app.sections import (
    AgentSettings,
    CallSettings,
    ControlSettings,
    CorrelationSettings,
    DestinationSettings,
    LogsSettings,
    MediaSettings,
    MetricsSettings,
    RecordingSettings,
    RecordsSettings,
    RouteSettings,
    SwitchSettings,
    TenantSettings,
    TwilioSettings,
)
from dueto.app.serving import check_for_serving
from dueto.app.together import problems_between_sections
from dueto.call.ports import Destination
from dueto.errors import SettingsError

__all__ = ["Settings", "check_for_serving", "load_settings"]


class Settings(BaseSettings):
    """A whole configuration. `Settings()` is complete, from `DUETO_...` variables, older names and defaults.

    Raises: pydantic.ValidationError: a value is wrong; `load_settings` says it in sentences.
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False, env_prefix="DUETO_"
    )

    control: ControlSettings = ControlSettings()
    media: MediaSettings = MediaSettings()
    correlation: CorrelationSettings = CorrelationSettings()
    call: CallSettings = CallSettings()
    agent: AgentSettings = AgentSettings()
    agents: dict[str, AgentSection] = {}
    route: tuple[RouteSettings, ...] = ()
    tenants: dict[str, TenantSettings] = {}
    destinations: dict[str, DestinationSettings] = {}
    dtmf: Keys = {}
    switch: SwitchSettings = SwitchSettings()
    records: RecordsSettings = RecordsSettings()
    twilio: TwilioSettings = TwilioSettings()
    recording: RecordingSettings = RecordingSettings()
    logs: LogsSettings = LogsSettings()
    metrics: MetricsSettings = MetricsSettings()

    _remarks: tuple[str, ...] = PrivateAttr(default=())

    @property
    def settings_remarks(self) -> tuple[str, ...]:
        """What `load_settings` noticed and the log should say once: older names, variables that do nothing."""
        return self._remarks

    def destinations_by_name(self) -> dict[str, Destination]:
        """Return where one can be transferred to. A destination without words is called by its name."""
        return {
            name: Destination(
                name,
                entry.dial,
                entry.words or (re.sub(r"[_-]+", " ", name).lower(),),
                entry.digit,
                entry.when,
                entry.fallback,
                entry.mode,
                entry.after,
                entry.via,
            )
            for name, entry in self.destinations.items()
        }

    def destinations_of(self, tenant: str) -> dict[str, Destination]:
        """Return where the callers of a tenant can be transferred to; of none (empty): where no tenant's only can."""
        known = self.destinations_by_name()
        if tenant and self.tenants[tenant].destinations:
            return {name: known[name] for name in self.tenants[tenant].destinations}
        taken = {name for entry in self.tenants.values() for name in entry.destinations}
        return {name: destination for name, destination in known.items() if name not in taken}

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        problems = problems_between_sections(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the layers in their order; the first that has a key wins."""
        layers = _layers.get() or _read_layers({}, process_environment)
        trees = (layers.environment.tree, layers.older.tree, layers.file)
        return (init_settings, *(InitSettingsSource(settings_cls, tree) for tree in trees))


@dataclass(frozen=True)
class _Layers:
    environment: FromEnvironment
    older: FromEnvironment
    file: Tree


_layers: ContextVar[_Layers | None] = ContextVar("layers", default=None)
"How `load_settings` tells the sources what to read; `Settings()` reads the process's own environment."


def _read_layers(file: Tree, environ: Mapping[str, str]) -> _Layers:
    defaults = {
        name: field.default.model_dump()
        for name, field in Settings.model_fields.items()
        if isinstance(field.default, BaseModel)
    }
    sections = frozenset(Settings.model_fields)
    as_text = read_environment(environ, frozenset(), sections).tree  # which agents there are says which keys are lists
    lists = {"allow", "destinations", "numbers", "words"} | list_keys(merge(as_text, file))
    environment = read_environment(environ, frozenset(lists), sections)
    return _Layers(environment, read_older_names(environ, merge(file, defaults)), file)


def load_settings(path: Path | None, overrides: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Read a configuration: `overrides` (the command line) > `DUETO_...` > older names > the TOML file > defaults.

    `overrides` has the shape of the file; a None in it is an option that was not given.

    Raises: SettingsError: one line per problem, each naming the key and what was expected.
    """
    layers = _read_layers(_read_toml(path) if path else {}, environ)
    given = _without_none(overrides)
    token = _layers.set(layers)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        profiles = profile_classes(merge(given, layers.environment.tree, layers.file))
        raise SettingsError(complain(error, Settings, lambda loc: _origin(loc, given, layers), profiles)) from None
    finally:
        _layers.reset(token)
    settings._remarks = layers.environment.remarks + layers.older.remarks
    return settings


def _origin(loc: tuple[str | int, ...], given: Tree, layers: _Layers) -> str | None:
    """Return the variable that a key's value came from, None where it came from the command line or the file."""
    path = tuple(str(part) for part in loc if not isinstance(part, int))
    if get(given, path) is not None:
        return None
    names = layers.environment.names | {
        p: n for p, n in layers.older.names.items() if p not in layers.environment.names
    }
    if path in names:
        return names[path]
    # a section that only a variable speaks of
    return next((n for p, n in names.items() if p[: len(path)] == path and get(layers.file, path) is None), None)


def _read_toml(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: invalid TOML: {error}") from None  # names line and column


def _without_none(tree: Mapping[str, Any]) -> Tree:
    kept = {key: _without_none(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    return {key: value for key, value in kept.items() if value is not None}
