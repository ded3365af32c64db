"""Who may change the server, by what a front knows of who asks: decided without a front."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from modelhub.serving.gateway.security.guard import CODE_KEYS, Approach, ControlGuard, bearer_of, guard_of
from modelhub.serving.gateway.security.hosts import Hosts
from modelhub.serving.gateway.security.tokens import leave_token
from modelhub.serving.protocol.errors import Forbidden, ServingError, Unauthenticated

NODE = os.uname().nodename
HOSTS = {
    "127.0.0.1": [
        "localhost",
        "LOCALHOST:8080",
        "localhost.:1",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.3.2.1",
        "[::1]:80",
    ],
    "::1": ["[::1]:8080", "localhost"],
    "localhost": ["localhost:8080", "127.0.0.1"],
    "0.0.0.0": ["localhost", "127.0.0.1:8080", "192.0.2.7:8080", "[2001:db8::1]", NODE, f"{NODE}:8080"],
    "::": ["localhost", "192.0.2.7", "[2001:db8::1]:8080"],
    "192.0.2.7": ["192.0.2.7:8080", NODE],
    "models.example.com": ["models.example.com", "Models.Example.Com.:8080"],
}
STRANGERS = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1:8080, evil.example",
    "evil.example@127.0.0.1",
    "127.1:8080",
    "[::ffff:192.0.2.1",
    "localhost:8080:1",
    "2130706433",
    "",
    "x" * 5000,
]
OF_THE_PAGE = {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080", "fetch_site": "same-origin"}


@pytest.mark.parametrize("listener", HOSTS)
def test_a_listener_has_the_names_of_its_address(listener: str) -> None:
    hosts = Hosts(listener)
    assert {host: hosts.has(host) for host in HOSTS[listener]} == dict.fromkeys(HOSTS[listener], True)
    assert {host: hosts.has(host) for host in STRANGERS} == dict.fromkeys(STRANGERS, False)


def test_addresses_of_others_and_names_that_are_given() -> None:
    assert not Hosts("127.0.0.1").has("192.0.2.7:8080")
    assert not Hosts("192.0.2.7").has("192.0.2.8:8080")
    assert not Hosts("192.0.2.7").has("localhost")
    given = Hosts("127.0.0.1", ["Models.example.com", "2001:db8::7"])
    assert given.has("models.example.com:80")
    assert given.has("[2001:db8::7]:80")
    assert not given.has("example.com")


@pytest.mark.parametrize(
    "approach",
    [
        Approach(),  # gRPC, or HTTP/1.0
        Approach(host="127.0.0.1:8080"),
        Approach(host="localhost:9999"),  # forwarded from another port
        Approach(**OF_THE_PAGE),
        Approach(host="localhost:80", origin="http://localhost", fetch_site="same-origin"),
        Approach(host="127.0.0.1:8080", fetch_site="none"),  # typed
        Approach(host="any", peer="unix"),
    ],
)
def test_programs_and_own_pages_may(approach: Approach) -> None:
    guard_of("127.0.0.1", None).check(approach)
    guard_of("127.0.0.1", "right").check(replace(approach, bearer="right"))


@pytest.mark.parametrize(
    "approach",
    [
        *(Approach(host=host) for host in STRANGERS),
        Approach(host="127.0.0.1:8080", origin="http://evil.example"),
        Approach(host="127.0.0.1:8080", origin="null"),
        Approach(host="127.0.0.1:8080", origin=""),
        Approach(host="127.0.0.1:8080", origin="http://127.0.0.1:3000"),
        Approach(host="127.0.0.1:8080", origin="file://127.0.0.1:8080"),
        Approach(host="127.0.0.1:8080", origin="http://[::1"),
        Approach(host="127.0.0.1:8080", origin="http://127.0.0.1:8080, http://evil.example"),
        Approach(origin="http://evil.example"),
        Approach(host="127.0.0.1:8080", fetch_site="cross-site"),
        Approach(host="127.0.0.1:8080", fetch_site="same-site"),
        Approach(host="127.0.0.1:8080", fetch_site=""),
        # what it lies about one does not outweigh another
        Approach(host="127.0.0.1:8080", origin="http://evil.example", fetch_site="same-origin"),
        Approach(host="evil.example:8080", origin="http://evil.example:8080", fetch_site="same-origin"),
        Approach(host="127.0.0.1:8080", origin="http://127.0.0.1:8080", fetch_site="cross-site"),
        Approach(host="any", origin="http://evil.example", peer="unix"),
    ],
)
def test_pages_of_others_may_not_whatever_they_know(approach: Approach) -> None:
    for guard in (guard_of("127.0.0.1", None), guard_of("127.0.0.1", "right")):
        for given in (None, "wrong", "right"):
            for check in (guard.check, guard.check_page):
                with pytest.raises(Forbidden):
                    check(replace(approach, bearer=given))


@pytest.mark.parametrize("given", [None, "", "wrong", "right ", "rightright", "r\udcffght", "RIGHT"])
def test_without_the_token_nobody_may(given: str | None) -> None:
    guard = guard_of("127.0.0.1", "right")
    with pytest.raises(Unauthenticated):
        guard.check(Approach(host="127.0.0.1", bearer=given))
    guard.check_page(Approach(host="127.0.0.1", bearer=given))  # a signature is asked for instead


def test_the_token_of_a_header() -> None:
    assert [bearer_of(text) for text in ("Bearer abc", "bearer  abc ", "Basic abc", "Bearer", "", None)] == [
        *("abc", "abc", None, "", None, None)
    ]


@pytest.mark.parametrize("key", sorted(CODE_KEYS))
def test_what_brings_code_or_secrets_is_overridden_only_where_the_server_says_so(key: str) -> None:
    plain = {"limits": {"queue": 1}, "batching": {}, "timeout": 3, "replicas": 2}
    closed = guard_of("127.0.0.1", None)
    closed.check_overrides(plain)
    with pytest.raises(Forbidden, match=f"override {key}: server.load_overrides"):
        closed.check_overrides({**plain, key: "any"})
    guard_of("127.0.0.1", None, overrides=[key]).check_overrides({**plain, key: "any"})


def test_the_token_is_new_each_time_and_of_its_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "1@here.token"
    file.write_text("of one that was killed")
    file.chmod(0o666)
    first = leave_token(file)
    assert len(first) >= 40
    assert file.read_text().strip() == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert leave_token(file) != first


def test_what_is_refused_is_said_at_a_limited_rate_and_never_with_a_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = guard_of("127.0.0.1", "right")
    with caplog.at_level(logging.WARNING, "modelhub.security"):
        for _ in range(50):
            for approach in (Approach(bearer="mistaken"), Approach(origin="http://evil.example")):
                with pytest.raises(ServingError):
                    guard.check(approach)
    assert 1 <= len(caplog.records) <= 3
    assert "mistaken" not in caplog.text


def test_a_guard_of_one_listener_knows_no_other() -> None:
    assert ControlGuard(Hosts("0.0.0.0"), None).check(Approach(host="192.0.2.7:8080")) is None
    with pytest.raises(Forbidden, match=r"server\.admin_hosts"):
        ControlGuard(Hosts("127.0.0.1"), None).check(Approach(host="192.0.2.7:8080"))
