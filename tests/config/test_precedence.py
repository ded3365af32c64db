"""Flags over MODELHUB_* over the guide's names over the file over the defaults; and models without a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelhub.serving.config.load import load, load_server
from modelhub.serving.config.overrides import settable, variable
from modelhub.serving.protocol.errors import ConfigError

FILE = """\
server: {port: 1, log: {level: error, format: json}}
defaults: {timeout: 1s, limits: {queue: 1, concurrency: 4}}
models: [{name: a, uri: "runs:/a/model"}, {name: b, uri: "runs:/b/model", timeout: 9s}]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "models.yaml"
    path.write_text(FILE)
    return str(path)


def message(argument: str | None = None, flags: dict[str, str] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(argument, flags=flags or {}, environ=environ)
    return raised.value.message


def test_each_source_beats_the_next(file: str) -> None:
    environ: dict[str, str] = {}
    flags: dict[str, str] = {}

    def port() -> int:
        return load(file, flags=flags, environ=environ).server.port

    assert load_server(environ={}).port == 8080
    assert port() == 1
    environ["PORT"] = "2"
    assert port() == 2
    environ["MODELHUB_SERVER_PORT"] = "3"
    assert port() == 3
    flags["server.port"] = "4"
    assert port() == 4


def test_nested_keys_keep_their_neighbours(file: str) -> None:
    settings = load(
        file,
        flags={"defaults.limits.queue": "5"},
        environ={"LOG_LEVEL": "INFO", "MODELHUB_DEFAULTS_LIMITS_MEMORY": "1GiB", "MODELHUB_DEFAULTS_TIMEOUT": "2s"},
    )
    assert (settings.server.log.level, settings.server.log.format) == ("info", "json")
    a, b = settings.models
    assert (a.limits.queue, a.limits.concurrency, a.limits.memory) == (5, 4, 1 << 30)
    assert (a.timeout, b.timeout) == (2.0, 9.0), "an entry's own key beats every default"
    assert load(file, environ={"LOG_LEVEL": "INFO", "MODELHUB_SERVER_LOG_LEVEL": "warn"}).server.log.level == "warning"


def test_text_becomes_lists_numbers_and_paths_of_the_working_directory(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = load(
        file,
        flags={"server.state-dir": "state", "server.readiness": "a,b", "defaults.pythonpath": "x, ../y"},
        environ={
            "MODELHUB_DEFAULTS_RETRY": "false",
            "MODELHUB_DEFAULTS_DEVICES": "0,1",
            "MODELHUB_DEFAULTS_THREADS": "4",
        },
    )
    entry = settings.models[0]
    assert settings.server.state_dir == str(elsewhere / "state")
    assert settings.server.readiness == ("a", "b")
    assert entry.pythonpath == (str(elsewhere / "x"), str(tmp_path / "y"))
    assert (entry.retry, entry.devices, entry.threads) == (False, ("0", "1"), 4)


def test_a_wrong_value_names_its_flag_or_variable(file: str) -> None:
    assert message(file, {"server.port": "x"}) == "--server.port: must be a whole number, not 'x'"
    assert message(file, PORT="x") == "PORT: must be a whole number, not 'x'"
    told = message(file, MODELHUB_DEFAULTS_LIMITS_QUEUE="0").splitlines()
    assert told == ["MODELHUB_DEFAULTS_LIMITS_QUEUE: must be greater than or equal to 1, not '0'"]


def test_unknown_names_under_the_prefixes_are_errors_with_the_nearest(file: str) -> None:
    told = message(
        file,
        {"server.prot": "1", "defaults.limits": "3"},
        MODELHUB_SERVER_LOG_LEVLE="info",
        MODELHUB_DEFAULTS_QUEUE="3",
        MODELHUB_BASE_URL="https://example.invalid",
    ).splitlines()
    assert told[:2] == [
        "MODELHUB_DEFAULTS_QUEUE: unknown variable; did you mean MODELHUB_DEFAULTS_LIMITS_QUEUE?",
        "MODELHUB_SERVER_LOG_LEVLE: unknown variable; did you mean MODELHUB_SERVER_LOG_LEVEL?",
    ]
    assert told[2] == "--server.prot: unknown flag; did you mean server.port?"
    assert told[3].startswith(
        "--defaults.limits: a section has no value of its own; set one of --defaults.limits.memory"
    )
    assert len(told) == 4


def test_an_empty_variable_counts_as_unset(file: str) -> None:
    assert load(file, environ={"PORT": "", "MODELHUB_SERVER_PORT": "", "MODELHUB_SERVER_NOPE": ""}).server.port == 1


def test_links_of_kubernetes_are_ignored_with_a_warning(file: str) -> None:
    links = {
        "MODELHUB_SERVER_PORT": "tcp://10.0.0.1:8080",
        "MODELHUB_SERVER_SERVICE_HOST": "10.0.0.1",
        "MODELHUB_SERVER_SERVICE_PORT_HTTP": "8080",
        "MODELHUB_SERVER_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    settings = load(file, environ=links)
    assert settings.server.port == 1
    assert len(settings.warnings) == 4
    assert all("Kubernetes" in warning for warning in settings.warnings)


def test_every_key_has_a_variable_of_its_own() -> None:
    paths = list(settable())
    assert len({variable(path) for path in paths}) == len(paths)
    assert ("server", "environments", "build") in paths
    assert ("defaults", "limits", "memory") in paths


def test_with_a_file_the_models_of_the_environment_are_ignored_with_a_warning(file: str) -> None:
    settings = load(file, environ={"MODEL_URI": "runs:/x/model", "MODEL_NAME": "x"})
    assert [model.name for model in settings.models] == ["a", "b"]
    assert settings.warnings == (f"MODEL_URI, MODEL_NAME ignored: the models come from {file}",)


@pytest.mark.parametrize(
    ("environ", "name", "uri"),
    [
        ({"MODEL_URI": "runs:/x/model"}, "default-model", "runs:/x/model"),
        ({"MODEL_URI": "runs:/x/model", "MODEL_NAME": "mine"}, "mine", "runs:/x/model"),
        ({"MODEL_NAME_REGISTRY": "iris", "MODEL_VERSION": "2"}, "default-model", "models:/iris/2"),
        ({"MODEL_NAME_REGISTRY": "iris"}, "default-model", "models:/iris/latest"),
    ],
)
def test_one_model_of_the_environment(environ: dict[str, str], name: str, uri: str) -> None:
    settings = load(None, environ={**environ, "MODELHUB_DEFAULTS_TIMEOUT": "7s"})
    (entry,) = settings.models
    assert (entry.name, entry.uri, entry.timeout) == (name, uri, 7.0)
    assert (settings.source, settings.warnings) == (None, ())


def test_one_model_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "iris").mkdir()
    (tmp_path / "iris" / "MLmodel").touch()
    monkeypatch.chdir(tmp_path)
    assert load("iris", environ={}).models[0].uri == str(tmp_path / "iris")
    assert load("file:iris", environ={"MODEL_NAME": "n"}).models[0].uri == str(tmp_path / "iris")
    settings = load("models:/iris@champion", environ={"MODEL_URI": "runs:/x/model"})
    assert settings.models[0].uri == "models:/iris@champion"
    assert settings.warnings == ("MODEL_URI ignored: the model is models:/iris@champion",)


def test_models_that_cannot_be_meant(tmp_path: Path) -> None:
    assert message().startswith("nothing to serve: give a YAML file")
    assert "has no MLmodel file" in message(str(tmp_path))
    assert message(MODEL_URI="x:/y", MODEL_NAME_REGISTRY="z").endswith("both set: set one of them")
    assert "is not a name" in message("runs:/x/model", MODEL_NAME="a/b")


def test_the_state_directory_follows_the_given_environment() -> None:
    assert load_server(environ={"XDG_CACHE_HOME": "/cache"}).state_dir == "/cache/modelhub"
    assert load_server(environ={"XDG_CACHE_HOME": "/c", "MODELHUB_SERVER_STATE_DIR": "/s"}).state_dir == "/s"
