"""A model URI to a folder on this machine, for services that load in a user's own process.

A gateway's worker never comes here: its model was fetched for it. In a script `load()` does, and then a
forked child does the asking and downloading: it holds the credentials, its threads and connections end
with it, and the script stays a process that can be forked. The folder is in the same cache that gateways
use (protocol/model_cache.py).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, NamedTuple

from ...protocol.errors import BY_CODE, LoadError, NotFound, ServingError
from ...protocol.locks import wait_for_lock
from ...protocol.model_cache import ModelCache, default_state_dir, make_state_dir
from ...protocol.redaction import Redactor, without_userinfo
from ...protocol.signature import MLMODEL
from ...protocol.uris import path_of
from .. import linux


class LocalModel(NamedTuple):
    path: str
    version: str  # the registry's; "" where the URI has none


def ensure_local(uri: str) -> LocalModel:
    """The folder of this model, downloaded unless it is there. Raises ConfigError, NotFound, NotReady or LoadError."""
    path = path_of(uri)
    if path is not None:
        path = os.path.abspath(path)
        if not os.path.isfile(os.path.join(path, MLMODEL)):
            raise LoadError(f"{uri} is no MLflow model: there is no file {path}/{MLMODEL}")
        return LocalModel(path, "")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    cache = _cache()
    while True:
        # A process with threads must not be forked; it will start its workers another way, too.
        found = _in_child(uri) if linux.tasks() == 1 else _fetch(uri)
        # The lock stays open: no gateway deletes this model as long as this process lives.
        if cache.hold(os.path.basename(found.path)) is not None:
            return found
        # a gateway has deleted it in between


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
        model_source.import_mlflow()
        version, source = model_source.resolve(uri)
        return LocalModel(_cached(source, redactor.clean(source), version), version)
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
    from .modelhub import hub_from_environment

    hub = hub_from_environment(redactor.add)
    if hub is not None:
        hub.log_in()


def _cache() -> ModelCache:
    """The one that gateways have."""
    state = os.path.abspath(os.environ.get("MODELHUB_SERVER_STATE_DIR") or default_state_dir(os.environ))
    try:
        make_state_dir(state)
    except OSError as error:
        reason = error.strerror or error
        raise LoadError(f"MODELHUB_SERVER_STATE_DIR is not usable: {state}: {reason}") from None
    return ModelCache(state, "MODELHUB_SERVER_STATE_DIR")


def _cached(source: str, named: str, version: str) -> str:
    """The model's folder, downloaded unless it is there; `named`: its source without secrets."""
    from . import mlflow as model_source

    cache = _cache()
    key = cache.key_of(named)
    lock = cache.hold(key)
    try:
        if lock is None:
            lock = cache.open(key)
            wait_for_lock(lock)
            if not cache.is_whole(key):  # else another process was faster
                cache.clear(key)
                print(f"downloading {named.partition('#')[0]}", file=sys.stderr, flush=True)
                model_source.download(source, cache.part(key), lambda done, total: None)
                cache.publish(key, lock, named, version)
        return cache.path(key)
    finally:
        if lock is not None:
            os.close(lock)
