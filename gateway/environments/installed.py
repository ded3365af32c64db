"""Does an environment that exists already meet what a model was logged with? Compared without importing anything.

`environment: auto` asks this of the gateway's own environment; the reasons it returns go into the log and the plan.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Protocol

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ...protocol.redaction import Redactor
from .spec import EnvironmentSpec

_MASK = Redactor().clean


class Installed(Protocol):
    """The distributions of one Python."""

    #: In full: "3.11.7".
    python_version: str

    def version(self, name: str) -> str | None:
        """The installed version of a distribution; None where there is none."""

    def requires(self, name: str) -> list[str]:
        """Its own requirements, with their markers."""


class OwnInstalled:
    """The distributions of the Python that runs this: the shared environment."""

    python_version = platform.python_version()

    def version(self, name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    def requires(self, name: str) -> list[str]:
        return list(importlib.metadata.requires(name) or [])


class ListedInstalled:
    """The distributions of another Python, as its probe listed them."""

    def __init__(self, python_version: str, versions: Mapping[str, str], requires: Mapping[str, list[str]]) -> None:
        self.python_version = python_version
        self._versions = {canonicalize_name(name): version for name, version in versions.items()}
        self._requires = {canonicalize_name(name): lines for name, lines in requires.items()}

    def version(self, name: str) -> str | None:
        return self._versions.get(canonicalize_name(name))

    def requires(self, name: str) -> list[str]:
        return self._requires.get(canonicalize_name(name), [])


def unmet(spec: EnvironmentSpec, installed: Installed) -> list[str]:
    """The reasons why `installed` is not what the model was logged with; [] where every requirement is met exactly.

    For example ["Python 3.9, here 3.11", "scikit-learn==1.2.2, here 1.9.1"]. Hashes, URLs, paths and pip's options
    cannot be compared with what is installed, so they are reasons too.
    """
    reasons: list[str] = []
    here = ".".join(installed.python_version.split(".")[:2])
    if spec.python and spec.python != here:
        reasons.append(f"Python {spec.python}, here {here}")
    flags = [" ".join(spec.flags)] if spec.flags else []
    reasons.extend(f"the pip option {_MASK(option)}" for option in (*spec.options, *flags))
    marker_environment = _marker_environment(installed)
    for line in spec.requirements:
        if line.requirement is None or line.requirement.url:
            reasons.append(f"{_MASK(line.text)} is a URL or a path")
        elif _applies(line.requirement, marker_environment):
            if line.hashed:
                reasons.append(
                    f"{_plain(line.requirement)} has hashes, which cannot be compared with what is installed"
                )
            else:
                reasons.extend(_unmet_requirement(line.requirement, installed, marker_environment, set()))
    for line in spec.constraints:
        if line.requirement is None or not _applies(line.requirement, marker_environment):
            continue
        version = installed.version(line.requirement.name)
        if version is not None and not line.requirement.specifier.contains(version, prereleases=True):
            reasons.append(f"{_plain(line.requirement)} (a constraint), here {version}")
    return list(dict.fromkeys(reasons))


def _unmet_requirement(
    requirement: Requirement, installed: Installed, marker_environment: dict[str, str], seen: set[str]
) -> list[str]:
    version = installed.version(requirement.name)
    if version is None:
        return [f"{_plain(requirement)}, not installed here"]
    if not requirement.specifier.contains(version, prereleases=True):
        return [f"{_plain(requirement)}, here {version}"]
    reasons: list[str] = []
    for extra in requirement.extras:
        mark = f"{canonicalize_name(requirement.name)}[{extra}]"
        if mark in seen:
            continue
        seen.add(mark)
        for text in installed.requires(requirement.name):
            try:
                needed = Requirement(text)
            except InvalidRequirement:
                continue  # old metadata of a package that is installed all the same
            if needed.marker and "extra" in str(needed.marker) and _applies(needed, marker_environment, extra):
                found = _unmet_requirement(needed, installed, marker_environment, seen)
                reasons.extend(f"{reason} (for {mark})" for reason in found)
    return reasons


def _applies(requirement: Requirement, environment: dict[str, str], extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})


def _marker_environment(installed: Installed) -> dict[str, str]:
    environment = {name: str(value) for name, value in default_environment().items()}
    environment["python_full_version"] = installed.python_version
    environment["python_version"] = ".".join(installed.python_version.split(".")[:2])
    return environment


def _plain(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
