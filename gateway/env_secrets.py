"""Masking of credentials in what uv, pip settings and requirement files say, before anybody reads it.

Every line of uv's output, every log line and every error of the environment builder goes through a `Mask`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

_USERINFO = re.compile(r"://[^/\s@'\"]+(?:@[^/\s@'\"]+)*@")
_QUERY = re.compile(r"(?i)([?&;](?:[a-z_-]*token|sig|[a-z_-]*signature|[a-z_-]*key|password|secret)=)[^&;\s'\"#]+")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
#: Shorter values are not replaced literally: masking every "a" of a log would hide the log, not the secret.
_SHORTEST = 4


class Mask:
    """Replaces userinfo of URLs, tokens in their queries, and the secrets it was told of, by `***`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets for form in (secret, unquote(secret)) if len(form) >= _SHORTEST}
        self._secrets = sorted(known, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        text = _USERINFO.sub("://***@", text)
        text = _QUERY.sub(r"\1***", text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def secrets_in(environ: Mapping[str, str]) -> set[str]:
    """The secret values in the index settings of UV_* and PIP_*: passwords, tokens, users of URLs."""
    found: set[str] = set()
    for name, value in environ.items():
        if not name.startswith(("UV_", "PIP_")) and not name.lower().endswith("_proxy"):
            continue
        if name.endswith(("_PASSWORD", "_TOKEN", "_API_KEY", "_SECRET")):
            found.add(value)
        for userinfo in re.findall(r"://([^/\s@]+)@", value):
            user, _, password = userinfo.partition(":")
            found.add(password or user)
    return found


def variables_in(lines: Iterable[str]) -> set[str]:
    """Names of the `${VARIABLES}` that requirement files expand (most often a token in an index's URL)."""
    return {name for line in lines for name in _VARIABLE.findall(line)}
