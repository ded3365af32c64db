"""Runs a command as systemd runs a service with sockets: `activate.py NAME=ADDRESS… -- COMMAND…`.

An address is `127.0.0.1:0`, `[::]:0`, `unix:/path`, or `datagram:/path`, which is none to listen on. The command gets
the sockets from descriptor 3 on, and LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES in its environment; `--pid N` tells it
another process id than its own.
"""

from __future__ import annotations

import os
import socket
import sys


def opened(address: str) -> socket.socket:
    kind, _, path = address.partition(":")
    if kind in ("unix", "datagram"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if kind == "unix" else socket.SOCK_DGRAM)
        made.bind(path)
    else:
        host, _, port = address.rpartition(":")
        made = socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET)
        made.bind((host.strip("[]"), int(port)))
    if kind != "datagram":
        made.listen(64)
    return made


def main(arguments: list[str]) -> None:
    pid = os.getpid()
    if arguments[0] == "--pid":
        pid, arguments = int(arguments[1]), arguments[2:]
    end = arguments.index("--")
    given = [each.partition("=") for each in arguments[:end]]
    # high numbers first, so that none is overwritten before it is moved
    high = [os.dup2(opened(address).detach(), 100 + number) for number, (_, _, address) in enumerate(given)]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, 3 + number, inheritable=True)
        os.close(descriptor)
    names = ":".join(name for name, _, _ in given)
    os.environ.update(LISTEN_PID=str(pid), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=names)
    os.execvp(arguments[end + 1], arguments[end + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
