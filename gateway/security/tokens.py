"""The token of the operators: made at each start, in a file that only the gateway's user can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def leave_token(path: Path) -> str:
    """Make a token and leave it in the file `path`, mode 0600, in place of what was there. Raises OSError."""
    token = secrets.token_urlsafe(32)
    path.unlink(missing_ok=True)  # of a gateway that was killed; written anew it would keep its owner and mode
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(f"{token}\n")
    return token
