"""From a command line's argument, flags and environment to `Settings`: the one place that reads them.

Called by the command line (`modelhub serve`, `check`, `env`), by `python -m modelhub.serving.server`
and by a reload. Precedence: flag, MODELHUB_*, the guide's PORT and LOG_LEVEL, file, default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..protocol.errors import ConfigError
from ..protocol.model_cache import default_state_dir
from ..protocol.signature import MLMODEL
from ..protocol.uris import has_scheme
from . import overrides
from .entries import EntryDefaults
from .fields import FromShell
from .problems import Problems, hint, keys_of
from .reader import EntryReader, merge
from .server import ServerSettings
from .settings import ConfigFile, Settings
from .yaml_lines import Document, parse

DEFAULT_NAME = "default-model"
_MODEL_VARIABLES = ("MODEL_URI", "MODEL_NAME_REGISTRY", "MODEL_VERSION", "MODEL_NAME")
_MAX_FILE = 64 << 20


def load(
    argument: str | None,
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    strict_paths: bool = False,
) -> Settings:
    """The settings of one run; what deserves a log line is in `Settings.warnings`.

    argument: a YAML file is a configuration; a folder with an MLmodel file or a URI with a scheme is a
        model to serve alone; None takes the model from MODEL_URI, or MODEL_NAME_REGISTRY and MODEL_VERSION.
    flags: dotted keys without dashes, `{"server.port": "9000"}`.
    environ: the environment variables; os.environ when None.
    strict_paths: a local model or pythonpath folder that is not there is an error, not a warning.

    Raises ConfigError with one line per problem: `file:line: key: what is wrong`.
    """
    environ = os.environ if environ is None else environ
    if argument is not None and not has_scheme(argument) and not os.path.isdir(argument):
        return _from_file(Path(argument), flags or {}, environ, strict_paths)
    return _from_model(argument, flags or {}, environ, strict_paths)


def load_mapping(
    content: Mapping[str, Any],
    label: str,
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of a configuration that no file holds; `label` stands for the file's name in errors.

    Paths in it are relative to the working directory. Raises ConfigError as `load` does.
    """
    environ = os.environ if environ is None else environ
    return _assemble(Document(dict(content)), label, None, flags or {}, environ, False, [])


def load_server(*, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None) -> ServerSettings:
    """The `server` section from flags and variables alone, for commands that need no configuration file."""
    return _assemble(
        Document({}), "server", None, flags or {}, os.environ if environ is None else environ, False, []
    ).server


def _from_file(path: Path, flags: Mapping[str, str], environ: Mapping[str, str], strict_paths: bool) -> Settings:
    label = str(path)
    try:
        if path.stat().st_size > _MAX_FILE:
            raise ConfigError(f"{label}: larger than {_MAX_FILE >> 20} MiB: this is no configuration")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{label}: no such file; give a YAML file, a folder with an MLmodel file or a URI") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{label}: not UTF-8 text: this is no YAML file") from None
    except OSError as error:
        raise ConfigError(f"{label}: cannot be read: {error.strerror}") from None
    ignored = [name for name in _MODEL_VARIABLES if environ.get(name)]
    warnings = [f"{', '.join(ignored)} ignored: the models come from {label}"] if ignored else []
    settings = _assemble(parse(text, label), label, path.absolute(), flags, environ, strict_paths, warnings)
    if not any(True for _ in settings.entries) and not any(group.from_ for group in settings.groups):
        raise ConfigError(
            f'{label}: no models; write for example\nmodels:\n  - {{name: iris, uri: "models:/iris@champion"}}'
        )
    return settings


def _from_model(
    argument: str | None, flags: Mapping[str, str], environ: Mapping[str, str], strict_paths: bool
) -> Settings:
    uri, label, warnings = _model_uri(argument, environ)
    if not has_scheme(uri) and not os.path.isfile(os.path.join(uri, MLMODEL)):
        raise ConfigError(f"{label}: {uri} has no MLmodel file; give a model's folder, a URI or a YAML file")
    entry = {"name": FromShell(environ.get("MODEL_NAME") or DEFAULT_NAME), "uri": FromShell(uri)}
    return _assemble(Document({"models": [entry]}), label, None, flags, environ, strict_paths, warnings)


def _model_uri(argument: str | None, environ: Mapping[str, str]) -> tuple[str, str, list[str]]:
    """The model's URI, what to call its origin in errors, and warnings."""
    named, registered, version = (environ.get(name) for name in _MODEL_VARIABLES[:3])
    if argument is not None:
        ignored = [name for name in _MODEL_VARIABLES[:3] if environ.get(name)]
        return argument, "the model", [f"{', '.join(ignored)} ignored: the model is {argument}"] if ignored else []
    if named and registered:
        raise ConfigError("MODEL_URI and MODEL_NAME_REGISTRY are both set: set one of them")
    if named:
        return named, "MODEL_URI", ["MODEL_VERSION ignored: MODEL_URI names the model"] if version else []
    if registered:
        return f"models:/{registered}/{version or 'latest'}", "MODEL_NAME_REGISTRY", []
    raise ConfigError(
        "nothing to serve: give a YAML file, a folder with an MLmodel file or a URI such as runs:/<id>/model, "
        "or set MODEL_URI, or MODEL_NAME_REGISTRY and MODEL_VERSION"
    )


def _assemble(
    document: Document,
    label: str,
    source: Path | None,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    strict_paths: bool,
    warnings: list[str],
) -> Settings:
    """Merge, validate, and tell all problems at once."""
    problems = Problems(label, document if source else None)
    found = overrides.read(flags, environ)
    problems.origins.update(found.origins)
    for text in found.problems:
        problems.add_plain(text)
    root = document.value if document.value is not None else {}
    if not isinstance(root, dict):
        problems.add((), f"must be a mapping with the keys {', '.join(keys_of(ConfigFile))}")
        root = {}
    for key in root.keys() - keys_of(ConfigFile).keys():
        problems.add((key,), f"unknown key; {hint(key, keys_of(ConfigFile))}")

    context = {"folder": str(source.parent) if source else os.getcwd()}
    server_raw = merge(_section(root, "server", problems), found.tree.get("server", {}))
    server_raw.setdefault("state_dir", default_state_dir(environ))
    defaults_raw = merge(_section(root, "defaults", problems), found.tree.get("defaults", {}))
    server, defaults = ServerSettings.model_construct(), EntryDefaults.model_construct()
    try:
        server = ServerSettings.model_validate(server_raw, context=context)
    except ValidationError as error:
        problems.add_errors(error, ("server",), ServerSettings)
    try:
        defaults = EntryDefaults.model_validate(defaults_raw, context=context)
    except ValidationError as error:
        problems.add_errors(error, ("defaults",), EntryDefaults)
        defaults_raw = {}  # told once, not once more for every entry

    reader = EntryReader(problems, defaults_raw, context)
    models = reader.models(root.get("models"), ("models",))
    groups = reader.groups(root.get("groups"), ("groups",))
    reader.check_names(server.readiness)
    for path, text in reader.missing_paths():
        if strict_paths:
            problems.add(path, text)
        else:
            warnings.append(problems.describe(path, text))
    problems.raise_any()
    return Settings(
        server=server,
        defaults=defaults,
        models=models,
        groups=groups,
        source=source,
        warnings=tuple(warnings + found.warnings),
    )


def _section(root: dict[str, Any], key: str, problems: Problems) -> dict[str, Any]:
    value = root.get(key)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    problems.add((key,), "must be a section of keys and values")
    return {}
