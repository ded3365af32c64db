"""Credentials of the tracking server go to the tracking server, and nowhere else.

Where a model's files are is said by whoever logged it, or asked for it: `http://…/api/2.0/mlflow-artifacts/…` may be
any host. MLflow sends the credentials of its environment to each host that it reads artifacts from. `confine` stands
between: called once MLflow is imported (`mlflow.py`).
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, List, Optional, Tuple
from urllib.parse import urlsplit

_NAME = "get_default_host_creds"
_PORTS = {"http": 80, "https": 443}

Origin = Tuple[str, str, int]


def confine() -> None:
    """From now on MLflow's default credentials are for the tracking server (and the registry's, where set) alone."""
    import mlflow.utils.credentials as credentials

    original = getattr(credentials, _NAME)
    if getattr(original, "confined", False):
        return
    confined = _confined(original)
    for module in list(sys.modules.values()):
        if (
            module is not None
            and getattr(module, "__name__", "").startswith("mlflow.")
            and (vars(module).get(_NAME) is original)
        ):
            setattr(module, _NAME, confined)


def _confined(original: Callable[[str], Any]) -> Callable[[str], Any]:
    def creds_of(store_uri: str) -> Any:
        found = original(store_uri)
        if may_have_credentials(store_uri, _servers()):
            return found
        # As MLflow makes them, without what says who asks; how to trust the other side stays.
        return type(found)(
            host=store_uri,
            ignore_tls_verification=found.ignore_tls_verification,
            server_cert_path=found.server_cert_path,
        )

    creds_of.confined = True  # type: ignore[attr-defined]
    return creds_of


def _servers() -> List[str]:
    import mlflow

    return [mlflow.get_tracking_uri(), os.environ.get("MLFLOW_REGISTRY_URI", "")]


def may_have_credentials(store_uri: str, servers: List[str]) -> bool:
    """Whether a store is at the scheme, host and port of one of these servers; only HTTP is asked with credentials."""
    origin = origin_of(store_uri)
    return origin is not None and origin in [origin_of(server) for server in servers]


def origin_of(uri: str) -> Optional[Origin]:
    """(scheme, host, port) of an HTTP URL; None for anything else."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "\\" in uri:
        return None
    return parts.scheme, parts.hostname.rstrip("."), port if port is not None else _PORTS[parts.scheme]
