"""From a file to settings: what is resolved, and how mistakes are told."""

from __future__ import annotations

import cProfile
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelhub.serving.config.load import load
from modelhub.serving.config.settings import Settings
from modelhub.serving.protocol.errors import ConfigError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "models.yaml"
        path.write_text(text)
        return path

    return _write


def read(path: Path, **more: str) -> Settings:
    return load(str(path), environ=more)


def problems(path: Path, **environ: str) -> list[str]:
    """The lines of the error, the file's folder removed."""
    with pytest.raises(ConfigError) as raised:
        load(str(path), environ=environ)
    return [line.removeprefix(f"{path.parent}{os.sep}") for line in raised.value.message.splitlines()]


def test_defaults_are_merged_under_every_entry_section_by_section(write: Write) -> None:
    settings = read(
        write(
            """\
defaults: {timeout: 5s, replicas: 3, limits: {memory: 1GiB, queue: 7}, env: [A]}
models:
  - {name: a, uri: /a}
  - {name: b, uri: /b, timeout: 1m, limits: {queue: 9}, env: [B]}
groups:
  - {name: g, load: lazy, models: [{name: c, uri: /c, limits: {concurrency: 2}}]}
"""
        )
    )
    a, b, c = (entry.model for entry in settings.entries)
    assert [entry.group for entry in settings.entries] == [None, None, "g"]
    assert (a.timeout, a.replicas, a.limits.memory, a.limits.queue, a.env) == (5.0, 3, 1 << 30, 7, ("A",))
    assert (b.timeout, b.limits.memory, b.limits.queue, b.env) == (60.0, 1 << 30, 9, ("B",))
    assert (c.limits.memory, c.limits.queue, c.limits.concurrency) == (1 << 30, 7, 2)
    assert settings.groups[0].load == "lazy"


def test_relative_paths_of_the_file_are_relative_to_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    settings = read(
        write(
            """\
server: {state_dir: state, pythons: [py]}
defaults: {environment: ./venv}
models:
  - {name: a, uri: models/a, pythonpath: [., lib]}
  - {name: b, uri: "file:models/b"}
  - {name: c, uri: "runs:/x/model"}
"""
        )
    )
    a, b, c = settings.models
    assert (a.uri, a.environment, a.pythonpath) == (
        f"{tmp_path}/models/a",
        f"{tmp_path}/venv",
        (str(tmp_path), f"{tmp_path}/lib"),
    )
    assert (b.uri, c.uri) == (f"{tmp_path}/models/b", "runs:/x/model")
    assert (settings.server.state_dir, settings.server.pythons) == (f"{tmp_path}/state", (f"{tmp_path}/py",))
    assert settings.source == tmp_path / "models.yaml"


def test_every_problem_is_told_with_its_line_and_the_nearest_key(write: Write) -> None:
    told = problems(
        write(
            """\
server:
  prot: 8080
  max_body: 64Mob
  log: {levle: info}
modles: []
models:
  - name: iris
    uri: runs:/x/model
    batching:
      max_sise: 3
    replicas: two
  - iris
  - {uri: /x}
groups:
  - name: g
    laod: lazy
    models:
      - name: deep
        uri: /x
        limits: {memory: big}
"""
        )
    )
    assert told == [
        "models.yaml:2: server.prot: unknown key; did you mean port?",
        "models.yaml:3: server.max_body: '64Mob' is not a size; write 64MiB, 2GB or a number of bytes",
        "models.yaml:4: server.log.levle: unknown key; did you mean level?",
        "models.yaml:5: modles: unknown key; did you mean models?",
        "models.yaml:10: models[0].batching.max_sise: unknown key; did you mean max_size?",
        "models.yaml:11: models[0].replicas: must be a whole number, not 'two'",
        "models.yaml:12: models[1]: must be a model: keys and values such as {name: iris, uri: ./models/iris}",
        "models.yaml:13: models[2].name: is missing",
        "models.yaml:16: groups[0].laod: unknown key; did you mean load?",
        "models.yaml:20: groups[0].models[0].limits.memory: 'big' is not a size; write 64MiB, 2GB or a number of bytes",
    ]


def test_a_mistake_in_defaults_is_told_once(write: Write) -> None:
    text = "defaults: {timeout: 30x}\nmodels:\n  - {name: a, uri: /a}\n  - {name: b, uri: /b}\n"
    assert problems(write(text)) == [
        "models.yaml:1: defaults.timeout: '30x' is not a duration; write 250ms, 30s, 15m or a number of seconds"
    ]


