"""ModelHub's API: from client credentials to the tracking server's address and credentials.

Used by the fetcher only, when MODELHUB_BASE_URL is set. Three calls:

    POST {base}/ums/api/v1/auth/get-token                                       -> a token (JWT)
    GET  {base}/modelhub/api/v1/client/{client}/copilot/{copilot}/mlflow/tracking_uri
    GET  {base}/modelhub/api/v1/client/{client}/copilot/{copilot}/mlflow/credentials

Nothing that it raises or represents holds a secret. Standard library only.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple
from urllib.parse import quote, urlencode, urlsplit

from ...protocol.errors import ConfigError, LoadError, NotReady

#: A token is renewed this many seconds before it ends, or after 9/10 of a life that is short.
RENEW_BEFORE = 60.0
#: Seconds that a token is used whose end is not known.
UNKNOWN_LIFE = 300.0

_MAX_ANSWER = 1 << 20


@dataclass(frozen=True, repr=False)
class ModelHubSettings:
    """Where ModelHub is and who asks."""

    base_url: str
    client_id: str
    client_secret: str
    copilot_id: str

    def __repr__(self) -> str:
        return f"ModelHubSettings(base_url={self.base_url!r})"


@dataclass(frozen=True, repr=False)
class TrackingAccess:
    """The MLflow tracking server and how to log in to it."""

    uri: str
    username: str
    password: str

    def __repr__(self) -> str:
        return "TrackingAccess(…)"


def settings_from_environment(environment: Mapping[str, str]) -> Optional[ModelHubSettings]:
    """What the environment says, or None where plain MLflow is meant.

    None without MODELHUB_BASE_URL, and where something is missing but MLFLOW_TRACKING_URI is set.
    Raises ConfigError that names each missing variable.
    """
    base_url = environment.get("MODELHUB_BASE_URL", "").strip().rstrip("/")
    if not base_url:
        return None
    client_id = environment.get("MODELHUB_CLIENT_ID") or environment.get("CLIENT_ID") or ""
    client_secret = environment.get("MODELHUB_CLIENT_SECRET") or environment.get("CLIENT_SECRET") or ""
    copilot_id = environment.get("COPILOT_ID", "")
    wanted = {
        "MODELHUB_CLIENT_ID (or CLIENT_ID)": client_id,
        "MODELHUB_CLIENT_SECRET (or CLIENT_SECRET)": client_secret,
        "COPILOT_ID": copilot_id,
    }
    missing = [name for name, value in wanted.items() if not value]
    if missing:
        if environment.get("MLFLOW_TRACKING_URI"):
            return None
        raise ConfigError(
            f"MODELHUB_BASE_URL is set, but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not: "
            "set what is missing, or set MLFLOW_TRACKING_URI to use a tracking server without ModelHub"
        )
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            "MODELHUB_BASE_URL must be an address like https://modelhub.example.com, without a user in it"
        )
    return ModelHubSettings(base_url, client_id, client_secret, copilot_id)


def hub_from_environment(on_secret: Callable[[str], None]) -> Optional[ModelHub]:
    """The ModelHub of this process's environment, which tells its secrets; None and ConfigError as above."""
    settings = settings_from_environment(os.environ)
    if settings is None:
        return None
    on_secret(settings.client_secret)
    return ModelHub(settings, on_secret=on_secret)


