"""What the typed settings say of themselves: versions, addresses, paths, and their JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from modelhub.serving.config.entries import EntryDefaults, ModelSettings
from modelhub.serving.config.fields import Section
from modelhub.serving.config.problems import keys_of
from modelhub.serving.config.reference import markdown
from modelhub.serving.config.server import ServerSettings
from modelhub.serving.config.settings import GroupSettings, Settings, json_schema

ROOT = Path(__file__).parents[2]

EXAMPLE = """\
server: {host: 0.0.0.0, port: 8080, max_body: 64MiB}
defaults: {timeout: 30s, environment: auto}
models:
  - {name: iris, uri: "models:/iris@champion", follow: 30s}
  - name: sentiment
    uri: runs:/abc123/model
    replicas: 2
    batching: {max_size: 64, max_delay: 2ms}
    limits: {memory: 2GiB, queue: 200, concurrency: 1}
groups:
  - name: documents
    load: lazy
    memory_budget: 6GiB
    idle_timeout: 15m
    from: {folder: ./more}
    models:
      - {name: invoices, uri: ./models/invoices, service: "services.documents:DocumentProcessor", pythonpath: [.]}
      - {name: receipts, uri: "models:/receipts/4", pinned: true}
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_schema_accepts_the_example(validator: Draft202012Validator) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(EXAMPLE))] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"modles": []},
        {"server": {"port": 70000}},
        {"server": {"port": "x"}},
        {"server": {"max_body": "64Mob"}},
        {"server": {"admin": "maybe"}},
        {"defaults": {"timeout": "30x"}},
        {"defaults": {"name": "x"}},
        {"models": [{"uri": "x"}]},
        {"models": [{"name": "a/b", "uri": "x"}]},
        {"models": [{"name": "stats", "uri": "x"}]},
        {"models": [{"name": "a", "limits": {"queue": 0}}]},
        {"models": [{"name": "a", "replicas": 0}]},
        {"groups": [{"name": "g", "load": "slow"}]},
        {"groups": [{"name": "g", "from": {"dir": "x"}}]},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(validator: Draft202012Validator, wrong: dict[str, Any]) -> None:
    assert not validator.is_valid(wrong)


def test_the_schema_explains_every_key_and_depends_on_no_user() -> None:
    schema = json_schema()
    for name, section in {**schema["$defs"], "the file": schema}.items():
        for key, described in section["properties"].items():
            target = schema["$defs"].get(described.get("$ref", "").rpartition("/")[2], {})
            assert described.get("description") or target.get("description"), f"{name}.{key} has no description"
    assert schema["$defs"]["ModelSettings"]["required"] == ["name"]
    assert "default" not in schema["$defs"]["ServerSettings"]["properties"]["state_dir"]
    assert json.loads(json.dumps(schema)) == schema


def test_the_sections_have_the_keys_of_the_documentation() -> None:
    def keys(section: type[Section]) -> str:
        return " ".join(sorted(keys_of(section)))

    assert keys(EntryDefaults) == (
        "batching devices env environment image limits load_timeout model_type pdf pythonpath ready_grace replicas "
        "retry start threads timeout warmup"
    )
    assert keys_of(ModelSettings).keys() - keys_of(EntryDefaults).keys() == {
        *("name", "uri", "version", "service", "default", "follow", "pinned")
    }
    assert keys(GroupSettings) == (
        "from idle_timeout load max_loaded memory_budget models name parallel_loads preload_order"
    )
    assert keys(ServerSettings) == (
        "admin admin_auth admin_hosts artifact_cache drain_delay environments grpc_port host load_overrides log "
        "max_body max_buffered max_connections max_headers port pythons readiness readiness_strict shutdown_grace "
        "socket_mode state_dir write_timeout"
    )


def test_the_reference_is_current() -> None:
    """`modelhub schema --markdown > docs/configuration.md` makes it so."""
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == markdown()


def test_a_name_that_is_a_route() -> None:
    with pytest.raises(ValidationError, match="/v2/models/stats is the statistics of all models"):
        ModelSettings(name="stats", uri="/models/iris")


