"""Small facts about processes on Linux: parent-death signal, sub-reaper, title, descendants."""

from __future__ import annotations

import array
import ctypes
import math
import os
import signal
import socket
from typing import Dict, List, NamedTuple, Set, Tuple

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def receive_descriptors(sock: socket.socket, size: int, count: int) -> Tuple[bytes, List[int]]:
    """What `socket.recv_fds` of Python 3.9 gives: a message of at most `size` bytes, and the descriptors with it."""
    found = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_LEN(count * found.itemsize))
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(raw[: len(raw) - len(raw) % found.itemsize])
    return data, list(found)


def die_with_parent(parent: int, with_signal: int = signal.SIGKILL) -> None:
    """Ask the kernel for `with_signal` when the thread that started this process ends.

    `parent` is the process id that is expected as the parent: if it is gone already, exit now.
    """
    _prctl(_PR_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children, so that they can be found and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_dumps() -> None:
    """No core dump and no ptrace by others of this user: secrets in this process's memory stay there."""
    _prctl(_PR_SET_DUMPABLE, 0)


def set_title(title: str) -> None:
    """What `ps` shows: the command line is overwritten in place, at most at its old length."""
    raw = title.encode("utf-8", "replace")
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        room = end - start
        if start and room > 1:
            ctypes.memset(start, 0, room)
            ctypes.memmove(start, raw[: room - 1], min(len(raw), room - 1))
    except (OSError, ValueError, IndexError):
        return  # a title is a courtesy
    name = ctypes.create_string_buffer(raw.split(b"/")[0][:15])
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)


class ProcessFacts(NamedTuple):
    parent: int
    session: int
    zombie: bool


def all_processes() -> Dict[int, ProcessFacts]:
    """Every process that can be seen, by its id."""
    found: Dict[int, ProcessFacts] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        found[int(name)] = ProcessFacts(int(fields[1]), int(fields[3]), fields[0] == b"Z")
    return found


def descendants(root: int) -> List[int]:
    """The living processes below `root`, not `root` itself."""
    processes = all_processes()
    below: Set[int] = {root}
    grew = True
    while grew:
        found = {pid for pid, facts in processes.items() if facts.parent in below and pid not in below}
        below |= found
        grew = bool(found)
    return [pid for pid in below if pid != root and not processes[pid].zombie]


def children(parent: int) -> Set[int]:
    """The living processes that it is the parent of."""
    return {pid for pid, facts in all_processes().items() if facts.parent == parent and not facts.zombie}


def own_children() -> Set[int]:
    """The processes that this one is the parent of, those that have ended included."""
    found: Set[int] = set()
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    except OSError:  # a kernel without that file
        return children(os.getpid())
    return found


def session_members(session: int) -> List[int]:
    """The living processes of a session."""
    return [pid for pid, facts in all_processes().items() if facts.session == session and not facts.zombie]


def send_signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def tasks() -> int:
    """Threads of this process, those of C libraries included."""
    return len(os.listdir("/proc/self/task"))


def cpus() -> int:
    """CPUs that this process may use: its affinity, and the quota of its container (cgroup v2), rounded up."""
    count = len(os.sched_getaffinity(0))
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
            path = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
        with open(f"/sys/fs/cgroup{path.rstrip('/')}/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no such limit
    return max(count, 1)


def set_oom_score(adjustment: int) -> None:
    """Make the kernel prefer this process when memory runs out (0 to 1000; raising needs no privilege)."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(adjustment))
    except OSError:
        pass  # a sandbox without it: nothing that could be done
