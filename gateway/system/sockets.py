"""Sockets that are listened on: of an address (of both kinds for `::`), of a path, or those that systemd has opened.

They are made here and handed to a front, which takes the connections. Blocking: names are looked up.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from ...config.addresses import UNIX
from ...protocol.errors import ConfigError

#: The first descriptor that systemd passes, as sd_listen_fds(3) says.
FIRST_PASSED = 3
#: Times that a free port is looked for which all addresses of a name have.
_ATTEMPTS = 10
#: Connections that wait to be taken.
BACKLOG = 1024
#: Of addresses that this machine does not have.
_MISSING = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


def bind(host: str, port: int) -> list[socket.socket]:
    """Of an address, or of all addresses of a name, at one port (0: any free one). Raises OSError.

    `::` is every address of both kinds, whatever the system's default is.
    """
    if host == "::" and not has_address("", socket.AF_INET6):
        host = "0.0.0.0"
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for attempt in range(_ATTEMPTS):
        try:
            return _bind_all(places, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt raises")


def _bind_all(places: Iterable[tuple[int, Any]], port: int) -> list[socket.socket]:
    """All that this machine has of these addresses, one at least."""
    made: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        for family, address in places:
            try:
                made.append(_bound(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
                missing = error
                continue
            port = port or made[-1].getsockname()[1]
    except OSError:
        close(made)
        raise
    if not made:
        raise missing
    return made


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        made.bind(address)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def has_address(address: str, family: socket.AddressFamily) -> bool:
    """Whether this machine has it; "": whether it has addresses of that family at all."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if address:
                probe.bind((address, 0))
    except OSError:
        return False
    return True


def close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


# ---- Unix sockets ----------------------------------------------------------------------------------


def bind_unix(path: str, mode: int) -> socket.socket:
    """Of a path, which a gateway that was killed may have left behind. Raises OSError.

    It never has a wider mode than `mode`.
    """
    clear_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(made.fileno(), mode)  # what the file is made with, less the umask
        made.bind(path)
        os.chmod(path, mode)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def clear_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Raises OSError where somebody does, or where it is something else."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(facts.st_mode):
        raise FileExistsError(errno.EEXIST, "there is something else that is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def remover(path: str) -> Callable[[], None]:
    """Removes the socket that is there now, at the end: not another's that has taken its place by then."""
    own = os.lstat(path)

    def remove() -> None:
        try:
            there = os.lstat(path)
            if (there.st_dev, there.st_ino, there.st_ctime_ns) == (own.st_dev, own.st_ino, own.st_ctime_ns):
                os.unlink(path)
        except OSError:
            pass  # somebody has been faster

    return remove


# ---- where it is -----------------------------------------------------------------------------------


def url_of(listening: socket.socket) -> str:
    """How it is reached from this machine: `http://…` without a slash at the end, or `unix:/path`."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return UNIX + (name if isinstance(name, str) else f"@{name[1:].decode(errors='replace')}")
    address, port = name[:2]
    return f"http://{in_url(reached_by(address, listening))}:{port}"


def reached_by(address: str, listening: socket.socket | None = None) -> str:
    """The address to ask for from this machine, where it may be that of every address; `listening`: bound to it."""
    if address == "0.0.0.0":
        return "127.0.0.1"
    if address != "::":
        return address
    both = listening is None or not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return "127.0.0.1" if both and has_address("127.0.0.1", socket.AF_INET) else "::1"


def in_url(host: str) -> str:
    """An address as it stands before a port: of the newer kind in brackets."""
    return f"[{host}]" if ":" in host else host


def address_of(listening: socket.socket) -> str:
    """What it is bound to: an address, or `unix:/path`."""
    return url_of(listening) if listening.family == socket.AF_UNIX else str(listening.getsockname()[0])


# ---- socket activation -----------------------------------------------------------------------------


def passed_by_systemd(environ: MutableMapping[str, str]) -> dict[str, list[socket.socket]]:
    """Sockets that this process was started with (LISTEN_FDS), by their names. Raises ConfigError.

    The variables are taken out of `environ`, and no process that is started inherits the sockets.
    """
    count, whose = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    environ.pop("LISTEN_PIDFDID", None)
    if not count.isdecimal() or whose != str(os.getpid()):
        return {}
    found: dict[str, list[socket.socket]] = {}
    for number in range(int(count)):
        name = names[number] if number < len(names) and names[number] else "unknown"
        found.setdefault(name, []).append(_passed(FIRST_PASSED + number, name))
    return found


def _passed(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        given = socket.socket(fileno=descriptor)
        if given.type == socket.SOCK_STREAM and given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            given.setblocking(False)
            return given
        given.detach()
    except OSError:
        pass
    raise ConfigError(
        f"descriptor {descriptor} ({name}), which LISTEN_FDS names, is no socket that is listened on: the unit "
        "needs ListenStream= and no Accept=yes"
    )
