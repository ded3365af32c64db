"""What a model directory says about its environment, and when two environments are the same one."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.gateway.environments.requirements import RequirementLine
from modelhub.serving.gateway.environments.spec import EnvironmentSpec, Specs, read_spec
from modelhub.serving.gateway.environments.uv import Uv
from modelhub.serving.protocol.errors import LoadError
from support.env_parts import make_model, make_wheel, of_yesterday, offline

UV = Uv()


def texts(lines: tuple[RequirementLine, ...]) -> list[str]:
    return [line.text for line in lines]


def test_a_directory_as_mlflow_writes_it(tmp_path: Path) -> None:
    model = make_model(
        tmp_path / "m", "numpy==1.26.4\nmlflow==2.9.2\n-c constraints.txt\n", python="3.9", constraints_txt="six<2"
    )
    spec = read_spec(model, UV)
    assert (spec.python, spec.python_logged) == ("3.9", "3.9.1")
    assert texts(spec.requirements) == ["mlflow==2.9.2", "numpy==1.26.4"]
    assert texts(spec.constraints) == ["six<2"]
    assert spec.logged_at == datetime.datetime(2024, 2, 3, 4, 5, 6, 789000, tzinfo=datetime.timezone.utc)
    assert (spec.mlflow_version, spec.libraries, spec.not_covered) == ("9.0", ("sklearn",), ())
    assert spec.label == f"3.9 {spec.key[:8]}"


def test_a_minor_version_that_looks_like_a_number_is_read_as_text(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    (model / "python_env.yaml").write_text("python: 3.10\ndependencies: [tiny]\n")
    assert read_spec(model, UV).python == "3.10"


def test_conda_only_gives_its_pip_part_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    model = make_model(
        tmp_path / "m",
        conda_yaml="channels: [conda-forge]\ndependencies:\n- python=3.10.4\n- pip<=23\n- cudatoolkit=11.3\n"
        "- conda-forge::ffmpeg\n- pip: [tiny==1.0, mlflow]\n",
    )
    (model / "python_env.yaml").unlink()
    (model / "requirements.txt").unlink()
    spec = read_spec(model, UV)
    assert spec.python == "3.10"
    assert texts(spec.requirements) == ["mlflow", "tiny==1.0"]
    assert len(spec.not_covered) == 1
    assert "cudatoolkit=11.3, ffmpeg" in spec.not_covered[0]
    assert "pip<=23" not in spec.not_covered[0]


def test_python_env_wins_over_conda_but_conda_packages_are_still_named(tmp_path: Path) -> None:
    conda = "dependencies: [python=3.8, libgomp, {pip: [other]}]\n"
    spec = read_spec(make_model(tmp_path / "m", "tiny", python="3.11", conda_yaml=conda), UV)
    assert (spec.python, texts(spec.requirements)) == ("3.11", ["tiny"])
    assert "libgomp" in spec.not_covered[0]


def test_dependencies_may_stand_in_python_env_itself(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    (model / "python_env.yaml").write_text("python: 3.11.7\ndependencies: [tiny==1.0, 'six<2']\n")
    assert texts(read_spec(model, UV).requirements) == ["six<2", "tiny==1.0"]


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize("file", ["MLmodel", "python_env.yaml", "conda.yaml"])
@pytest.mark.parametrize(
    "text",
    [
        "a: [b",
        "{",
        "\x00",
        "[" * 3000 + "]" * 3000,
        BOMB,
        "a: &a [*a]",
        b"\xff\xfea",
        "- 1",
        "dependencies",
        "#" * (17 << 20),
    ],
    ids=["open", "brace", "binary", "deep", "aliases", "circle", "encoding", "list", "text", "large"],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, text: str | bytes) -> None:
    model = make_model(tmp_path / "m")
    (model / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LoadError, match=f"^{model / file} is "):
        read_spec(model, UV)


@pytest.mark.parametrize(
    "text", ["dependencies: 5", "dependencies: text", "dependencies: [{pip: 5}]", "dependencies: {a: 1}"]
)
def test_dependencies_that_are_no_list_are_said(tmp_path: Path, text: str) -> None:
    model = make_model(tmp_path / "m", conda_yaml=text)
    with pytest.raises(LoadError, match=f"^{model / 'conda.yaml'}: `(dependencies|pip)` is not a list"):
        read_spec(model, UV)


def test_empty_files_say_nothing(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", conda_yaml="", python_env_yaml="dependencies:\n")
    assert texts(read_spec(model, UV).requirements) == ["mlflow==9.0"]


def test_a_folder_without_mlmodel_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has no file MLmodel"):
        read_spec(tmp_path, UV)


# ---- uv.lock ---------------------------------------------------------------------------------------


def locked_model(folder: Path, wheelhouse: Path, requirements: str) -> tuple[Path, Uv]:
    """A model with a uv.lock made by uv: `leaf` 1.0 is locked, and a newer one has come since."""
    wheelhouse.mkdir()
    make_wheel(wheelhouse, "tree", "1.0", {"tree.py": ""}, ["leaf"])
    make_wheel(wheelhouse, "leaf", "1.0", {"leaf.py": ""})
    pyproject = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.9"\ndependencies = ["tree"]\n'
    model = make_model(folder, requirements, pyproject_toml=pyproject)
    environment = offline(wheelhouse, folder.parent / "cache")
    uv = Uv(environ=environment)
    subprocess.run(
        [uv.binary, "lock", "--quiet", "--no-index"],
        cwd=model,
        env=uv.environment(),
        check=True,
        stdin=subprocess.DEVNULL,
    )
    make_wheel(wheelhouse, "leaf", "2.0", {"leaf.py": ""})
    return model, uv


def test_uv_lock_pins_what_requirements_leave_open(tmp_path: Path) -> None:
    model, uv = locked_model(tmp_path / "m", tmp_path / "wheels", "tree\n")
    before = sorted(path.name for path in model.iterdir())
    spec = read_spec(model, uv)
    assert texts(spec.requirements) == ["tree"]
    assert texts(spec.constraints) == ["leaf==1.0"]
    assert sorted(path.name for path in model.iterdir()) == before


def test_uv_lock_alone_gives_the_requirements(tmp_path: Path) -> None:
    model, uv = locked_model(tmp_path / "m", tmp_path / "wheels", "")
    assert texts(read_spec(model, uv).requirements) == ["leaf==1.0", "tree==1.0"]


def test_requirements_win_where_they_contradict_the_lock(tmp_path: Path) -> None:
    model, uv = locked_model(tmp_path / "m", tmp_path / "wheels", "tree\nleaf==2.0\n")
    spec = read_spec(model, uv)
    assert (texts(spec.requirements), spec.constraints) == (["leaf==2.0", "tree"], ())


def test_a_broken_lock_is_said_and_fails_only_without_requirements(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", "tiny", uv_lock="no toml [", pyproject_toml="[project]\nname='p'\nversion='1'\n")
    spec = read_spec(model, UV)
    assert texts(spec.requirements) == ["tiny"]
    assert "uv.lock is not honoured" in spec.not_covered[0]
    (model / "requirements.txt").write_text("")
    with pytest.raises(LoadError, match=r"uv.lock of .* cannot be read"):
        read_spec(model, UV)


# ---- keys ------------------------------------------------------------------------------------------

LINES = ["numpy==1.26.4", "pandas<3", "scikit_learn==1.2.2", "tomli; python_version < '3.11'", "six"]


@given(st.permutations(LINES), st.permutations(["a<2", "b<3"]))
def test_order_spelling_and_comments_do_not_change_the_key(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], limits: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    plain = make_model(folder / "plain", "\n".join(LINES) + "\n-c constraints.txt", constraints_txt="a<2\nb<3")
    varied = make_model(
        folder / "varied",
        "\n\n-c constraints.txt\n"
        + "\n".join(f"  {line.title() if ';' not in line else line}  # why" for line in lines),
        constraints_txt="\n".join(limits),
    )
    assert read_spec(plain, UV).key == read_spec(varied, UV).key


def key(folder: Path, name: str, requirements: str, **more: str) -> str:
    return read_spec(make_model(folder / name, requirements, **more), UV).key


def test_whatever_changes_the_environment_changes_the_key(tmp_path: Path) -> None:
    keys = [
        key(tmp_path, "plain", "tiny==1.0"),
        key(tmp_path, "version", "tiny==1.1"),
        key(tmp_path, "marker", "tiny==1.0; python_version > '3'"),
        key(tmp_path, "extra", "tiny[x]==1.0"),
        key(tmp_path, "python", "tiny==1.0", python="3.9"),
        key(tmp_path, "option", "--pre\ntiny==1.0"),
        key(tmp_path, "index", "--extra-index-url https://example.org\ntiny==1.0"),
        key(tmp_path, "hash", "tiny==1.0 --hash=sha256:00"),
        key(tmp_path, "constraint", "tiny==1.0\n-c constraints.txt", constraints_txt="six<2"),
        key(tmp_path, "constraint is no requirement", "tiny==1.0\nsix<2"),
    ]
    assert len(set(keys)) == len(keys)


def test_the_patch_version_of_python_and_the_date_do_not_change_the_key(tmp_path: Path) -> None:
    first, second = make_model(tmp_path / "a"), make_model(tmp_path / "b")
    (second / "python_env.yaml").write_text((first / "python_env.yaml").read_text().replace(".1\n", ".9\n"))
    (second / "MLmodel").write_text((first / "MLmodel").read_text().replace("2024", "2025"))
    assert read_spec(first, UV).key == read_spec(second, UV).key


def test_a_key_is_the_same_in_the_next_release(tmp_path: Path) -> None:
    """A changed key would rebuild every environment of every user; raise the key's format when that is meant."""
    spec = EnvironmentSpec("3.11", "3.11.7", (RequirementLine("tiny==1.0", "tiny==1.0"),), (), (), (), (), None, "", ())
    machine = f"{sys.platform}-{platform.machine()}-{platform.libc_ver()[0]}"
    content = json.dumps([1, "3.11", machine, ["tiny==1.0"], [], []])
    assert spec.key == hashlib.sha256(content.encode()).hexdigest()[:16]


def test_a_spec_is_read_again_only_when_one_of_its_files_has_changed(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", "-r more/base.txt\ntiny==1.0.0\n")
    (model / "more").mkdir()
    (model / "more" / "base.txt").write_text("mlflow==9.0\n")
    specs = Specs(Uv())
    assert specs.read(model) is not specs.read(model), "what has just been written may be written once more"
    of_yesterday(model)
    first = specs.read(model)
    assert specs.read(model) is first
    (model / "more" / "base.txt").write_text("mlflow==8.0 \n")
    second = specs.read(model)
    assert [line.text for line in second.requirements] == ["mlflow==8.0", "tiny==1.0.0"]
    of_yesterday(model)
    second = specs.read(model)
    (model / "conda.yaml").write_text("dependencies: [python=3.9]\n")
    assert specs.read(model) is not second


def test_a_spec_with_paths_is_read_each_time(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", "mlflow==9.0\n./tiny-1.0.whl\n")
    (model / "tiny-1.0.whl").write_bytes(b"one")
    of_yesterday(model)
    specs = Specs(Uv())
    first = specs.read(model).key
    (model / "tiny-1.0.whl").write_bytes(b"two")
    assert specs.read(model).key != first
