"""Secrets do not reach messages or logs, and what is none comes through as it was."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhub.serving.protocol.redaction import MASK, Redactor, without_userinfo

#: Where secrets stand; `{}` is the secret.
PLACES = [
    *("https://user:{}@host/simple", "git+https://{}@host/x.git", "postgresql://{}:{}@h/db", "http://u:p@{}@h?x=1"),
    *("?token={}", "?access_token={}", "&api_key={}", ";key={}", "?sig={}", "?signature={}", "?password={}"),
    *("?secret={}", "?X-Amz-Signature={}&x=1", "?X-Amz-Credential={}", "&X-Amz-Security-Token={}", "#token={}"),
    *("?X-Goog-Credential={}", "client_id=x&client_secret={}&scope=openid", "Server=tcp:h;Password={}"),
    *("password={}", "login(token='{}', user=1)", 'client_secret = "{}"', "AWS_SECRET_ACCESS_KEY={}", "--token={}"),
    *("x-api-key: {}", "PGPASSWORD={} psql", "{{'password': '{}'}}", "{{'token': b'{}'}}"),
    *('{{"token": "{}", "user": "me"}}', '{{\\"access_token\\": \\"{}\\"}}', "{{'Authorization': 'Bearer {}'}}"),
    *("Authorization: Bearer {}", "authorization: basic {}", "Proxy-Authorization: Basic {}"),
    *("curl -H 'Authorization: Token {}' http://host/", "Authorization: AWS4-HMAC-SHA256 Credential=A/1, Signature={}"),
]
#: What tells a secret; texts without these have none.
SIGNS = re.compile(
    r"(?is)password|passwd|passphrase|secret|token|credential|authorization|connection|key|sig|pwd|bearer|basic|://.*@"
)

secrets = st.text(st.characters(codec="utf-8", exclude_characters="*\r\n"), min_size=4, max_size=30)
in_places = st.from_regex(r"\A[A-Za-z0-9+._~%!$()-]{16,40}\Z").filter(lambda text: not SIGNS.search(text))
plain = st.text(st.characters(exclude_characters="*"), max_size=80)


@given(secrets, st.text(max_size=30), st.text(max_size=30))
@example("token", "?", "=abc")
def test_a_secret_of_the_environment_is_masked_wherever_it_stands(secret: str, before: str, after: str) -> None:
    redactor = Redactor({"MLFLOW_TRACKING_PASSWORD": secret, "HOME": "/home/user"})
    if secret.lower() not in ("true", "false", "none", "null", "auto"):  # somebody's switch
        assert secret not in redactor.clean(f"{before}{secret}{after}")


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=30)
@given(secret=in_places, before=st.sampled_from(["", "failed: ", "(", "\n"]), after=st.sampled_from(["", "\n", " x"]))
def test_what_stands_where_secrets_stand_is_masked(place: str, secret: str, before: str, after: str) -> None:
    found = Redactor().clean(before + place.format(secret, secret) + after)
    assert secret not in found
    assert MASK in found
    assert found.startswith(before)
    assert found.endswith(after) or "AWS4" in place  # where the whole line is masked
    assert Redactor().clean(found) == found


@given(plain)
def test_text_without_secrets_is_unchanged(text: str) -> None:
    if not SIGNS.search(text):
        assert Redactor({"HOME": "/home/user", "SOME_TOKEN": "***"}).clean(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("models:/iris@champion and a@b.org", "http://host/path and mail me@host", "tiny @ https://host/x"),
        *("signature: inputs [x]", "unexpected token: <eof>", "the password: it is wrong", "max_tokens=5", "tokens: 5"),
        *("my-token==1.0", "secret>=1", "token ~= 2", "key: value", "primary_key = 5", "sort_key: x", "design=x"),
        *("password=None", '"token": null', "token=", "password = ''", "Basic authentication", "a Bearer of news"),
        *("set MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_PASSWORD", "sqlite:////tmp/mlflow.db", "://@", "http://@h"),
    ],
)
def test_what_only_looks_like_a_secret_is_unchanged(text: str) -> None:
    assert Redactor().clean(text) == text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("GET http://me:pa%20ss@host:5000/x failed", "GET http://***@host:5000/x failed"),
        ("https://user:p@ss@host/", "https://***@host/"),
        ("s3://b/k?X-Amz-Signature=abc&x=1#sha256=12", "s3://b/k?X-Amz-Signature=***&x=1#sha256=12"),
        ("s3://b/k?x=1&token=abc#sha256=12", "s3://b/k?x=1&token=***#sha256=12"),
        ("password=a#b", "password=***"),
        ("Authorization: Bearer eyJhbGciOi.eyJzdWIiOi.abc-_", "Authorization: Bearer ***"),
        ("Authorization: Bearer short", "Authorization: Bearer ***"),
        ("a Bearer eyJhbGciOi.eyJzdWIiOi.abc-_ was refused", "a Bearer *** was refused"),
        ('{"token": "a\\"b", "user": "me"}', '{"token": "***", "user": "me"}'),
        ("login(user='me', password='a b')", "login(user='me', password='***')"),
        ("password=***", "password=***"),
    ],
)
def test_what_is_left(dirty: str, clean: str) -> None:
    assert Redactor().clean(dirty) == clean


def test_the_password_inside_an_address_is_masked_alone_too() -> None:
    redactor = Redactor({"MLFLOW_TRACKING_URI": "http://me:hunter22@host"})
    assert redactor.clean("login hunter22 refused for me") == "login *** refused for me"
    assert "hunter22" not in repr(redactor)


def test_the_user_of_a_package_index_is_a_token() -> None:
    redactor = Redactor({"PIP_INDEX_URL": "https://t0ken@host/simple", "REPOSITORY": "ssh://someone@host"})
    assert redactor.clean("t0ken of someone") == "*** of someone"


@given(st.text(st.characters(codec="ascii", exclude_categories=("Cc",), exclude_characters=" /'\""), min_size=4))
def test_a_password_in_an_index_url_is_never_seen(password: str) -> None:
    environ = {"PIP_INDEX_URL": f"https://zq:{password}@h.example/"}
    said = f"error at https://zq:{password}@h.example/x: wrong password <<{password}>>"
    assert f"<<{password}>>" not in Redactor(environ).clean(said)


def test_percent_encoded_secrets_are_masked() -> None:
    redactor = Redactor()
    redactor.add("a/b c+d")
    assert redactor.clean("url?p=a%2Fb%20c%2Bd or a/b%20c%2Bd") == "url?p=*** or ***"
    redactor.add(quote("hunter 22"))
    assert redactor.clean("hunter 22") == "***"


def test_secrets_that_overlap_are_masked_together() -> None:
    redactor = Redactor({"A_TOKEN": "abcdX", "B_TOKEN": "Xefgh"})
    assert redactor.clean("1abcdXefgh2") == "1***2"


def test_short_values_and_common_words_are_no_secrets() -> None:
    assert Redactor({"SOME_TOKEN": "1", "USE_KEY": "true"}).clean("1 is true") == "1 is true"


HOSTILE = ["\\", "'", "\\'", "token", "token=", "'token':", "password:'", "a_", "://", "?a.", "Basic "]


@pytest.mark.parametrize("part", HOSTILE)
def test_hostile_text_takes_no_longer_than_its_length(part: str) -> None:
    """A rule that went back over the text again and again would run into the test's timeout."""
    Redactor().clean(part * (200_000 // len(part)))


def test_naming_a_server() -> None:
    assert without_userinfo("http://me:secret@host:1/p") == "http://host:1/p"
    assert without_userinfo("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"
