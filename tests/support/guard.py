"""Runs a command that must not outlive the process that started it: `python guard.py exec|group COMMAND…`.

`exec`: becomes the command, which the kernel kills when the parent ends. `group`: stays its parent, and kills all that
the command started when it is asked to end or its own parent ends.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(number: int, parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            sys.exit(1)


def main() -> None:
    mode, *command = sys.argv[1:]
    parent = os.getppid()
    if mode == "exec":
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # a run in the background may ignore them
            signal.signal(number, signal.SIG_DFL)
        end_with_parent(signal.SIGKILL, parent)
        os.execvp(command[0], command)
    child = subprocess.Popen(command, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        end_with_parent(signal.SIGTERM, parent)
        sys.exit(child.wait())
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


if __name__ == "__main__":
    main()
