"""Takes credentials out of text that people or logs will see: errors, the output of uv and of the fetcher.

One list says which names hold secrets, for variables of the environment, for parameters of URLs, for members of
objects and for assignments in text:

    http://user:password@host            ?access_token=…   &X-Amz-Credential=…     Authorization: Bearer …
    password=…   api_key='…'             "token": "…"      x-api-key: …            what a Redactor was told of

Every rule looks at the text as it came, so none can hide from another what that would have masked.
"""

from __future__ import annotations

import re
import threading
from typing import Iterator, List, Mapping, Optional, Pattern, Tuple
from urllib.parse import quote, unquote

MASK = "***"

#: A name that ends so holds a secret.
_SECRET = (
    r"(?:password|passwd|passphrase|secret|token|credential|authorization|connection[_-]?string"
    r"|(?:access|account|api|auth|client|encryption|private|secret|shared|signing)[_.-]?key)"
)
#: Environment variables with such names hold secrets.
_VARIABLE = re.compile(rf"(?:{_SECRET}|_key)$", re.IGNORECASE)
#: Variables that hold addresses of package indexes, where a user alone is a token.
_INDEXES = ("UV_", "PIP_")
#: Shorter values are no secrets, nor are these words in the environment: many a message would be unreadable.
_SHORTEST = 4
_WORDS = frozenset({"true", "false", "none", "null", "auto"})

_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_LOGIN = re.compile(r"://([^/\s'\"]+)@")

# ---- where a value follows a name ---------------------------------------------------------------------

#: Text between quotes, which are escaped where the object is itself in a text; without its end where that is cut off.
_QUOTED = r"[bru]?(?P<mark>\\{0,3}[\"'])(?P<value>(?:(?!(?P=mark))(?:\\.|.))+)"
_BARE = r"(?!(?:none|null|true|false)\b|[bru]?\\{0,3}[\"'])(?P<value>[^\s'\"&]+)"
_SPACE = r"[ \t]*"
#: A name in quotes or without, not the end of a longer one, and not in the query of a URL, which has a rule of its own.
_NAME = rf"(?:(?P<quote>\\{{0,3}}[\"'])|(?<![\w.?&-]))[\w.-]*?{_SECRET}(?(quote)(?P=quote)){_SPACE}"
#: "the token: <eof>" is prose, "x-auth-token: <eof>" is not.
_COMPOUND = rf"(?<![\w.-])(?=\w*[_.-])[\w.-]*?{_SECRET}{_SPACE}"
_SCHEME = r"(?:basic|bearer|token|negotiate|apikey)"

_RULES: Tuple[Pattern[str], ...] = tuple(
    re.compile(rule, re.IGNORECASE)
    for rule in (
        r"(?<=://)(?P<value>[^/\s'\"]+)@",
        rf"[?&;#](?:[\w.-]*(?:{_SECRET}|key|sig|signature)|pwd)=(?P<value>[^&#\s'\"]+)",
        rf"{_NAME}=(?!=){_SPACE}{_QUOTED}",
        rf"{_NAME}=(?!=){_SPACE}{_BARE}",
        rf"{_NAME}:{_SPACE}{_QUOTED}",
        rf"{_COMPOUND}:{_SPACE}{_BARE}",
        rf"\bauthorization\\{{0,3}}[\"']?{_SPACE}[:=]{_SPACE}\\{{0,3}}[\"']?{_SCHEME}[ \t]+(?P<value>[^\s'\"\\]+)",
        rf"\bauthorization{_SPACE}:{_SPACE}(?:digest|aws4-hmac-sha256)[ \t]+(?P<value>.+)",
        r"\b(?-i:Bearer|Basic)\s+(?P<value>[a-z0-9+/._~=-]{16,})",
    )
)

#: The first two: what may stand in a URL.
_OF_URLS = _RULES[:2]


def is_secret_name(name: str) -> bool:
    """Does an environment variable of this name hold a secret?"""
    return _VARIABLE.search(name) is not None


def without_userinfo(uri: str) -> str:
    """`http://user:password@host/path` as `http://host/path`; for naming a server to people."""
    return _USERINFO.sub("", uri)


def masked(text: str) -> str:
    """A URI as people may see it, or a text with URIs: without users, passwords and tokens of theirs."""
    return _cut(text, sorted(_looks_secret(text, _OF_URLS)))


class Redactor:
    """Knows the secrets of this process and masks them, and whatever looks like one. Thread-safe."""

    def __init__(self, environment: Optional[Mapping[str, str]] = None) -> None:
        self._lock = threading.Lock()
        self._secrets: Tuple[str, ...] = ()
        for name, value in (environment or {}).items():
            if is_secret_name(name) and value.lower() not in _WORDS:
                self.add(value)
            for userinfo in _LOGIN.findall(value):
                user, _, password = userinfo.partition(":")
                self.add(password or (user if name.startswith(_INDEXES) else ""))

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"

    def add(self, secret: Optional[str]) -> None:
        """From now on mask this value, as it is, percent-encoded and decoded."""
        if not secret:
            return
        forms = {secret, unquote(secret), quote(secret), quote(secret, safe="")}
        with self._lock:
            known = {*self._secrets, *(each for each in forms if len(each) >= _SHORTEST)}
            self._secrets = tuple(sorted(known))

    def clean(self, text: str) -> str:
        """The text without secrets."""
        return _cut(text, sorted((*self._known(text), *_looks_secret(text))))

    def _known(self, text: str) -> Iterator[Tuple[int, int]]:
        for secret in self._secrets:
            at = text.find(secret)
            while at >= 0:
                yield at, at + len(secret)
                at = text.find(secret, at + 1)


def _cut(text: str, spans: List[Tuple[int, int]]) -> str:
    """The text with a mask for each of these (start, end), in their order, which may overlap."""
    if not spans:
        return text
    pieces: List[str] = []
    done = 0
    for start, end in spans:
        if start > done or not pieces:
            pieces += (text[done:start], MASK)
        done = max(done, end)
    return "".join((*pieces, text[done:]))


def _looks_secret(text: str, rules: Tuple[Pattern[str], ...] = _RULES) -> Iterator[Tuple[int, int]]:
    for rule in rules:
        for found in rule.finditer(text):
            yield found.span("value")