def test_a_key_that_resembles_none_is_told_with_all_that_are_valid(write: Write) -> None:
    (told,) = problems(write("models:\n  - {name: a, uri: /a, image: {qqqq: 1}}\n"))
    assert told == "models.yaml:2: models[0].image.qqqq: unknown key; valid here: dtype, layout, max_pixels, mode, size"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("server: 3", "server: must be a section of keys and values"),
        ("server: {log: 3}", "server.log: must be a section of keys and values, not 3"),
        ("server: {host: }", "server.host: must be text in quotes, not empty"),
        ("server: {port: true}", "server.port: true is not a whole number"),
        ("server: {port: 65536}", "server.port: must be less than or equal to 65535, not 65536"),
        ("server: {readiness: [a, 3]}", "server.readiness: ['a', 3] is neither all, any nor a list of models' names"),
        ("server: {readiness: [irsi]}", "server.readiness: no model is called irsi; did you mean iris?"),
        ("defaults: {name: x}", "defaults.name: unknown key; valid here: batching, devices, env,"),
        ("defaults: {env: HOME}", "defaults.env: must be a list, not 'HOME'"),
        ("defaults: {warmup: maybe}", "defaults.warmup: must be 'fail', 'warn' or 'off', not 'maybe'"),
        ("defaults: {image: {size: [1]}}", "defaults.image.size"),
        ("groups: {}", "groups: must be a list: one '- ' for each"),
        (
            "groups: [{name: g, from: {folder: /nowhere}}]",
            "groups[0].from.folder: /nowhere cannot be read: No such file",
        ),
        ("groups: [{name: g, preload_order: [x]}]", "groups[0].preload_order: the group has no model x"),
        ("groups: [{name: g}, {name: g}]", "groups[1].name: the group g is there already"),
    ],
)
def test_wrong_values(write: Write, value: str, text: str) -> None:
    (told,) = problems(write(f"models: [{{name: iris, uri: /x}}]\n{value}\n"))
    assert told.startswith(f"models.yaml:2: {text}")


def test_off_is_a_word_and_no_boolean(write: Write) -> None:
    settings = read(write("server: {admin: off}\nmodels: [{name: a, uri: /a, warmup: off}]\n"))
    assert (settings.server.admin, settings.models[0].warmup) == ("off", "off")


def test_the_same_name_and_version_twice_names_both_lines(write: Write) -> None:
    text = """\
models:
  - {name: iris, uri: models:/iris/3}
  - {name: iris, uri: models:/iris/4}
groups:
  - name: g
    models:
      - name: iris
        uri: /x
        version: 3
"""
    assert problems(write(text)) == [
        "models.yaml:7: groups[0].models[0].name: iris with version 3 is there already, at line 2; "
        "give it another name or version"
    ]


def test_a_key_twice_in_one_entry(write: Write) -> None:
    told = problems(write("models:\n  - name: a\n    uri: /a\n    uri: /b\n"))
    assert told == ["models.yaml:4: models[0].uri: this key stands twice; the first is on line 3"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "models:\n", "models: []\ngroups: []\n", "groups: [{name: g}]\n"])
def test_no_models_at_all_says_what_to_write(write: Write, text: str) -> None:
    assert problems(write(text)) == [
        "models.yaml: no models; write for example",
        "models:",
        '  - {name: iris, uri: "models:/iris@champion"}',
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"- a\n", ":1: must be a mapping with the keys server, "), (b"\xff\xfe\x00", ": not UTF-8 text")],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_bytes(content)
    assert problems(path)[0].startswith(f"models.yaml{text}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "absent.yaml")[0].startswith("absent.yaml: no such file")


def test_a_missing_model_folder_is_a_warning_or_when_strict_an_error(write: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = write("models:\n  - {name: a, uri: ./a}\n  - {name: b, uri: ./empty, pythonpath: [lib]}\n")
    told = (
        f"{path}:2: models[0].uri: {tmp_path}/a does not exist",
        f"{path}:3: models[1].uri: {tmp_path}/empty has no MLmodel file",
        f"{path}:3: models[1].pythonpath: {tmp_path}/lib does not exist",
    )
    assert read(path).warnings == told
    with pytest.raises(ConfigError) as raised:
        load(str(path), environ={}, strict_paths=True)
    assert tuple(raised.value.message.splitlines()) == told


def test_a_group_finds_the_models_of_its_folder(write: Write, tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / "many" / name).mkdir(parents=True)
        (tmp_path / "many" / name / "MLmodel").touch()
    (tmp_path / "many" / "no-model").mkdir()
    path = write(
        """\
defaults: {timeout: 5s}
groups:
  - {name: g, from: {folder: many}, preload_order: [c], models: [{name: b, uri: many/b, pinned: true}]}
"""
    )
    models = [entry.model for entry in read(path).entries]
    assert [(model.name, model.pinned, model.timeout) for model in models] == [
        ("b", True, 5),
        ("a", False, 5),
        ("c", False, 5),
    ]
    assert models[1].local_path == str(tmp_path / "many" / "a")


def test_what_an_entry_costs_does_not_grow_with_their_number(write: Write) -> None:
    def calls(count: int) -> int:
        text = "".join(
            f"  - {{name: m{i}, uri: /models/m{i}, limits: {{memory: 1GiB}}, timeout: 3s}}\n" for i in range(count)
        )
        path = write("defaults: {limits: {queue: 7}}\nmodels:\n" + text)
        with cProfile.Profile() as profile:
            assert len(read(path).models) == count
        return sum(entry.callcount for entry in profile.getstats())

    calls(1)  # what is imported or compiled once
    assert calls(1000) < 11 * calls(100)
