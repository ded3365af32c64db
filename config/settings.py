"""The whole configuration, typed: what `load()` returns and the gateway is built from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from .entries import BatchingSettings, EntryDefaults, ImageSettings, LimitSettings, ModelSettings, PdfSettings
from .fields import Count, LocalPath, Name, NoBool, Section
from .quantities import PositiveDuration, PositiveSize
from .server import EnvironmentSettings, LogSettings, ServerSettings

__all__ = [
    "BatchingSettings",
    "ConfigFile",
    "Entry",
    "EntryDefaults",
    "EnvironmentSettings",
    "FolderSettings",
    "GroupSettings",
    "ImageSettings",
    "LimitSettings",
    "LogSettings",
    "ModelSettings",
    "PdfSettings",
    "ServerSettings",
    "Settings",
    "json_schema",
]


class FolderSettings(Section):
    """Where a group finds models by itself."""

    folder: LocalPath
    """Each sub-folder with an MLmodel file is a model of that name; an entry of the same name in `models` wins."""


class GroupSettings(Section):
    """Models that share a memory budget and a loading policy (a ModelServiceGroup)."""

    name: Name
    """The group's name in logs and metrics."""

    load: Literal["eager", "lazy"] = "eager"
    """eager: at start; lazy: at the first request."""

    memory_budget: PositiveSize | None = None
    """Measured private bytes of the group's workers; the least recently used idle model goes first."""

    idle_timeout: PositiveDuration | None = None
    """Seconds without a request after which a lazy model is unloaded."""

    max_loaded: Count | None = None
    """Models loaded at once at most."""

    preload_order: tuple[Name, ...] = ()
    """Names of the models to load at start, in this order; the others follow (eager) or wait (lazy)."""

    parallel_loads: Annotated[int, Field(ge=1, le=256), NoBool] = 2
    """Loads at once at most, those that have taken more than ten seconds not counted."""

    from_: Annotated[FolderSettings | None, Field(alias="from")] = None
    """A folder to find models in, beside those of `models`."""

    models: tuple[ModelSettings, ...] = ()
    """The group's entries; they take every key of a plain one."""


class Entry(NamedTuple):
    """One entry of the configuration and where it stands."""

    model: ModelSettings
    #: None for an entry of the top-level `models`.
    group: str | None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def uri(self) -> str:
        """The model's URI or absolute path; empty for a service without one."""
        return self.model.uri


class ConfigFile(Section):
    """What a configuration file may hold."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    """The gateway itself."""

    defaults: EntryDefaults = EntryDefaults()
    """Keys for every entry that does not set them itself."""

    models: tuple[ModelSettings, ...] = ()
    """Models to serve, loaded at start."""

    groups: tuple[GroupSettings, ...] = ()
    """Groups of models with a loading policy of their own."""


class Settings(ConfigFile):
    """A configuration with variables, flags and defaults merged in."""

    source: Path | None = None
    """The file it was read from, absolute; None when it was made from a URI or the environment."""

    warnings: tuple[str, ...] = ()
    """What the reader of the log should know about it, one sentence each."""

    @property
    def entries(self) -> Iterator[Entry]:
        """Every entry, plain ones first, then group by group, with its group's name."""
        for model in self.models:
            yield Entry(model, None)
        for group in self.groups:
            for model in group.models:
                yield Entry(model, group.name)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration file, for editors and `modelhub schema`."""
    schema = ConfigFile.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "ModelHub Serving configuration"
    return schema
