"""Takes credentials out of text that people or logs will see: error messages, the fetcher's output.

Used by the fetcher process, which alone holds the credentials of MLflow, ModelHub and the stores.
"""

from __future__ import annotations

import re
import sys
import threading
from typing import Any, List, Mapping, Optional, Set, TextIO
from urllib.parse import quote, urlsplit

MASK = "***"

#: Environment variables with such names hold secrets.
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|_KEY|CONNECTION_STRING)$", re.IGNORECASE)
#: Shorter values are no secrets, and masking "1" or "true" would make every message unreadable.
_SHORTEST = 6

_USERINFO = re.compile(r"(?<=://)[^/\s'\"<>?#]*@")
_QUERY = re.compile(
    r"([?&](?:x-amz-(?:signature|credential|security-token)|sig|signature|token|password)=)[^&\s'\"]+", re.I
)
_HEADER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/._~=-]{16,}")


def without_userinfo(uri: str) -> str:
    """`http://user:password@host/path` as `http://host/path`; for naming a server to people."""
    return _USERINFO.sub("", uri)


class Redactor:
    """Knows the secrets of this process and masks them, and whatever looks like one. Thread-safe."""

    def __init__(self, environment: Optional[Mapping[str, str]] = None) -> None:
        self._lock = threading.Lock()
        self._secrets: List[str] = []
        for name, value in (environment or {}).items():
            if _SECRET_NAME.search(name) and len(value) >= _SHORTEST:
                self.add(value)
            if "://" in value and "@" in value:
                self.add(_password(value))

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"

    def add(self, secret: Optional[str]) -> None:
        """From now on mask this value, as it is and percent-encoded."""
        if not secret:
            return
        with self._lock:
            known: Set[str] = {*self._secrets, secret, quote(secret, safe="")}
            self._secrets = sorted(known, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        text = _USERINFO.sub(f"{MASK}@", text)
        text = _QUERY.sub(rf"\1{MASK}", text)
        return _HEADER.sub(rf"\1 {MASK}", text)


class RedactedStream:
    """A text stream that cleans what is written to it, line by line: put in the place of sys.stderr."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor
        self._lock = threading.Lock()
        self._rest = ""

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._stream.write(self._redactor.clean(line) + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redact_standard_streams(redactor: Redactor) -> None:
    """Everything this process prints, libraries and tracebacks included, goes out cleaned."""
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout = RedactedStream(sys.stdout, redactor)
    sys.stderr = RedactedStream(sys.stderr, redactor)


def _password(uri: str) -> Optional[str]:
    try:
        password = urlsplit(uri).password
    except ValueError:
        return None
    return password if password and len(password) >= _SHORTEST else None
