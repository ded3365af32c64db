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
    """Of one front: what may stand in `Host`."""

    def __init__(self, listeners: str | Iterable[str], more: Iterable[str] = ()) -> None:
        """`listeners`: the addresses that it is bound to; `more`: names that an operator has given it."""
        bound = [each.lower() for each in ([listeners] if isinstance(listeners, str) else listeners)]
        self._addresses = {found for each in bound if (found := _address(each)) is not None}
        self._wildcard = not _WILDCARDS.isdisjoint(bound)
        self._loopback = (
            self._wildcard or "localhost" in bound or any(address.is_loopback for address in self._addresses)
        )
        self._names = {*bound, *(name.strip("[]").lower().rstrip(".") for name in more)}
        if self._wildcard or not self._loopback:
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
