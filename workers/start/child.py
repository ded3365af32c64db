"""What a worker process does between its birth and its request loop: it makes itself at home.

A forked worker comes out of the fork server with that process's memory, a spawned one out of a fresh
interpreter; from `run` on they are alike.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import traceback
from typing import Dict, List

import msgpack

from ...protocol.worker_spec import WorkerSpec
from .. import linux
from ..loop import imported

#: The kernel ends workers first when memory runs out, then fork servers, then the gateway.
OOM_SCORE = 800


def title(spec: WorkerSpec) -> str:
    replica = f" replica {spec.replica}" if spec.replica else ""
    return f"modelhub: worker {spec.name}/{spec.version}{replica}"


def main_forked(spec: WorkerSpec, log_fd: int, close: List[int], parent: int, variables: Dict[str, str]) -> int:
    """In the child, right after the fork.

    `close`: the fork server's own descriptors; `variables`: what imports there have set, where the worker's own say
    nothing else.
    """
    imported.born()
    os.setsid()
    linux.die_with_parent(parent)
    for descriptor in close:
        os.close(descriptor)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    os.environ.clear()
    os.environ.update({**variables, **spec.env})
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()
    set_threads(spec.threads or linux.cpus())
    gc.enable()
    return run(spec)


def set_threads(count: int) -> None:
    """Give the numeric libraries that came along with the fork `count` threads each.

    They were imported with one, by environment variables that they never read again; what is imported from
    now on reads those of the worker.
    """
    if count == 1:
        return
    try:
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(count)
        if "numexpr" in sys.modules:
            sys.modules["numexpr"].set_num_threads(min(count, sys.modules["numexpr"].MAX_THREADS))
        if "numpy" in sys.modules:
            import threadpoolctl

            threadpoolctl.threadpool_limits(limits=count)
    except Exception as error:
        print(f"threads: {count} is not in force for every library: {type(error).__name__}: {error}")


def main_spawned(descriptor: int) -> int:
    """In a fresh interpreter: stdout, stderr, environment and session were set by whoever started it."""
    with os.fdopen(descriptor, "rb") as file:
        data = msgpack.unpackb(file.read(), raw=False)
    linux.die_with_parent(data.pop("parent"))
    return run(WorkerSpec.from_wire(data))


def run(spec: WorkerSpec) -> int:
    """Settle in, then serve until told to stop. Returns the exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # To the log: where a native library crashed, and, asked with SIGUSR1, where a load or a prediction hangs. Over a
    # descriptor of its own: models redirect the usual one to read what a library prints, and the crash comes then.
    last_words = os.dup(2)
    faulthandler.enable(last_words)
    faulthandler.register(signal.SIGUSR1, last_words)
    linux.set_title(title(spec))
    linux.set_oom_score(OOM_SCORE)
    linux.become_subreaper()  # daemons that the model's code starts are told from others' by that, and end with it
    os.chdir(spec.cwd)
    sys.path[:0] = [entry for entry in spec.pythonpath if entry not in sys.path]
    try:
        from .serve import serve

        return serve(spec)
    except Exception:
        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
