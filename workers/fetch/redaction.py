"""What the fetcher prints, without the credentials that it alone holds: of MLflow, ModelHub and the stores."""

from __future__ import annotations

import sys
import threading
from typing import Any, TextIO

from ...protocol.redaction import Redactor


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
