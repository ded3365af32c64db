"""The variables of the process that the gateway was started with, made whole for it and for all that it starts.

Called once, before anything is started: by `server.py`, and by the commands that build or fetch. What somebody has set
is never overwritten.

- An id that no user has (OpenShift gives every project one) has no home, and no name: libraries that ask for them
  fail when they are imported, and so do downloads into caches. The home is a folder of the state directory then.
- A private certification authority is named once. Each library reads another variable, with the same in it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import MutableMapping

from ...protocol.errors import ConfigError
from ...protocol.model_cache import default_state_dir, home_of, may_write

#: What a user without a name is called.
NOBODY = "modelhub"
#: Where libraries look for who has certified the other side: uv and all of OpenSSL, requests (and with it MLflow, and
#: stores such as S3), pip, curl. The first that is set says what the others are.
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


def settle(environ: MutableMapping[str, str], state_dir: str) -> list[str]:
    """Add to `environ` what is missing; lines for the log, of what was added and why. Raises ConfigError."""
    return [*_home(environ, state_dir), *_authorities(environ)]


def _home(environ: MutableMapping[str, str], state_dir: str) -> list[str]:
    if not any(environ.get(name) for name in ("LOGNAME", "USER")) and not _has_name():
        environ["LOGNAME"] = environ["USER"] = NOBODY  # libraries ask for it to name their folders
    home = home_of(environ)
    if home is None:
        lasting = "" if state_dir != default_state_dir(environ) else f", and all that is kept is in {state_dir}"
        folder = os.path.join(state_dir, "home")
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"this user (id {os.getuid()}) has no home, and {folder} cannot be made in its place: "
                f"{error.strerror or error}; name another folder with --server.state_dir"
            ) from None
        environ["HOME"] = folder
        return [f"this user (id {os.getuid()}) has no home: for models and builds it is {folder}{lasting}"]
    environ.setdefault("HOME", home)
    if not environ.get("XDG_CACHE_HOME") and not may_write(os.path.join(home, ".cache")):
        environ["XDG_CACHE_HOME"] = cache = os.path.join(state_dir, "cache")
        return [f"nothing can be written to {home}: models and builds keep their caches in {cache}"]
    return []


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _authorities(environ: MutableMapping[str, str]) -> list[str]:
    named = next((name for name in AUTHORITIES if environ.get(name)), None)
    if named is None:
        return []
    value = environ[named]
    missing = [name for name in AUTHORITIES if not environ.get(name)]
    if os.path.isdir(value):  # as requests takes it; for OpenSSL and uv a folder is another variable
        missing = ["SSL_CERT_DIR" if name == "SSL_CERT_FILE" else name for name in missing]
        missing = [name for name in missing if not environ.get(name)]
    environ.update(dict.fromkeys(missing, value))
    return [f"{', '.join(missing)}: {value}, as in {named}"] if missing else []
