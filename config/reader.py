"""The entries of a configuration: defaults merged in, validated one by one, named once.

Used by `load()` only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from ..protocol.signature import MLMODEL
from .entries import EntryDefaults, ModelSettings
from .fields import Section
from .problems import Problems, hint, keys_of
from .settings import GroupSettings
from .yaml_lines import KeyPath

_Section = TypeVar("_Section", bound=Section)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A new tree: `over` wins key by key, sections are merged."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


class EntryReader:
    """Reads `models` and `groups`, and remembers where each entry stands."""

    def __init__(self, problems: Problems, defaults: Mapping[str, Any], context: Mapping[str, Any]) -> None:
        self._problems = problems
        self._defaults = {key: value for key, value in defaults.items() if key in keys_of(EntryDefaults)}
        self._context = dict(context)
        self._read: list[tuple[KeyPath, ModelSettings]] = []

    def models(self, value: object, path: KeyPath) -> tuple[ModelSettings, ...]:
        """The entries of a `models` list; those with a problem are left out."""
        found = []
        for index, raw in enumerate(self._items(value, path)):
            entry = self._entry(raw, (*path, index))
            if entry is not None:
                found.append(entry)
        return tuple(found)

    def groups(self, value: object, path: KeyPath) -> tuple[GroupSettings, ...]:
        """The groups with their entries, those of their folders included."""
        found: dict[str, GroupSettings] = {}
        for index, raw in enumerate(self._items(value, path)):
            here = (*path, index)
            if not isinstance(raw, dict):
                self._problems.add(here, "must be a group: keys and values such as {name: documents, models: […]}")
                continue
            models = self.models(raw.get("models"), (*here, "models"))
            group = self._validated(GroupSettings, {key: v for key, v in raw.items() if key != "models"}, here)
            if group is None:
                continue
            if group.from_ is not None:
                models += self._from_folder(
                    group.from_.folder, {model.name for model in models}, (*here, "from", "folder")
                )
            if group.name in found:
                self._problems.add((*here, "name"), f"the group {group.name} is there already; give it another name")
            self._check_preload(group, models, here)
            found[group.name] = group.model_copy(update={"models": models})
        return tuple(found.values())

    def check_names(self, readiness: str | tuple[str, ...]) -> None:
        """No name and version twice, nor two defaults; the names that `server.readiness` lists exist."""
        first: dict[tuple[str, str | None], KeyPath] = {}
        for path, entry in self._read:
            key = (entry.name, entry.known_version)
            if key in first:
                version = f"version {key[1]}" if key[1] else "its version from the registry"
                self._problems.add(
                    (*path, "name"),
                    f"{entry.name} with {version} is there already, at {self._problems.place(first[key])}; "
                    "give it another name or version",
                )
            first.setdefault(key, path)
        defaults: dict[str, KeyPath] = {}
        for path, entry in self._read:
            if entry.default and entry.name in defaults:
                where = self._problems.place(defaults[entry.name])
                self._problems.add((*path, "default"), f"{entry.name} has a default version already, at {where}")
            elif entry.default:
                defaults[entry.name] = path
        names = {entry.name for _, entry in self._read}
        if not isinstance(readiness, str) and names:
            for name in readiness:
                if name not in names:
                    self._problems.add(("server", "readiness"), f"no model is called {name}; {hint(name, names)}")

    def missing_paths(self) -> Iterator[tuple[KeyPath, str]]:
        """Local folders of models and of Python modules that are not there."""
        seen: set[str] = set()
        for path, entry in self._read:
            local = entry.local_path
            if local is not None and not os.path.isfile(os.path.join(local, MLMODEL)):
                what = "has no MLmodel file" if os.path.isdir(local) else "does not exist"
                yield (*path, "uri"), f"{local} {what}"
            for folder in entry.pythonpath:
                if folder not in seen and not os.path.exists(folder):
                    yield (*path, "pythonpath"), f"{folder} does not exist"
                seen.add(folder)

    def _items(self, value: object, path: KeyPath) -> list[Any]:
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self._problems.add(path, "must be a list: one '- ' for each")
        return []

    def _entry(self, raw: object, path: KeyPath) -> ModelSettings | None:
        if not isinstance(raw, dict):
            self._problems.add(path, "must be a model: keys and values such as {name: iris, uri: ./models/iris}")
            return None
        entry = self._validated(ModelSettings, merge(self._defaults, raw), path)
        if entry is not None:
            self._read.append((path, entry))
        return entry

    def _validated(self, section: type[_Section], raw: Mapping[str, Any], path: KeyPath) -> _Section | None:
        try:
            return section.model_validate(raw, context=self._context)
        except ValidationError as error:
            self._problems.add_errors(error, path, section)
            return None

    def _from_folder(self, folder: str, named: set[str], path: KeyPath) -> tuple[ModelSettings, ...]:
        try:
            children = sorted(os.listdir(folder))
        except OSError as error:
            self._problems.add(path, f"{folder} cannot be read: {error.strerror}")
            return ()
        raw = [
            {"name": child, "uri": os.path.join(folder, child)}
            for child in children
            if child not in named and os.path.isfile(os.path.join(folder, child, MLMODEL))
        ]
        return tuple(entry for entry in (self._entry(one, path) for one in raw) if entry is not None)

    def _check_preload(self, group: GroupSettings, models: tuple[ModelSettings, ...], path: KeyPath) -> None:
        names = {model.name for model in models}
        if group.from_ is not None:
            return  # a model may be put into the folder later
        for name in group.preload_order:
            if name not in names:
                self._problems.add((*path, "preload_order"), f"the group has no model {name}; {hint(name, names)}")