class ModelHub:
    """Logs in when first asked, and again shortly before the token ends. Thread-safe."""

    def __init__(
        self,
        settings: ModelHubSettings,
        *,
        clock: Callable[[], float] = time.time,
        timeout: float = 30.0,
        on_secret: Callable[[str], None] = lambda secret: None,
    ) -> None:
        """`on_secret` is told every token and password received, so that they can be masked in output."""
        self._settings = settings
        self._clock = clock
        self._timeout = timeout
        self._on_secret = on_secret
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0
        self._access: Optional[TrackingAccess] = None
        # a redirect would carry the credentials to another address
        self._open = urllib.request.build_opener(_NoRedirects()).open

    def __repr__(self) -> str:
        return f"ModelHub({self._settings.base_url!r})"

    def token(self) -> str:
        """A token that is good for a while. Raises LoadError or NotReady."""
        with self._lock:
            return self._current_token()

    def log_in(self) -> None:
        """Put the tracking server's address and current credentials where MLflow looks for them."""
        access = self.tracking()
        os.environ["MLFLOW_TRACKING_URI"] = access.uri
        os.environ["MLFLOW_TRACKING_USERNAME"] = access.username
        os.environ["MLFLOW_TRACKING_PASSWORD"] = access.password

    def tracking(self) -> TrackingAccess:
        """The tracking server's address and credentials, asked anew with every token. Raises LoadError or NotReady."""
        with self._lock:
            token = self._current_token()
            if self._access is None:
                try:
                    self._access = self._ask_access(token)
                except _Unauthorized:
                    self._token = ""
                    try:
                        self._access = self._ask_access(self._current_token())
                    except _Unauthorized as error:
                        raise LoadError(error.message) from None
            return self._access

    def _current_token(self) -> str:
        if not self._token or self._clock() >= self._renew_at:
            self._access = None
            self._token, life = self._ask_token()
            self._renew_at = self._clock() + life - min(RENEW_BEFORE, life / 10)
        return self._token

    def _ask_token(self) -> Tuple[str, float]:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._settings.client_id,
            "client_secret": self._settings.client_secret,
            "scope": "openid",
        }
        request = urllib.request.Request(
            f"{self._settings.base_url}/ums/api/v1/auth/get-token",
            data=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            method="POST",
        )
        try:
            answer = self._ask(request, "a token")
        except _Unauthorized as error:
            raise LoadError(f"{error.message}: check MODELHUB_CLIENT_ID and MODELHUB_CLIENT_SECRET") from None
        nested = answer.get("token")
        token = (
            answer.get("id_token")
            or (nested.get("access_token") if isinstance(nested, dict) else None)
            or answer.get("access_token")
        )
        if not isinstance(token, str) or not token:
            raise LoadError(
                f"ModelHub at {self._settings.base_url} answered without a token: "
                "none of id_token, token.access_token, access_token is there"
            )
        self._on_secret(token)
        return token, _life(token, answer, self._clock())

    def _ask_access(self, token: str) -> TrackingAccess:
        settings = self._settings
        root = (
            f"{settings.base_url}/modelhub/api/v1/client/{quote(settings.client_id, safe='')}"
            f"/copilot/{quote(settings.copilot_id, safe='')}/mlflow"
        )
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        where = self._ask(urllib.request.Request(f"{root}/tracking_uri", headers=headers), "the tracking URI")
        login = self._ask(urllib.request.Request(f"{root}/credentials", headers=headers), "the MLflow credentials")
        access = TrackingAccess(
            uri=self._text(where, "tracking_uri"),
            username=self._text(login, "username"),
            password=self._text(login, "password"),
        )
        self._on_secret(access.password)
        return access

    def _text(self, answer: Dict[str, Any], key: str) -> str:
        value = answer.get(key)
        if not isinstance(value, str) or not value:
            raise LoadError(f"ModelHub at {self._settings.base_url} answered without {key!r}")
        return value

    def _ask(self, request: urllib.request.Request, what: str) -> Dict[str, Any]:
        place = f"ModelHub at {self._settings.base_url}"
        try:
            with self._open(request, timeout=self._timeout) as response:
                body = response.read(_MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            error.close()
            message = f"{place} answered {error.code} when asked for {what}"
            if error.code in (401, 403):
                raise _Unauthorized(message) from None
            if error.code == 404 and what != "a token":
                raise LoadError(f"{message}: check MODELHUB_CLIENT_ID and COPILOT_ID") from None
            if error.code >= 500 or error.code == 429:
                raise NotReady(message, retry_after=5.0) from None
            raise LoadError(message) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise NotReady(
                f"{place} cannot be reached ({reason}): check MODELHUB_BASE_URL and the network", retry_after=5.0
            ) from None
        try:
            answer = json.loads(body) if len(body) <= _MAX_ANSWER else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise LoadError(f"{place} answered with something else than a JSON object when asked for {what}")
        return answer


class _Unauthorized(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _life(token: str, answer: Mapping[str, Any], now: float) -> float:
    """Seconds for which the token is good: of its own clock where it says when it began, else of ours."""
    claims = _claims(token)
    end, begin = claims.get("exp"), claims.get("iat")
    if isinstance(end, (int, float)):
        return float(end) - (float(begin) if isinstance(begin, (int, float)) else now)
    said = answer.get("expires_in")
    return float(said) if isinstance(said, (int, float)) else UNKNOWN_LIFE


def _claims(token: str) -> Dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}
