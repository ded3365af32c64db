"""The fetcher process: the only one that imports mlflow for the gateway and holds its credentials.

    python -m modelhub.serving.workers.fetch.process --fd N

The gateway (`gateway/artifacts/fetcher.py`) starts it when it first has a question, hands it one end of a socket
pair, and closes the other end when it has been idle for a while; that ends this process. Requests are
answered as they become ready: downloads in one pool of threads, questions in another, so that slow
downloads hold up no question.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional
from urllib.parse import urlsplit

from ...protocol.errors import ConfigError, LoadError, NotFound, NotReady, ServingError
from ...protocol.framing import Unpacker, pack
from ...protocol.messages import (
    FetchedReply,
    FetchFailedReply,
    FetchRequest,
    Message,
    MetadataReply,
    MetadataRequest,
    ProgressReply,
    ResolvedReply,
    ResolveRequest,
    SearchedReply,
    SearchRequest,
)
from ...protocol.redaction import Redactor, without_userinfo
from . import mlflow as model_source
from .modelhub import ModelHub, hub_from_environment
from .redaction import redact_standard_streams

THREADS = 4

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_UNAUTHORIZED = re.compile(r"\b(?:error code (40[13])|(40[13]) Client Error)")


def main() -> None:
    """Entry point of the process; returns when the gateway has closed its end."""
    parser = argparse.ArgumentParser(prog="modelhub fetcher", description=__doc__.splitlines()[0])
    parser.add_argument("--fd", type=int, required=True, help="this process's end of the socket pair")
    options = parser.parse_args()
    _bind_to_parent()
    model_source.set_defaults()
    redactor = Redactor(os.environ)
    redact_standard_streams(redactor)
    with socket.socket(fileno=options.fd) as channel:
        Fetcher(channel, redactor).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # downloads that nobody waits for any more must not delay the end


class Fetcher:
    """Reads requests from the socket until its end, answers them from threads."""

    def __init__(self, channel: socket.socket, redactor: Redactor) -> None:
        self._channel = channel
        self._redactor = redactor
        self._sending = threading.Lock()
        self._login = threading.Lock()
        self._hub: Optional[ModelHub] = None
        self._downloads = ThreadPoolExecutor(THREADS, thread_name_prefix="download")
        self._questions = ThreadPoolExecutor(THREADS, thread_name_prefix="question")

    def serve(self) -> None:
        unpacker = Unpacker()
        while True:
            try:
                data = self._channel.recv(65536)
            except ConnectionError:
                return
            if not data:
                return
            for request in unpacker.feed(data):
                pool = self._downloads if isinstance(request, FetchRequest) else self._questions
                pool.submit(self._handle, request)

    def _handle(self, request: Any) -> None:
        uri = getattr(request, "uri", "models:/")
        try:
            if model_source.uses_tracking_server(uri):
                self._log_in()
            model_source.import_mlflow()
            reply = self._answer(request)
        except BaseException as error:
            failure = _explain(error, request)
            reply = FetchFailedReply(request.id, failure.code, self._redactor.clean(failure.message))
        self._send(reply)

    def _answer(self, request: Any) -> Message:
        if isinstance(request, ResolveRequest):
            version, source = model_source.resolve(request.uri)
            return ResolvedReply(request.id, version, self._redactor.clean(source))
        if isinstance(request, MetadataRequest):
            return MetadataReply(request.id, model_source.metadata(request.uri))
        if isinstance(request, SearchRequest):
            return SearchedReply(request.id, model_source.search(request.names))
        if isinstance(request, FetchRequest):

            def progress(done: int, total: int) -> None:
                self._send(ProgressReply(request.id, done, total))

            return FetchedReply(request.id, model_source.download(request.uri, request.destination, progress))
        raise LoadError(f"the fetcher does not know the request {type(request).__name__}")

    def _log_in(self) -> None:
        """With ModelHub, where there is one."""
        with self._login:
            if self._hub is None:
                self._hub = hub_from_environment(self._redactor.add)
            if self._hub is not None:
                self._hub.log_in()

    def _send(self, reply: Message) -> None:
        frame = pack(reply)
        try:
            with self._sending:
                self._channel.sendall(frame)
        except OSError:
            os._exit(0)  # the gateway is gone


def _explain(error: BaseException, request: Any) -> ServingError:
    """Any exception as one of ours that says what was asked for, where, and what to do."""
    if isinstance(error, NotFound) and model_source.uses_tracking_server(getattr(request, "uri", "")):
        return NotFound(f"{error.message} (asked {_tracking_server()})")
    if isinstance(error, ServingError):
        return error
    asked = getattr(request, "uri", None) or "the registry's aliases"
    scheme = urlsplit(asked).scheme
    text = str(error).strip() or type(error).__name__
    if model_source.is_missing(error):
        return NotFound(f"{asked} does not exist on {_tracking_server()}: {text}")
    if isinstance(error, ImportError):
        package = {"s3": "boto3", "gs": "google-cloud-storage", "wasbs": "azure-storage-blob"}.get(scheme, error.name)
        return LoadError(f"{asked} cannot be read without the Python package {package}: install it beside the gateway")
    if "Could not find a registered artifact repository" in text:
        return ConfigError(f"{asked}: MLflow knows no model URIs that begin with {scheme}:")
    unauthorized = _UNAUTHORIZED.search(text)
    if unauthorized:
        return LoadError(
            f"{_tracking_server()} refuses {asked} ({unauthorized.group(1) or unauthorized.group(2)}): "
            "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if _is_unreachable(error):
        return NotReady(
            f"{_tracking_server()} cannot be reached for {asked}: check MLFLOW_TRACKING_URI and the network ({text})"
            if model_source.uses_tracking_server(asked) or scheme == ""
            else f"{asked} cannot be reached: check the network ({text})"
        )
    return LoadError(f"{asked} could not be read: {type(error).__name__}: {text}")


def _is_unreachable(error: BaseException) -> bool:
    """Whether the network is at fault: MLflow hides the exceptions of requests behind its own."""
    current: Optional[BaseException] = error
    while current is not None:
        for cls in type(current).__mro__:
            if cls is ConnectionError or cls.__name__ in (
                "Timeout",
                "ConnectTimeout",
                "ConnectionError",
                "MaxRetryError",
            ):
                return True
        current = current.__cause__ or current.__context__
    return "Max retries exceeded" in str(error)


def _tracking_server() -> str:
    import mlflow

    uri = without_userinfo(mlflow.get_tracking_uri())
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return f"the tracking server {uri}"
    return f"the tracking store {uri} (MLFLOW_TRACKING_URI is not set)"


def _bind_to_parent() -> None:
    """End with the gateway, whatever ends it; let no other process of this user read the memory.

    Ctrl-C reaches the whole terminal group: the gateway ends this process when it has drained.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    main()
