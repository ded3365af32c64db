"""The commands `modelhub env build | list | prune | plan`, called as a user does."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelhub.serving.gateway.cli.main import main
from modelhub.serving.gateway.environments.installed import ListedInstalled
from modelhub.serving.gateway.environments.plan import Planned, make_plan
from modelhub.serving.gateway.environments.spec import read_spec
from modelhub.serving.gateway.environments.uv import Uv
from support.env_parts import PYTHON, make_model, make_wheelhouse, offline

Modelhub = Callable[..., str]
HERE = ListedInstalled("3.11.7", {"mlflow": "9.0", "tiny": "2.0.0"}, {})


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    settings = {**offline(make_wheelhouse(tmp_path / "wheels"), tmp_path / "cache"), "COLUMNS": "200"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def modelhub(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Modelhub:
    """`modelhub env …`: what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        returned = main(["env", *arguments])
        said = "".join(capsys.readouterr())
        assert returned == code, said
        return said

    return run


def write_config(folder: Path, *entries: dict[str, str]) -> str:
    path = folder / "models.yaml"
    state = {"state_dir": str(folder / "state")}
    path.write_text(json.dumps({"server": state, "models": list(entries)}))
    return str(path)


def test_models_whose_lists_come_to_the_same_packages_are_planned_together_once_that_is_known(
    modelhub: Modelhub, tmp_path: Path
) -> None:
    for name, requirements in (("a", "mlflow==9.0\ntiny==2.0.0"), ("b", "mlflow==9.0\ntiny>=2")):
        make_model(tmp_path / name, requirements)
    entries = [{"name": name, "uri": f"./{name}", "environment": "isolated"} for name in "ab"]
    config = write_config(tmp_path, *entries)
    assert "a, b" not in modelhub("plan", config)
    assert modelhub("build", config).count("building with Python") == 1
    assert "KiB of its own)  a, b" in modelhub("plan", config)
    assert modelhub("list", "--state-dir", str(tmp_path / "state")).count("mlflow==9.0") == 1
    assert "removed" in modelhub("prune", "--state-dir", str(tmp_path / "state"), "--unused-for", "0")
    assert "not built yet" in modelhub("plan", config)


def test_build_list_plan_prune(modelhub: Modelhub, tmp_path: Path) -> None:
    for name, requirements in (
        ("a", "mlflow==9.0\ntiny==1.0.0"),
        ("b", "tiny==1.0.0\nmlflow==9.0"),
        ("c", "packaging"),
    ):
        make_model(tmp_path / name, requirements)
    config = write_config(tmp_path, *({"name": name, "uri": f"./{name}"} for name in "abc"))

    plan = modelhub("plan", config)
    assert "not built yet  a, b" in plan
    assert "a: mlflow==9.0, here" in plan
    assert not (tmp_path / "state" / "environments").exists()

    built = modelhub("build", config)
    assert "c: shared, Python" in built
    assert f"a: {PYTHON} " in built
    assert built.count("building with Python") == 1

    listed = modelhub("list", "--state-dir", str(tmp_path / "state"))
    assert "mlflow==9.0, tiny==1.0.0" in listed
    assert f"kit {PYTHON}-" in listed
    assert "KiB of its own)  a, b" in modelhub("plan", config)

    state = ("--server.state_dir", str(tmp_path / "state"))
    assert modelhub("prune", *state) == ""
    assert modelhub("prune", *state, "--unused-for", "0", "--dry-run").count("would remove") == 2
    assert modelhub("prune", *state, "--unused-for", "0").count("removed") == 2
    assert "nothing is built" in modelhub("list", *state)


def test_one_failure_does_not_stop_the_others_and_is_the_exit_code(modelhub: Modelhub, tmp_path: Path) -> None:
    make_model(tmp_path / "bad", "mlflow==9.0\ntiny==7")
    make_model(tmp_path / "good")
    config = write_config(
        tmp_path,
        {"name": "bad", "uri": "./bad"},
        {"name": "good", "uri": "./good"},
        {"name": "missing", "uri": "./nowhere"},
    )
    said = modelhub("build", config, code=1)
    assert f"good: {PYTHON} " in said
    assert "bad: environment" in said
    assert "no version of tiny==7" in said
    assert "missing: " in said
    assert "missing: " in modelhub("plan", config, code=1)


