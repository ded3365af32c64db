"""What the fetcher asks MLflow: which model a URI means, its MLmodel, its files, the registry's aliases.

A *source* is what `resolve` returns: the URI pinned to what it means now (an alias to its version, a
run's model to its id), and the hash of its MLmodel, which every logging of a model makes anew:

    models:/iris/3#sha256=5f0c…      models:/m-1a2b…#sha256=…      s3://bucket/model#sha256=…

So one source is one content, and `download` of a source brings exactly that content or fails.
mlflow is imported by `import_mlflow`, for it takes seconds, and the process should be there at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ...protocol.errors import ConfigError, LoadError, NotFound
from ...protocol.signature import MLMODEL
from ...protocol.uris import HASH_MARK
from .credentials import confine

LATEST = "latest"

_PROGRESS_PERIOD = 0.25
_SEARCH_PAGE = 1000
#: Up to so many names are asked one by one; beyond that the registry is read page by page.
_FEW_NAMES = 4

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pinned:
    """A URI that means the same tomorrow, the place MLflow reads it from, the registry's version or ""."""

    uri: str
    repository: str
    version: str = ""


#: Set unless the user has set them: no telemetry, no bars in the log, seconds instead of minutes until
#: an unreachable server is reported.
_MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

_importing = threading.Lock()


def set_defaults() -> None:
    """Make MLflow say soon what is wrong, in a process that does nothing but ask it."""
    for name, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)


def import_mlflow() -> None:
    """Import what the functions below use, once, whatever number of threads asks.

    Threads that import MLflow's modules at the same time can deadlock: they import each other in circles.
    """
    with _importing:
        import mlflow
        import mlflow.artifacts
        import mlflow.store.artifact.artifact_repository_registry
        import mlflow.store.artifact.http_artifact_repo
        import mlflow.store.artifact.models_artifact_repo
        import mlflow.tracking.client
        import mlflow.tracking.request_header.registry  # noqa: F401

        confine()


def uses_tracking_server(uri: str) -> bool:
    """Whether the URI can only be understood by asking the tracking server."""
    return urlsplit(uri).scheme in ("models", "runs", "mlflow-artifacts")


def resolve(uri: str) -> Tuple[str, str]:
    """(version, source) of a model URI; the version is "" where the URI has none."""
    pinned = _pin(uri)
    return pinned.version, pinned.uri + HASH_MARK + _hash(_read_mlmodel(pinned))


def metadata(uri: str) -> str:
    """The text of the model's MLmodel; no other file is downloaded."""
    return _read_mlmodel(_pin(_split(uri)[0])).decode("utf-8", "replace")


def download(uri: str, destination: str, progress: Progress) -> str:
    """Bring the model's directory to `destination`, which must not exist; returns it.

    For a source, verifies that it is that content. Calls progress(bytes done, bytes in all) a few
    times a second. An unfinished download leaves nothing at `destination`.
    """
    plain, wanted = _split(uri)
    pinned = _pin(plain)
    repository = _open(pinned)
    sizes = _list_files(repository)
    if MLMODEL not in sizes:
        raise _no_mlmodel(pinned)
    total = sum(size or 0 for size in sizes.values())
    staging = destination + ".part"
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(staging)
    try:
        with _Watch(staging, total, progress):
            repository.download_artifacts("", staging)
        _verify(staging, sizes, plain)
        if wanted:
            with open(os.path.join(staging, MLMODEL), "rb") as file:
                found = _hash(file.read())
            if found != wanted:
                raise LoadError(f"{plain} changed while it was downloaded: load the model again")
        os.rename(staging, destination)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    progress(total, total)
    return destination


def search(names: Sequence[str]) -> Dict[str, Dict[str, str]]:
    """For each registered model that exists: its aliases and "latest", each with its version."""
    client = _client()
    wanted = set(names)
    found: Dict[str, Dict[str, str]] = {}
    if len(wanted) <= _FEW_NAMES:
        for name in sorted(wanted):
            try:
                found[name] = _versions(client.get_registered_model(name))
            except Exception as error:
                if not is_missing(error):
                    raise
        return found
    token: Optional[str] = None
    while True:
        page = client.search_registered_models(max_results=_SEARCH_PAGE, page_token=token)
        found.update((model.name, _versions(model)) for model in page if model.name in wanted)
        token = page.token
        if not token or len(found) == len(wanted):
            return found


def is_missing(error: BaseException) -> bool:
    """Whether an MLflow error says that what was asked for does not exist."""
    code = getattr(error, "error_code", "")
    # a missing alias of an existing model is reported as an invalid parameter
    return code in ("RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND", "NOT_FOUND") or (
        code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)
    )


def _pin(uri: str) -> Pinned:
    parts = urlsplit(uri)
    if parts.scheme == "models" and not parts.netloc:
        return _pin_registered(uri)
    if parts.scheme == "runs" and not parts.netloc:
        return _pin_run(uri)
    return Pinned(uri, uri)


def _pin_registered(uri: str) -> Pinned:
    path = uri[len("models:") :]
    name, slash, suffix = path[1:].rstrip("/").partition("/")
    name, at, alias = (name, "", "") if slash else _split_alias(name)
    unpinned = not slash and not at and not name.startswith("m-")
    if unpinned or not path.startswith("/") or not name or "/" in suffix or (at and not alias):
        raise ConfigError(
            f"{uri} is no model URI: write models:/<name>/<version>, models:/<name>@<alias>, "
            "models:/<name>/latest or models:/<model id>"
        )
    if at:
        version = str(_client().get_model_version_by_alias(name, alias).version)
    elif not slash:
        return Pinned(f"models:/{name}", f"models:/{name}")
    elif suffix.isdecimal() and suffix.isascii():
        version = str(int(suffix))
    else:
        version = _newest(name, suffix, uri)
    pinned = f"models:/{name}/{version}"
    return Pinned(pinned, pinned, version)