def test_a_registered_model_without_a_version() -> None:
    with pytest.raises(ValidationError, match="names no version; write models:/iris/<version>, models:/iris/latest or"):
        ModelSettings(name="iris", uri="models:/iris")


@pytest.mark.parametrize(
    ("uri", "version", "moves"),
    [
        ("runs:/abc/model", "1", False),
        ("models:/iris/3", "3", False),
        ("models:/iris@champion", None, True),
        ("models:/iris/latest", None, True),
        ("models:/iris/Production", None, True),
        ("models:/m-0123456789abcdef", "1", False),
        ("/models/iris", "1", False),
        ("s3://bucket/model", "1", False),
    ],
)
def test_what_a_uri_tells_of_the_version(uri: str, version: str | None, moves: bool) -> None:
    entry = ModelSettings(name="m", uri=uri)
    assert (entry.known_version, entry.moves) == (version, moves)
    assert ModelSettings(name="m", uri=uri, version="7").known_version == "7"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/models/iris", "/models/iris"),
        ("file:///models/my%20iris", "/models/my iris"),
        ("file://localhost/models/iris/", "/models/iris"),
        ("file:/models/iris", "/models/iris"),
        ("FILE:/models/iris", "/models/iris"),
        ("runs:/abc/model", None),
        ("s3://bucket/model", None),
    ],
)
def test_local_models_are_known_by_their_path(uri: str, path: str | None) -> None:
    assert ModelSettings(name="m", uri=uri).local_path == path


@pytest.mark.parametrize("path", ["c:/models/iris", "C:\\models\\iris", "d:iris"])
def test_a_drive_of_windows_is_a_path(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert ModelSettings(name="m", uri=path).local_path == str(tmp_path / path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "m"},
        {"name": "m", "uri": "file://elsewhere/model"},
        {"name": "..", "uri": "x"},
        {"name": "-m", "uri": "x"},
        {"name": "m" * 201, "uri": "x"},
        {"name": "m\n", "uri": "x"},
        {"name": "", "uri": "x"},
        {"name": "m", "uri": "models:/m/3", "follow": 30},
        {"name": "m", "uri": "models:/m@a", "version": "1", "follow": 30},
        {"name": "m", "uri": "x", "timeout": 0},
        {"name": "m", "uri": "x", "replicas": True},
        {"name": "m", "uri": "x", "service": "module.Class"},
        {"name": "m", "uri": "x", "environment": "python3"},
        {"name": "m", "uri": "x", "env": ["KEY=secret"]},
        {"name": "m", "uri": "x", "pdf": {"pages": "first"}},
    ],
)
def test_wrong_entries(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelSettings(**wrong)


def test_values_that_have_several_spellings() -> None:
    entry = ModelSettings(name="m", uri="x", version=3, threads="auto", devices=[0, "GPU-1"], pdf={"pages": 2})  # type: ignore[arg-type]
    assert (entry.version, entry.threads, entry.devices, entry.pdf.pages) == ("3", 0, ("0", "GPU-1"), "2")


@pytest.mark.parametrize(
    ("given", "loopback", "place"),
    [
        ({}, False, 8081),
        ({"host": "127.0.0.1"}, True, 8081),
        ({"host": "::1"}, True, 8081),
        ({"host": "localhost"}, True, 8081),
        ({"host": "gateway.example"}, False, 8081),
        ({"host": "127.0.0.1", "admin": "off"}, True, "off"),
        ({"admin": "same"}, False, "same"),
        ({"admin": "9000"}, False, 9000),
    ],
)
def test_where_the_admin_routes_are(given: dict[str, Any], loopback: bool, place: str | int) -> None:
    server = ServerSettings(**given)
    assert (server.is_loopback, server.admin_place) == (loopback, place)


def test_settings_are_frozen_and_comparable() -> None:
    first, second = (Settings(models=(ModelSettings(name="m", uri="/x"),)) for _ in range(2))
    assert first == second
    assert first.models[0] == second.models[0]
    with pytest.raises(ValidationError, match="frozen"):
        first.models[0].name = "other"  # type: ignore[misc]
