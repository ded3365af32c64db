"""The base of every settings section, and the annotated types that its fields share.

A relative path means: relative to the folder of the YAML file, or, when it came from a flag or an
environment variable, to the working directory. `FromShell` marks the latter.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from ..protocol.uris import path_of

#: Characters of a name at most.
MAX_NAME = 200
NAME_PATTERN = rf"^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}$"
#: A registered model's name alone; a logged model's id (models:/m-…) needs no version.
_UNPINNED = re.compile(r"models:/(?!m-)[^/@]+")
_VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
_HOST_NAME_PATTERN = r"^[A-Za-z0-9_.:-]{1,253}$"
_TARGET_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"


class Section(BaseModel):
    """A frozen mapping of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class FromShell(str):
    """Text of a flag or an environment variable: lists are comma-separated, paths relative to the working directory."""

    __slots__ = ()


def absolute(value: str, info: ValidationInfo) -> str:
    """The path as an absolute one, `~` expanded; see the module's docstring for what it is relative to."""
    folder = None if isinstance(value, FromShell) else (info.context or {}).get("folder")
    return os.path.normpath(os.path.join(folder or os.getcwd(), os.path.expanduser(value)))


def _local_path(value: object, info: ValidationInfo) -> str:
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a path")
    return absolute(value, info)


def _uri(value: object, info: ValidationInfo) -> str:
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a URI; write runs:/<id>/model, models:/<name>@<alias> or a path")
    if _UNPINNED.fullmatch(value.strip()):
        name = value.strip()[:100]
        raise ValueError(f"{name} names no version; write {name}/<version>, {name}/latest or {name}@<alias>")
    path = path_of(value)
    if path is None:
        return value.strip()
    return absolute(FromShell(path) if isinstance(value, FromShell) else path, info)


def _environment(value: object, info: ValidationInfo) -> str:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and value in ("auto", "shared", "isolated"):
        return str(value)
    if isinstance(value, str) and ("/" in value or value.startswith(("~", "."))):
        return absolute(value, info)
    raise ValueError(f"{value!r} is not an environment; write auto, shared, isolated, or a path such as ./venv")


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError(
            f"{value[:60]!r} is not a name; write 1 to 200 letters, digits, '_', '.' or '-', "
            "beginning with a letter, a digit or '_'"
        )
    return value


def _free_for_models(value: str) -> str:
    if value == "stats":
        raise ValueError("'stats' cannot be a model's name: /v2/models/stats is the statistics of all models")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(_VARIABLE_PATTERN, value):
        raise ValueError(
            f"{value.partition('=')[0][:60]!r} is not the name of an environment variable; write names only"
        )
    return value


def _target(value: str) -> str:
    if not re.fullmatch(_TARGET_PATTERN, value):
        raise ValueError(f"{value[:100]!r} is not a class; write package.module:Class")
    return value


def _host_name(value: str) -> str:
    if not re.fullmatch(_HOST_NAME_PATTERN, value):
        raise ValueError(f"{value[:100]!r} is not the name of a host; write the name alone, such as models.example.com")
    return value


def _version(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a whole number")
    return value


def _split(value: object) -> object:
    if isinstance(value, FromShell):
        return [FromShell(part.strip()) for part in value.split(",") if part.strip()]
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


#: Splits the comma-separated text of a flag or variable; put on every list.
Listed = BeforeValidator(_split)
#: Accepts INFO for info.
AnyCase = BeforeValidator(_lower)

#: Keeps true from meaning 1; last in an Annotated, or its bounds do not reach the JSON Schema.
NoBool = BeforeValidator(_no_bool)

Count = Annotated[int, Field(ge=1), NoBool]
"""At least one."""

LocalPath = Annotated[str, BeforeValidator(_local_path), WithJsonSchema({"type": "string", "minLength": 1})]
"""An absolute path."""

ModelUri = Annotated[str, BeforeValidator(_uri), WithJsonSchema({"type": "string", "minLength": 1})]
"""A URI with a scheme, or an absolute path."""

EnvironmentChoice = Annotated[
    str, BeforeValidator(_environment), WithJsonSchema({"type": "string", "examples": ["auto", "shared", "isolated"]})
]
"""auto, shared, isolated, or the absolute path of a Python or venv."""

Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
"""What may stand between two slashes of a route."""

ModelName = Annotated[
    str,
    AfterValidator(_name),
    AfterValidator(_free_for_models),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN, "not": {"const": "stats"}}),
]
"""A name that is no route of its own below /v2/models."""

VariableName = Annotated[
    str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": _VARIABLE_PATTERN})
]
"""The name of an environment variable."""

HostName = Annotated[str, AfterValidator(_host_name), WithJsonSchema({"type": "string", "pattern": _HOST_NAME_PATTERN})]
"""The name of a host, or an address."""

ClassTarget = Annotated[str, AfterValidator(_target), WithJsonSchema({"type": "string", "pattern": _TARGET_PATTERN})]
"""package.module:Class"""

VersionLabel = Annotated[
    str,
    AfterValidator(_name),
    BeforeValidator(_version),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": NAME_PATTERN}, {"type": "integer"}]}),
]
"""A version as text; a whole number is accepted."""


def _threads(value: object) -> Any:
    if isinstance(value, str) and not value.isdecimal():
        if value != "auto":
            raise ValueError(f"{value[:60]!r} is neither auto nor a whole number")
        return 0
    return value


Threads = Annotated[
    int,
    BeforeValidator(_no_bool),
    BeforeValidator(_threads),
    Field(ge=0, le=4096),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0}]}),
]
"""Threads of the numeric libraries; `auto` is 0 and means all CPUs of the cgroup."""

Device = Annotated[
    str, BeforeValidator(_version), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]})
]
"""A GPU's index or its id (GPU-…), as CUDA_VISIBLE_DEVICES takes them."""
