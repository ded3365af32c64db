"""A worker from its birth to its end: load what it serves, say so, then run its request loop."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback

from ...protocol.errors import ServingError
from ...protocol.messages import LoadFailedReply, ReadyReply
from ...protocol.worker_spec import WorkerSpec
from ..load.traces import settle_tracing
from ..loop.batching import Batching
from ..loop.link import Link
from ..loop.loop import Loop
from ..loop.threaded import ThreadedLoop


def serve(spec: WorkerSpec) -> int:
    """Run a worker from its birth to its end. Returns the process's exit code."""
    link = Link(spec)
    try:
        started = time.monotonic_ns()
        try:
            from .load import load

            settle_tracing()
            model = load(spec)
            settle_tracing()
        except Exception as error:
            trace = traceback.format_exc()
            message = error.message if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
            link.send([(LoadFailedReply(message=message[:4000], traceback=trace[-20000:]), b"")])
            return 1
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        batching = Batching(model, spec.batching)
        # What is loaded stays: no later collection shall look at it, or touch pages that are shared.
        gc.collect()
        gc.freeze()
        ready = ReadyReply(
            pid=os.getpid(),
            python=sys.version.split()[0],
            versions=model.versions,
            metadata=model.metadata,
            example=model.example,
            example_altered=model.example_altered,
            load_ns=time.monotonic_ns() - started,
            wants_headers=model.wants_headers,
            streams=model.streams,
            credits=batching.credits(spec.concurrency),
        )
        link.send([(ready, b"")])
        kind = Loop if spec.concurrency == 1 else ThreadedLoop
        kind(spec, link, model, batching).run()
        return 0
    finally:
        link.close()
