"""ModelHub's API against a real HTTP server: tokens, their renewal, and errors that name no secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from modelhub.serving.protocol.errors import ConfigError, LoadError, NotReady, ServingError
from modelhub.serving.workers.fetch.modelhub import ModelHub, TrackingAccess, settings_from_environment
from support.modelhub_server import CLIENT, PASSWORD, SECRET, USERNAME, ModelHubServer, environment, jwt, unused_address


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[ModelHubServer]:
    with ModelHubServer() as running:
        yield running


def client(server: ModelHubServer, **options: Any) -> ModelHub:
    settings = settings_from_environment(server.environment())
    assert settings is not None
    return ModelHub(settings, **options)


def test_one_login_serves_many_questions(server: ModelHubServer) -> None:
    hub = client(server)
    access = hub.tracking()
    assert (access.uri, access.username, access.password) == (server.tracking_uri, USERNAME, PASSWORD)
    assert hub.tracking() is access
    assert server.asked == ["token", "tracking_uri", "credentials"]


@pytest.mark.parametrize(
    "shape",
    [
        lambda token: {"id_token": token, "access_token": "another"},
        lambda token: {"token": {"access_token": token}},
        lambda token: {"access_token": token},
    ],
    ids=["id_token", "token.access_token", "access_token"],
)
def test_every_known_place_of_the_token(server: ModelHubServer, shape: Any) -> None:
    server.token_answer = shape
    hub = client(server)
    assert hub.token() == server.tokens[0]


@pytest.mark.parametrize(("life", "still_good", "renewed"), [(3600.0, 3530.0, 3545.0), (30.0, 26.0, 28.0)])
def test_renewed_shortly_before_its_end(server: ModelHubServer, life: float, still_good: float, renewed: float) -> None:
    server.life = life
    clock = Clock()  # not the server's: only how long the token lives counts
    hub = client(server, clock=clock)
    first = hub.tracking()
    clock.now += still_good
    assert hub.tracking() is first
    clock.now += renewed - still_good
    assert hub.tracking() is not first
    assert len(server.tokens) == 2


def test_a_token_without_an_end_is_renewed_after_minutes(server: ModelHubServer) -> None:
    server.answers["token"] = (200, b'{"access_token": "opaque"}', {})
    clock = Clock()
    hub = client(server, clock=clock)
    assert (hub.token(), hub.token()) == ("opaque", "opaque")
    clock.now += 299
    hub.token()
    assert server.asked == ["token", "token"]


def test_a_revoked_token_is_replaced(server: ModelHubServer) -> None:
    clock = Clock()
    hub = client(server, clock=clock)
    hub.token()
    server.revoke()
    assert hub.tracking().username == USERNAME
    assert len(server.tokens) == 2


def test_secrets_are_told_for_masking(server: ModelHubServer) -> None:
    told: list[str] = []
    client(server, on_secret=told.append).tracking()
    assert told == [*server.tokens, PASSWORD]


def test_the_guides_names_of_the_variables(server: ModelHubServer) -> None:
    variables = server.environment(
        MODELHUB_CLIENT_ID=None, MODELHUB_CLIENT_SECRET=None, CLIENT_ID=CLIENT, CLIENT_SECRET=SECRET
    )
    settings = settings_from_environment(variables)
    assert settings is not None
    assert ModelHub(settings).tracking().username == USERNAME


def test_the_sdks_names_win() -> None:
    settings = settings_from_environment(
        {
            "MODELHUB_BASE_URL": "https://modelhub.example.com/",
            "MODELHUB_CLIENT_ID": "sdk",
            "MODELHUB_CLIENT_SECRET": "sdk-secret",
            "CLIENT_ID": "guide",
            "CLIENT_SECRET": "guide-secret",
            "COPILOT_ID": "c",
        }
    )
    assert settings is not None
    assert (settings.base_url, settings.client_id, settings.client_secret) == (
        "https://modelhub.example.com",
        "sdk",
        "sdk-secret",
    )


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("COPILOT_ID", "COPILOT_ID is not"),
        ("MODELHUB_CLIENT_ID", r"MODELHUB_CLIENT_ID \(or CLIENT_ID\) is not"),
        ("MODELHUB_CLIENT_SECRET", r"MODELHUB_CLIENT_SECRET \(or CLIENT_SECRET\) is not"),
    ],
)
def test_what_is_missing_is_named_unless_a_tracking_server_is_set(missing: str, named: str) -> None:
    variables = environment(unused_address(), **{missing: None})
    with pytest.raises(ConfigError, match=named):
        settings_from_environment(variables)
    assert settings_from_environment({**variables, "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}) is None


def test_without_modelhub_nothing_is_asked_for() -> None:
    assert settings_from_environment({"CLIENT_ID": "x", "COPILOT_ID": "y"}) is None


@pytest.mark.parametrize("url", ["modelhub.example.com", "file:///etc/passwd", "https://", "https://me:hidden-1@host"])
def test_a_base_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="MODELHUB_BASE_URL") as caught:
        settings_from_environment({**environment(unused_address()), "MODELHUB_BASE_URL": url})
    assert "hidden-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("what", "answer", "kind", "says"),
    [
        ("token", (401, b"echo", {}), LoadError, "401 when asked for a token: check MODELHUB_CLIENT_ID"),
        ("token", (200, b"[]", {}), LoadError, "JSON object"),
        ("token", (200, b"{}", {}), LoadError, "without a token"),
        ("token", (200, b"<html>", {}), LoadError, "JSON object"),
        ("token", (503, b"", {}), NotReady, "503 when asked for a token"),
        ("token", (200, b" " * 2_000_000, {}), LoadError, "JSON object"),
        ("tracking_uri", (404, b"", {}), LoadError, "404 .* COPILOT_ID"),
        ("tracking_uri", (200, b'{"tracking_uri": 3}', {}), LoadError, "without 'tracking_uri'"),
        ("tracking_uri", (403, b"", {}), LoadError, "403 when asked for the tracking URI"),
        ("credentials", (200, b'{"username": "x"}', {}), LoadError, "without 'password'"),
    ],
)
def test_errors_say_what_was_asked_and_hold_no_secret(
    server: ModelHubServer, what: str, answer: tuple[int, bytes, dict[str, str]], kind: type[ServingError], says: str
) -> None:
    server.answers[what] = answer
    with pytest.raises(kind, match=says) as caught:
        client(server).tracking()
    assert server.url in str(caught.value)
    _no_secret(str(caught.value), server)


def test_credentials_follow_no_redirect(server: ModelHubServer) -> None:
    with ModelHubServer() as other:
        server.answers["tracking_uri"] = (302, b"", {"Location": f"{other.url}/steal/tracking_uri"})
        with pytest.raises(LoadError, match="302"):
            client(server).tracking()
        assert other.asked == []


def test_nobody_there() -> None:
    settings = settings_from_environment(environment(unused_address()))
    assert settings is not None
    with pytest.raises(NotReady, match=r"cannot be reached \(.*refused.*check MODELHUB_BASE_URL") as caught:
        ModelHub(settings).tracking()
    assert caught.value.retry_after


def test_representations_hold_no_secret(server: ModelHubServer) -> None:
    settings = settings_from_environment(server.environment())
    assert settings is not None
    hub = ModelHub(settings)
    access = hub.tracking()
    assert isinstance(access, TrackingAccess)
    _no_secret(repr([settings, hub, access, vars(hub)["_settings"]]), server)


def test_tokens_of_other_kinds_do_not_break_it(server: ModelHubServer) -> None:
    for token in ("a.b.c", "a.!!!.c", jwt(-5, 0)):
        server.token_answer = lambda _, token=token: {"id_token": token}
        assert client(server).token() == token


def _no_secret(text: str, server: ModelHubServer) -> None:
    for secret in (SECRET, PASSWORD, *server.tokens):
        assert secret not in text
