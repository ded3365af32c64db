"""The names that a listener is reached by.

A page of another site reaches a gateway on this machine, or on its network, under a name of its own, which it has
pointed at the gateway's address; to the browser the two are one site then. The `Host` that a browser sends says that
name, and no page can make it say another. An address can be pointed at nothing else.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable

#: `name`, `name:port`, `192.0.2.1:8080`, `[::1]:8080`; a port is no part of what a listener is called, which may be
#: forwarded from another one.
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[^\[\]:/@\s,]{1,253}))(?::[0-9]{0,5})?")
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})


class Hosts:
    """Of one listener: what may stand in `Host`."""

    def __init__(self, listener: str, more: Iterable[str] = ()) -> None:
        """`listener`: the address that it is bound to; `more`: names that an operator has given it."""
        bound = listener.strip("[]").lower()
        address = _address(bound)
        self._wildcard = bound in _WILDCARDS
        self._loopback = self._wildcard or bound == "localhost" or (address is not None and address.is_loopback)
        self._addresses = {address} if address is not None else set()
        self._names = {bound, *(name.strip("[]").lower().rstrip(".") for name in more)}
        if not self._loopback or self._wildcard:
            self._names.add(os.uname().nodename.lower())

    def has(self, host: str) -> bool:
        """Whether `host`, as it stands in a request, is this listener."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found["six"] or found["name"]).lower().removesuffix(".")
        if name in self._names or (self._loopback and name == "localhost"):
            return True
        address = _address(name)
        if address is None:
            return False
        return self._wildcard or address in self._addresses or (self._loopback and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
