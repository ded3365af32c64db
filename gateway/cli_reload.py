"""`modelhub reload`: has a running gateway read its configuration again (`POST /admin/reload`)."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping

from ..protocol.errors import ConfigError, ServingError
from .cli_status import find_gateway

_ANSWER_WITHIN = 60.0


def reload(address: str | None, flags: Mapping[str, str]) -> int:
    """Print what has changed; 0. Raises ConfigError, with the gateway's words, when its file is not valid."""
    base = (address if address is not None else find_gateway(flags)).rstrip("/")
    url = (base if "://" in base else f"http://{base}") + "/admin/reload"
    if not url.startswith(("http://", "https://")):
        raise ServingError(f"{base} is no http address")
    # Proxies of the environment are not for a gateway that is usually on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, b""), timeout=_ANSWER_WITHIN) as answer:
            print(json.load(answer)["changes"])
    except urllib.error.HTTPError as error:
        said = _error_of(error)
        if error.code == 400:
            raise ConfigError(f"nothing was changed: {said}") from None
        hint = "; reloading is open on the admin address of a gateway (server.admin)" if error.code != 503 else ""
        raise ServingError(f"{url} answered {error.code}: {said}{hint}") from None
    except urllib.error.URLError as error:
        raise ServingError(f"{url} does not answer ({error.reason}); is the gateway running?") from None
    except TimeoutError:
        raise ServingError(f"{url} did not answer within {_ANSWER_WITHIN:.0f} s") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ServingError(f"{url} did not answer as a gateway does ({error})") from None
    return 0


def _error_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
