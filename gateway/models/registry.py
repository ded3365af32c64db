"""The registry: which models there are, which version of each serves, and whether the server is ready."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rapidfuzz import fuzz, process

from ...config.fields import MAX_NAME
from ...protocol.errors import NotFound
from .states import ModelState, brief
from .version import ModelVersion

#: Names that an unknown one is compared with, how alike (of 100) a suggestion must be, and versions that are told.
MOST_COMPARED, MEANT_IF_ALIKE, MOST_SHOWN = 2000, 60, 20


@dataclass(frozen=True)
class Readiness:
    """What `/v2/health/ready` answers: a judgement, not a stored state."""

    ready: bool
    #: Label of each model that is not ready (whether or not it decides) and why.
    reasons: dict[str, str] = field(default_factory=dict)
    #: Whether there is anything to judge by.
    counts: bool = True
    #: Whether any model is ready.
    some: bool = False


class Registry:
    """Model versions by name, kept by the catalog and asked by the routes."""

    def __init__(self, policy: Literal["all", "any"] | Sequence[str] = "all", *, strict: bool = False) -> None:
        self._models: dict[str, list[ModelVersion]] = {}
        self._policy = policy
        self._strict = strict
        self._was_ready = False
        self.draining = False

    def add(self, version: ModelVersion) -> None:
        self._models.setdefault(version.name, []).append(version)

    def remove(self, version: ModelVersion) -> None:
        versions = self._models[version.name]
        versions.remove(version)
        if not versions:
            del self._models[version.name]

    def names(self) -> list[str]:
        return list(self._models)

    def all(self) -> Iterable[ModelVersion]:
        for versions in self._models.values():
            yield from versions

    def versions(self, name: str) -> list[ModelVersion]:
        """Raises NotFound, naming what comes near."""
        found = self._models.get(name) if len(name) <= MAX_NAME else None
        if found is None:
            raise self._unknown(name)
        return found

    def _unknown(self, name: str) -> NotFound:
        """What comes near is looked for among so many names of so many characters that it costs less than a request."""
        if len(name) > MAX_NAME:
            return NotFound(f"there is no model {name[:MAX_NAME]!r}…: names have {MAX_NAME} characters at most")
        names = list(itertools.islice(self._models, MOST_COMPARED))
        found = process.extract(name, names, scorer=fuzz.ratio, limit=3, score_cutoff=MEANT_IF_ALIKE)
        near = [match for match, _, _ in found]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; GET /v2/models lists those there are"
        return NotFound(f"there is no model {name!r}{hint}")

    def find(self, name: str, version: str | None = None) -> ModelVersion:
        """The version asked for, or the one that serves. Raises NotFound."""
        if len(name) > MAX_NAME:
            raise self._unknown(name)  # not even hashed: a message's name may have any length
        found = self._models.get(name)
        if found is not None and len(found) == 1 and (version is None or found[0].version == version):
            return found[0]
        versions = self.versions(name)
        if version is None:
            return self.serving(name)
        found = [each for each in versions if each.version == version]
        if found:
            return max(found, key=lambda each: (each.state is ModelState.READY, each.serves))
        known = ", ".join(each.version or "(not resolved yet)" for each in versions[:MOST_SHOWN])
        known += ", …" if len(versions) > MOST_SHOWN else ""
        raise NotFound(f"model {name} has no version {version[:200]!r}; it has {known}")

    def serving(self, name: str) -> ModelVersion:
        """The version that answers for a known name: the entry with `default`, else the newest that is ready."""
        versions = self._models[name]
        if len(versions) == 1:
            return versions[0]
        versions = [version for version in versions if version.serves] or versions
        for version in versions:
            if version.entry.default:
                return version
        return max(versions, key=_newest_ready)

    def readiness(self) -> Readiness:
        """Judged per name by its serving version. A question: it changes nothing."""
        judged = self._judge()
        if judged.ready or self.draining or not judged.counts:
            return judged
        return replace(judged, ready=judged.some and self._was_ready and not self._strict)

    def note(self) -> None:
        """Called after every change of which versions there are, and of their states: what was ready once stays so.

        A pod that was ready stays ready when a model fails later, unless the policy is strict, or no model is left
        that answers.
        """
        if not self._was_ready:
            self._was_ready = self._judge().ready

    def _judge(self) -> Readiness:
        """By the present states alone."""
        reasons: dict[str, str] = {}
        ready: list[str] = []
        # one without a successor that does not serve was removed: it only answers what it has
        serving = [version for name in self._models if (version := self.serving(name)).serves]
        for version in serving:
            if version.ready:
                ready.append(version.name)
                continue
            state, reason, seconds = version.report()
            reason = brief(reason)
            if state.loading:
                reasons[version.label] = f"{state.value} for {seconds:.1f} s" + (f": {reason}" if reason else "")
            else:
                reasons[version.label] = f"{state.value}: {reason}"
        if self.draining:
            return Readiness(False, {"server": "draining", **reasons})
        if not serving:
            return Readiness(False, {"server": "no models are configured"}, counts=False)
        if self._policy == "all":
            now = len(ready) == len(serving)
        elif self._policy == "any":
            now = bool(ready)
        else:
            now = all(name in ready for name in self._policy)
        return Readiness(now, reasons, some=bool(ready))


def now_serving(version: ModelVersion, *, named: bool) -> ModelVersion:
    """What was found a while ago, or what has taken over from it since; `named`: not where that is another version."""
    while (after := version.successor) is not None and not (named and after.version != version.version):
        version = after
    return version


def _newest_ready(version: ModelVersion) -> tuple[bool, int, str]:
    """Highest number first; versions that are no numbers after them, by name."""
    label = version.version
    return (version.ready, int(label), "") if label.isdecimal() else (version.ready, -1, label)
