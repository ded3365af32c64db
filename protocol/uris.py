"""What is a model's URI and what a path: for the configuration, the cache, and services that load by themselves."""

from __future__ import annotations

import os
import re
from typing import Optional
from urllib.parse import unquote

from .errors import ConfigError

#: Ends a source, which names one content, before the hash of its MLmodel file.
HASH_MARK = "#sha256="
#: One letter is no scheme but a drive of Windows: `c:/models/iris` is a path.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def has_scheme(text: str) -> bool:
    """Whether this is a URI (`runs:/…`, `models:/…`, `s3://…`, `file:…`) and not a path."""
    return _SCHEME.match(text) is not None


def path_of(uri: str) -> Optional[str]:
    """The path that a plain path or a `file:` URI means; None for everything that must be fetched.

    A relative path stays one: nothing here looks at the disk. `~` is expanded in plain paths only, percent-encoding
    is undone in `file:` URIs only. Raises ConfigError for a file on another host.
    """
    if uri[:5].lower() == "file:":
        rest = uri[5:]
        if rest.startswith("//"):
            host, slash, path = rest[2:].partition("/")
            if host not in ("", "localhost") or path.startswith("/"):
                host = host or path.strip("/").partition("/")[0]
                raise ConfigError(f"{uri[:100]} is on the host {host[:100]}: only files of this machine can be served")
            rest = slash + path
        return unquote(rest)
    return None if has_scheme(uri) else os.path.expanduser(uri)
