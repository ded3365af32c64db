"""What clients are told of a model that failed is short; operators read all of it in `/status`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelhub.serving.gateway.models.states import BRIEF, brief
from support.env_parts import make_model, make_wheelhouse, offline
from support.gateway_process import Gateway


def test_clients_get_the_short_reason_and_operators_all_of_it(gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    wanted = [f"package-that-nobody-has-{number}==1.{number}" for number in range(20)]
    model = make_model(tmp_path / "m", "\n".join(["mlflow==9.0", *wanted, ""]))
    environ = offline(make_wheelhouse(tmp_path / "wheels"), tmp_path / "cache")
    entry = {"name": "m", "uri": str(model), "environment": "isolated"}
    running = gateway({"server": {"grpc_port": 0}, "models": [entry]}, env=environ)
    running.wait_log("m/1 FAILED")
    (row,) = running.get("/status").json()["models"]
    assert "uv said" in row["reason"]
    assert len(row["reason"].splitlines()) > 2
    answer = running.infer("m", [])
    assert answer.status == 503
    doors = [
        answer.json()["error"],
        running.get("/v2/health/ready").json()["reasons"]["m/1"],
        running.post("/v2/repository/index").json()[0]["reason"],
    ]
    for told in doors:
        assert "could not be built" in told
        assert told.endswith("(/status has the whole reason)")
        assert len(told) < BRIEF + 100
        assert "\n" not in told
        assert "uv said" not in told


def test_a_short_reason_is_told_as_it_is() -> None:
    assert brief("ValueError: no") == "ValueError: no"
    assert brief("") == ""
    assert brief("it said:\nmuch") == "it said (/status has the whole reason)"
    assert len(brief("x" * 10_000)) < BRIEF + 50
