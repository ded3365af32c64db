"""The registry: which models there are, which version of each serves, and whether the server is ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rapidfuzz import process

from ...protocol.errors import NotFound
from .states import ModelState
from .version import ModelVersion


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
        found = self._models.get(name)
        if found is None:
            near = [match for match, score, _ in process.extract(name, self._models.keys(), limit=3) if score > 60]
            hint = f"; did you mean {' or '.join(near)}?" if near else "; GET /v2/models lists those there are"
            raise NotFound(f"there is no model {name[:200]!r}{hint}")
        return found

    def find(self, name: str, version: str | None = None) -> ModelVersion:
        """The version asked for, or the one that serves. Raises NotFound."""
        found = self._models.get(name)
        if found is not None and len(found) == 1 and (version is None or found[0].version == version):
            return found[0]
        versions = self.versions(name)
        if version is None:
            return self.serving(name)
        found = [each for each in versions if each.version == version]
        if found:
            return max(found, key=lambda each: (each.state is ModelState.READY, each.serves))
        known = ", ".join(each.version or "(not resolved yet)" for each in versions)
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
