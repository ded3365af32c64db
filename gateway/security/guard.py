"""The guard of what changes the server: load, unload, reload, the webhook, and `/status`, on every listener.

An address says nothing about who asks: behind one of loopback may be a web page in somebody's browser, whatever a
reverse proxy lets through, or a model's own code. So

- a browser must be on a page of this listener's own (`Origin`, `Sec-Fetch-Site`, `Host`), and
- whoever asks must know the token (`server.admin_auth: token`).

Fronts translate what came into an `Approach` and answer with what is raised; asked by `dataplane/control.py`.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from ...protocol.errors import Forbidden, ServingError, Unauthenticated
from .hosts import Hosts

log = logging.getLogger("modelhub.security")

#: Keys of an entry that bring code, or what is secret, into a worker: a load overrides them only where the operator of
#: the server says so.
CODE_KEYS = frozenset({"uri", "env", "environment", "pythonpath", "service"})
#: `Sec-Fetch-Site` of a page of ours, and of an address that somebody typed.
_OWN_SITE = frozenset({"same-origin", "none"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_SHOWN = 100


@dataclass(frozen=True)
class Approach:
    """What a front knows of who asks; None: nothing was said. What came several times is joined with commas."""

    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    #: The token of `Authorization: Bearer …`.
    bearer: str | None = None
    #: How it came; no browser, and no name that could be pointed elsewhere, leads to a Unix socket.
    peer: Literal["tcp", "unix"] = "tcp"


def bearer_of(authorization: str | None) -> str | None:
    """The token in an `Authorization` header."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class ControlGuard:
    """Of one listener; everything that it refuses is said in the log, once a second at most."""

    def __init__(self, hosts: Hosts, token: str | None, overrides: Collection[str] = ()) -> None:
        """`token` None: whoever is no foreign page may come. `overrides`: those of CODE_KEYS that a load may change."""
        self._hosts = hosts
        self._token = token
        self._overrides = frozenset(overrides)
        self._said_at = -1.0
        self._unsaid = 0

    def check(self, approach: Approach) -> None:
        """Raises Forbidden for a page of another site, Unauthenticated without the token."""
        self.check_page(approach)
        if self._token is None:
            return
        given = approach.bearer
        if given is None:
            raise self._refuse(
                Unauthenticated(
                    "this needs the gateway's token, as `Authorization: Bearer …`: it is in the file that "
                    "<state_dir>/gateways names and the log has named at the start (server.admin_auth)"
                )
            )
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            raise self._refuse(Unauthenticated("that is not this gateway's token: a new one is made at each start"))

    def check_page(self, approach: Approach) -> None:
        """For what proves itself in another way: raises Forbidden for a page of another site."""
        host, origin = approach.host, approach.origin
        if approach.peer == "tcp" and host is not None and not self._hosts.has(host):
            raise self._refuse(
                Forbidden(
                    f"{host[:_SHOWN]!r} is no name of this gateway, which a page of another site could have pointed "
                    "here: ask for its address, or give it that name in server.admin_hosts"
                )
            )
        if origin is not None and not _same(origin, host):
            raise self._refuse(Forbidden(f"pages of {origin[:_SHOWN]!r} may not do this"))
        if approach.fetch_site is not None and approach.fetch_site not in _OWN_SITE:
            raise self._refuse(Forbidden("pages of other sites may not do this"))

    def check_overrides(self, config: Mapping[str, Any]) -> None:
        """Of a load's `config`: raises Forbidden for a key that the server does not let it override."""
        refused = sorted((CODE_KEYS & set(config)) - self._overrides)
        if refused:
            raise self._refuse(
                Forbidden(f"a load may not override {', '.join(refused)}: server.load_overrides does not name it")
            )

    def _refuse(self, error: ServingError) -> ServingError:
        now = time.monotonic()
        if now - self._said_at < 1.0:
            self._unsaid += 1
            return error
        fields = {"left_out": self._unsaid} if self._unsaid else {}
        self._said_at, self._unsaid = now, 0
        log.warning("a request to change the server was refused: %s", error.message, extra=fields)
        return error


def guard_of(
    listeners: str | Iterable[str], token: str | None, *, hosts: Iterable[str] = (), overrides: Collection[str] = ()
) -> ControlGuard:
    """The guard of a front by the addresses that it listens on; `hosts`: more names that it has."""
    return ControlGuard(Hosts(listeners, hosts), token, overrides)


def _same(origin: str, host: str | None) -> bool:
    """Whether a page of this origin is one of the server that was asked."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if host is None or parts.scheme not in _DEFAULT_PORTS:
        return False
    default = _DEFAULT_PORTS[parts.scheme]
    return parts.netloc.lower().removesuffix(default) == host.lower().removesuffix(default)
