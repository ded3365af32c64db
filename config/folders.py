"""The models of a group's folder (`from: {folder: …}`) as entries, when the folder has changed while it is served."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from pydantic import ValidationError

from ..protocol.signature import MLMODEL
from .entries import EntryDefaults, ModelSettings
from .settings import GroupSettings, Settings

#: What tells that a model was put there anew: time in ns, size and inode of its MLmodel file.
Stamp = tuple[int, int, int]


def scan(folder: str) -> dict[str, Stamp]:
    """The sub-folders with an MLmodel file. Reads the disk. Raises OSError when the folder cannot be read."""
    found: dict[str, Stamp] = {}
    with os.scandir(folder) as children:
        names = sorted(child.name for child in children)
    for name in names:
        try:
            status = os.stat(os.path.join(folder, name, MLMODEL))
        except OSError:
            continue  # something else, or on its way in or out
        if stat.S_ISREG(status.st_mode):
            found[name] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def own_models(group: GroupSettings, defaults: EntryDefaults) -> tuple[ModelSettings, ...]:
    """The entries that the configuration lists; those that its folder alone has given are left out."""
    return tuple(entry for entry in group.models if entry != _entry(group, entry.name, defaults))


def with_folder(settings: Settings, group: str, names: Iterable[str]) -> tuple[Settings, list[str]]:
    """The configuration when the group's folder holds these models, and which of them have no usable name."""
    unusable: list[str] = []
    groups = []
    taken = {model.name for model in settings.models}
    taken |= {model.name for each in settings.groups if each.name != group for model in each.models}
    for each in settings.groups:
        if each.name == group and each.from_ is not None:
            models = list(own_models(each, settings.defaults))
            known = taken | {model.name for model in models}
            for name in names:
                entry = None if name in taken else _entry(each, name, settings.defaults)
                if entry is None:
                    unusable.append(name)
                elif name not in known:
                    models.append(entry)
            each = each.model_copy(update={"models": tuple(models)})
        groups.append(each)
    return settings.model_copy(update={"groups": tuple(groups)}), unusable


def _entry(group: GroupSettings, name: str, defaults: EntryDefaults) -> ModelSettings | None:
    """The entry of a sub-folder; None for a name that cannot be a model's."""
    if group.from_ is None:
        return None
    uri = os.path.join(group.from_.folder, name)
    try:
        return ModelSettings.model_validate({**defaults.model_dump(exclude_unset=True), "name": name, "uri": uri})
    except ValidationError:
        return None