def test_a_groups_folder_is_planned_too(modelhub: Modelhub, tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "found", "tiny==1.0.0\nmlflow")
    (tmp_path / "models" / "other").mkdir()
    path = tmp_path / "models.yaml"
    path.write_text("groups: [{name: g, from: {folder: ./models}}]")
    plan = modelhub("plan", str(path), "--state-dir", str(tmp_path / "state"))
    assert "not built yet  found" in plan


def test_mistakes_are_explained(modelhub: Modelhub) -> None:
    assert "--unused-for: 'soon' is not a duration" in modelhub("prune", "--unused-for", "soon", code=2)
    assert "no such file" in modelhub("plan", "nowhere.yaml", code=2)


def test_a_terminal_shows_the_steps_and_uvs_latest_lines(environ: dict[str, str], tmp_path: Path) -> None:
    make_model(tmp_path / "a")
    config = write_config(tmp_path, {"name": "a", "uri": "./a"})
    ours, theirs = pty.openpty()
    code = "import sys; from modelhub.serving.gateway.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "env", "build", config]
    terminal = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, env=terminal, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # the other end of a terminal is gone
            pass
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    text = shown.decode()
    assert "building with Python" in text
    assert "+ mlflow==9.0" in text
    assert text.index("building with Python") < text.index("+ mlflow==9.0") < text.rindex("a: ")


# ---- the plan itself --------------------------------------------------------------------------------


def planned(folder: Path, name: str, requirements: str, choice: str = "auto", **more: str) -> Planned:
    return Planned(name, choice, read_spec(make_model(folder / name, requirements, **more), Uv()))


def test_models_are_grouped_and_their_clashes_named(tmp_path: Path) -> None:
    plan = make_plan(
        [
            planned(tmp_path, "fits", "tiny==2.0.0", python="3.11"),
            planned(tmp_path, "alone", "tiny==2.0.0", "isolated", python="3.11"),
            planned(tmp_path, "old", "tiny==1.0.0", python="3.11"),
            planned(tmp_path, "as_old", "Tiny==1.0.0", python="3.11"),
            planned(tmp_path, "forced", "tiny==1.0.0", "shared", python="3.11"),
            planned(tmp_path, "given", "tiny==1.0.0", "/venv", python="3.11"),
            Planned("broken", "auto", error="no MLmodel"),
        ],
        HERE,
    )
    assert [(row.label.split()[0], row.models) for row in plan.rows if row.key in {"shared", "path:/venv"}] == [
        ("shared", ["fits", "forced"]),
        ("/venv", ["given"]),
    ]
    assert sorted(row.models for row in plan.rows if row.spec) == [["alone"], ["old", "as_old"]]
    assert plan.clashes == {model: ["tiny==1.0.0, here 2.0.0"] for model in ("old", "as_old", "forced")}
    assert plan.errors == {"broken": "no MLmodel"}


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ("tiny==1.0.0\nsix==1.0", "tiny==1.0.1\nsix==1.0", "tiny 1.0.0 / 1.0.1"),
        ("tiny==1.0.0", "tiny==1.0.1.post1", "tiny 1.0.0 / 1.0.1.post1"),
        ("tiny==1.0.0", "tiny==1.1.0", None),
        ("tiny==1.0.0\nsix==1.0", "tiny==1.0.1", None),
        ("tiny==1.0.0\nsix", "tiny==1.0.1\nsix", None),
        ("tiny==1.0.*", "tiny==1.0.1", None),
        ("--pre\ntiny==1.0.0", "tiny==1.0.1", None),
    ],
)
def test_patch_differences(tmp_path: Path, first: str, second: str, difference: str | None) -> None:
    both = [planned(tmp_path, "a", first, "isolated"), planned(tmp_path, "b", second, "isolated")]
    sentences = make_plan(both, HERE).nearly_equal
    if difference is None:
        assert sentences == []
    else:
        (sentence,) = sentences
        one, other = difference.removeprefix("tiny ").split(" / ")
        assert "differ only in patch versions: tiny " in sentence
        assert one in sentence
        assert other in sentence


def test_other_pythons_never_differ_only_in_patch_versions(tmp_path: Path) -> None:
    both = [planned(tmp_path, "a", "tiny==1.0.0", python="3.9"), planned(tmp_path, "b", "tiny==1.0.1", python="3.10")]
    assert make_plan(both, HERE).nearly_equal == []
