"""What changes the server, over HTTP: every route asks the guard first, on every listener."""

from __future__ import annotations

from typing import Any

import pytest

from support.http_front import Model, serving

POSTS = [
    "/v2/repository/models/iris/load",
    "/v2/repository/models/iris/versions/1/load",
    "/v2/repository/models/iris/unload",
    "/v2/repository/models/iris/versions/1/unload",
    "/admin/reload",
]
WEBHOOK = "/admin/mlflow-webhook"
ROUTES = [("GET", "/status"), *(("POST", path) for path in (*POSTS, WEBHOOK))]
PAGES: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"},
    {"X-Forwarded-Host": "localhost", "Origin": "http://evil.example"},
]
#: tritonclient's, and those of `curl -d`, `curl -X POST` and urllib.
TOOLS: list[dict[str, str]] = [{}, {"Content-Type": "application/x-www-form-urlencoded"}, {"User-Agent": "curl/8"}]


@pytest.mark.parametrize("listener", ["main", "admin", "closed"])
@pytest.mark.parametrize("token", [None, "right"])
async def test_no_page_of_others_reaches_any_control_route(listener: str, token: str | None) -> None:
    how: dict[str, Any] = {"admin_only": listener == "admin", "admin": listener != "closed"}
    known = {"Authorization": f"Bearer {token}"} if token else {}
    async with serving(Model(), token=token, **how) as front:
        for method, path in ROUTES:
            if listener == "closed" and path == "/status":
                continue  # there is none
            for headers in PAGES:
                (await front.request(method, path, b"{}", {**headers, **known})).assert_error(403)
            raw = f"{method} {path} HTTP/1.1\r\nHost: evil.example:80\r\n"
            raw += "".join(f"{name}: {value}\r\n" for name, value in known.items()) + "\r\n"
            (await front.send(raw.encode())).assert_error(403, "admin_hosts")
            twice = raw.replace("evil.example:80", "localhost").replace("\r\n\r\n", "\r\nHost: evil.example\r\n\r\n")
            assert (await front.send(twice.encode())).status in (400, 403)
        assert front.operators.asked == []


async def test_the_token_is_wanted_everywhere_but_from_who_signs() -> None:
    async with serving(Model(), token="right") as front:
        for method, path in ROUTES:
            wrong = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic cmlnaHQ6"}]
            for headers in wrong if path != WEBHOOK else []:
                answer = await front.request(method, path, b"", headers)
                answer.assert_error(401, "token")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert front.operators.asked == []
        for method, path in ROUTES[:-1]:
            assert (await front.request(method, path, b"", {"Authorization": "Bearer right"})).status == 200
        assert len(front.operators.asked) == len(POSTS)
        (await front.post(WEBHOOK)).assert_error(501, "MLFLOW_WEBHOOK_SECRET")
        assert (await front.get("/v2/models/iris")).status == 200
        assert (await front.get("/metrics")).status == 200


async def test_tools_that_are_no_browsers_go_on_working_without_a_token() -> None:
    async with serving(Model()) as front:
        for headers in TOOLS:
            for path in POSTS:
                assert (await front.post(path, b"{}", headers)).status == 200
            assert (await front.get("/status", headers)).status == 200
        answer = await front.send(b"POST /admin/reload HTTP/1.0\r\n\r\n")  # no Host at all
        assert answer.status == 200


async def test_a_closed_port_tells_tools_where_to_go() -> None:
    async with serving(Model(), admin=False) as front:
        for path in (*POSTS, WEBHOOK):
            (await front.post(path)).assert_error(501, "server.admin")
        (await front.get("/status")).assert_error(404)


async def test_a_name_that_was_given_is_the_gateways() -> None:
    async with serving(Model(), admin_hosts=["models.example.com"]) as front:
        named = b"POST /admin/reload HTTP/1.1\r\nHost: models.example.com\r\nContent-Length: 0\r\n\r\n"
        assert (await front.send(named)).status == 200


async def test_a_load_overrides_code_and_secrets_only_where_the_server_says_so() -> None:
    body = b'{"parameters": {"config": "{\\"env\\": [\\"MLFLOW_TRACKING_PASSWORD\\"], \\"timeout\\": 3}"}}'
    async with serving(Model(), token="right") as front:
        known = {"Authorization": "Bearer right"}
        (await front.post(POSTS[0], body, known)).assert_error(403, "env", "server.load_overrides")
        assert front.operators.asked == []
        assert (await front.post(POSTS[0], body.replace(b"env", b"devices"), known)).status == 200
    async with serving(Model(), load_overrides=["env"]) as front:
        assert (await front.post(POSTS[0], body)).status == 200
        assert front.operators.asked == [("load", "iris", None, {"env": ["MLFLOW_TRACKING_PASSWORD"], "timeout": 3})]