def _split_alias(text: str) -> Tuple[str, str, str]:
    before, at, after = text.rpartition("@")
    return (before, at, after) if at else (text, "", "")


def _newest(name: str, stage: str, uri: str) -> str:
    candidates = [
        int(version.version)
        for version in _client().get_registered_model(name).latest_versions
        if stage.lower() in (LATEST, str(version.current_stage).lower())
    ]
    if not candidates:
        stages = "" if stage.lower() == LATEST else f" in stage {stage}"
        raise NotFound(f"{uri}: the registered model {name} has no version{stages}")
    return str(max(candidates))


def _pin_run(uri: str) -> Pinned:
    run_id, _, path = uri[len("runs:") :].strip("/").partition("/")
    if not run_id or not path:
        raise ConfigError(f"{uri} is no model URI: write runs:/<run id>/<name or path of the model>")
    info = _client().get_run(run_id).info
    model_id = _logged_model(info.experiment_id, run_id, path)
    if model_id:
        return Pinned(f"models:/{model_id}", f"models:/{model_id}")
    return Pinned(f"runs:/{run_id}/{path}", f"{info.artifact_uri.rstrip('/')}/{path}")


def _logged_model(experiment_id: str, run_id: str, name: str) -> str:
    """The id of the newest model that the run logged under this name (MLflow 3); "" if there is none."""
    client = _client()
    if "/" in name or "'" in name or not hasattr(client, "search_logged_models"):
        return ""
    newest: Tuple[int, str] = (0, "")
    token: Optional[str] = None
    while True:
        try:
            page = client.search_logged_models([experiment_id], filter_string=f"name = '{name}'", page_token=token)
        except Exception as error:
            if is_missing(error) or "error code 404" in str(error):  # a server older than MLflow 3
                return ""
            raise
        for model in page:
            if model.source_run_id == run_id and model.name == name:
                newest = max(newest, (model.creation_timestamp, model.model_id))
        token = page.token
        if not token:
            return newest[1]


def _client() -> Any:
    import mlflow

    return mlflow.MlflowClient()


def _open(pinned: Pinned) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(pinned.repository)


def _read_mlmodel(pinned: Pinned) -> bytes:
    repository = _open(pinned)
    with tempfile.TemporaryDirectory(prefix="modelhub-") as folder:
        try:
            path = repository.download_artifacts(MLMODEL, folder)
        except Exception:
            # how a missing file is reported differs between stores; a listing is the same everywhere
            if MLMODEL in {info.path for info in repository.list_artifacts("")}:
                raise
            raise _no_mlmodel(pinned) from None
        with open(path, "rb") as file:
            return file.read()


def _no_mlmodel(pinned: Pinned) -> NotFound:
    return NotFound(f"{pinned.uri} holds no MLflow model: there is no file {MLMODEL} in it, or it does not exist")


def _list_files(repository: Any) -> Dict[str, Optional[int]]:
    """Path -> size in bytes, None where the store does not say."""
    found: Dict[str, Optional[int]] = {}
    pending: List[str] = [""]
    seen = set(pending)
    while pending:
        for info in repository.list_artifacts(pending.pop()):
            if not info.is_dir:
                found[info.path] = info.file_size
            elif info.path not in seen:
                seen.add(info.path)
                pending.append(info.path)
    return found


def _verify(folder: str, sizes: Dict[str, Optional[int]], uri: str) -> None:
    for path, size in sizes.items():
        local = os.path.join(folder, path)
        if not os.path.isfile(local) or (size is not None and os.path.getsize(local) != size):
            raise LoadError(
                f"the download of {uri} is incomplete: {path} is missing or cut short; load the model again"
            )


def _split(uri: str) -> Tuple[str, str]:
    """A source to (pinned URI, hash); any other URI to (itself, "")."""
    plain, _, digest = uri.rpartition(HASH_MARK)
    return (plain, digest) if plain else (uri, "")


def _hash(mlmodel: bytes) -> str:
    return hashlib.sha256(mlmodel).hexdigest()[:32]


def _versions(model: Any) -> Dict[str, str]:
    found = {alias: str(version) for alias, version in dict(model.aliases).items()}
    newest = max((int(version.version) for version in model.latest_versions), default=0)
    if newest:
        found[LATEST] = str(newest)
    return found


class _Watch:
    """Reports the growth of a folder while a download fills it: works the same for every store."""

    def __init__(self, folder: str, total: int, progress: Progress) -> None:
        self._folder = folder
        self._total = total
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> _Watch:
        self._progress(0, self._total)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = 0
        while not self._stop.wait(_PROGRESS_PERIOD):
            done = _size_on_disk(self._folder)
            if done != last:
                last = done
                self._progress(min(done, self._total) if self._total else done, self._total)


def _size_on_disk(folder: str) -> int:
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.stat(os.path.join(root, name), follow_symlinks=False)
            except OSError:
                continue  # renamed meanwhile
            size += min(status.st_size, status.st_blocks * 512)  # a parallel download reserves the whole size first
    return size
