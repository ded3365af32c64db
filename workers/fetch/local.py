"""A model URI to a folder on this machine, for services that load in a user's own process.

A gateway's worker never comes here: its model was fetched for it. In a script `load()` does, and then a
forked child does the asking and downloading: it holds the credentials, its threads and connections end
with it, and the script stays a process that can be forked. The folder is the same cache that gateways
use, with the same layout and locks (gateway/artifacts/store.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from typing import Any, Dict, NamedTuple, Tuple

from ...protocol.errors import BY_CODE, LoadError, NotFound, ServingError
from ...protocol.redaction import Redactor, without_userinfo
from ...protocol.uris import path_of
from .. import linux

_MLMODEL = "MLmodel"


class LocalModel(NamedTuple):
    path: str
    version: str  # the registry's; "" where the URI has none


def ensure_local(uri: str) -> LocalModel:
    """The folder of this model, downloaded unless it is there. Raises ConfigError, NotFound, NotReady or LoadError."""
    path = path_of(uri)
    if path is not None:
        path = os.path.abspath(path)
        if not os.path.isfile(os.path.join(path, _MLMODEL)):
            raise LoadError(f"{uri} is no MLflow model: there is no file {path}/{_MLMODEL}")
        return LocalModel(path, "")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # A process with threads must not be forked; it will start its workers another way, too.
    found = _in_child(uri) if linux.tasks() == 1 else _fetch(uri)
    _hold(found.path)
    return found


def _in_child(uri: str) -> LocalModel:
    import mlflow.artifacts  # noqa: F401 - imported once, here, and not in every child

    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.write(writer, json.dumps(_outcome(uri)).encode())
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if not data:
        raise LoadError(f"the download of {uri} ended without a word (status {status})")
    outcome: Dict[str, Any] = json.loads(data)
    if "code" in outcome:
        raise BY_CODE.get(outcome["code"], ServingError)(outcome["message"])
    return LocalModel(outcome["path"], outcome["version"])


def _outcome(uri: str) -> Dict[str, Any]:
    from .mlflow import set_defaults

    set_defaults()
    try:
        found = _fetch(uri)
    except BaseException as error:
        known = error if isinstance(error, ServingError) else LoadError(f"{type(error).__name__}: {error}")
        return {"code": known.code, "message": known.message[:4000]}
    return {"path": found.path, "version": found.version}


def _fetch(uri: str) -> LocalModel:
    from . import mlflow as model_source

    redactor = Redactor(os.environ)
    try:
        if model_source.uses_tracking_server(uri):
            _log_in(redactor)
        version, source = model_source.resolve(uri)
        return LocalModel(_cached(source), version)
    except ServingError as error:
        raise type(error)(redactor.clean(error.message), retry_after=error.retry_after) from None
    except Exception as error:
        text = redactor.clean(f"{type(error).__name__}: {error}")
        if model_source.is_missing(error):
            raise NotFound(f"{uri} does not exist on {_server()}: {text}") from None
        raise LoadError(f"{uri} could not be read from {_server()}: {text}") from None


def _server() -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return f"the tracking server {without_userinfo(uri)}" if uri else "MLflow (MLFLOW_TRACKING_URI is not set)"


def _log_in(redactor: Redactor) -> None:
    """With ModelHub, the tracking server's address and credentials come from its API."""
    from .modelhub import ModelHub, settings_from_environment

    settings = settings_from_environment(os.environ)
    if settings is None:
        return
    redactor.add(settings.client_secret)
    access = ModelHub(settings, on_secret=redactor.add).tracking()
    os.environ["MLFLOW_TRACKING_URI"] = access.uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = access.username
    os.environ["MLFLOW_TRACKING_PASSWORD"] = access.password


# ---- the cache ------------------------------------------------------------------------------------


def _root() -> str:
    state = os.environ.get("MODELHUB_SERVER_STATE_DIR")
    if not state:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        state = os.path.join(cache, "modelhub")
    return os.path.join(os.path.abspath(state), "artifacts")


def _places(root: str, key: str) -> Tuple[str, str, str]:
    return os.path.join(root, key), os.path.join(root, ".part", key), os.path.join(root, ".index", key)


def _cached(source: str) -> str:
    from . import mlflow as model_source

    key = hashlib.sha256(source.encode()).hexdigest()[:32]
    target, part, record = _places(_root(), key)
    try:
        os.makedirs(os.path.dirname(record), exist_ok=True)
        lock = os.open(record, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LoadError(f"{record} cannot be written ({error.strerror}): set MODELHUB_SERVER_STATE_DIR") from None
    try:
        if os.path.isfile(os.path.join(target, _MLMODEL)):
            os.utime(lock)
            return target
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isfile(os.path.join(target, _MLMODEL)):
            return target  # another process was faster
        for leftover in (target, part, part + ".part"):
            shutil.rmtree(leftover, ignore_errors=True)
        os.makedirs(os.path.dirname(part), exist_ok=True)
        print(f"downloading {source.partition('#')[0]}", file=sys.stderr, flush=True)
        model_source.download(source, part, lambda done, total: None)
        size = sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(part) for name in names)
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps({"source": source, "version": "", "bytes": size}).encode(), 0)
        os.rename(part, target)
        return target
    finally:
        os.close(lock)


def _hold(path: str) -> None:
    """Keep gateways from deleting this model as long as this process lives."""
    root, key = os.path.split(path)
    lock = os.open(_places(root, key)[2], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
