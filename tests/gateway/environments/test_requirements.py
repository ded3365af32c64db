"""Reading pip's requirements files, as MLflow and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelhub.serving.gateway.environments.requirements import RequirementFile, read_file
from modelhub.serving.protocol.errors import LoadError


def read(folder: Path, text: str, **others: str) -> RequirementFile:
    (folder / "requirements.txt").write_text(text)
    for name, content in others.items():
        (folder / f"{name}.txt").write_text(content)
    file = RequirementFile()
    read_file(folder / "requirements.txt", file)
    return file


@pytest.mark.parametrize(
    ("line", "normal"),
    [
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("  NumPy == 1.26.4  # the old one", "numpy==1.26.4"),
        ("scikit_learn==1.2.2", "scikit-learn==1.2.2"),
        ("pandas>=2,<3", "pandas<3,>=2"),
        ("mlflow[extras, databricks]==2.9.2", "mlflow[databricks,extras]==2.9.2"),
        ("tomli==2.0 ; python_version<'3.11'", 'tomli==2.0; python_version < "3.11"'),
        ("﻿numpy", "numpy"),
        ("torch==2.1.0+cpu", "torch==2.1.0+cpu"),
        ("numpy\\\n  ==1.26.4", "numpy==1.26.4"),
        (
            "tiny @ https://example.org/tiny-1.0-py3-none-any.whl",
            "tiny @ https://example.org/tiny-1.0-py3-none-any.whl",
        ),
        ("git+https://example.org/tiny.git@v1#egg=tiny", "git+https://example.org/tiny.git@v1#egg=tiny"),
    ],
)
def test_a_line_has_one_normal_form(tmp_path: Path, line: str, normal: str) -> None:
    assert [each.text for each in read(tmp_path, line).requirements] == [normal]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "   # indented", "#\\\n"])
def test_nothing_is_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == RequirementFile()


@pytest.mark.parametrize("include", ["-r more.txt", "-rmore.txt", "--requirement more.txt", "--requirement=more.txt"])
def test_includes_are_followed(tmp_path: Path, include: str) -> None:
    file = read(tmp_path, f"tiny\n{include}\n", more="numpy==1.26.4\n-r requirements.txt\n")
    assert [line.name for line in file.requirements] == ["tiny", "numpy"]


@pytest.mark.parametrize("include", ["-c limits.txt", "--constraint limits.txt", "--constraint=limits.txt"])
def test_constraints_and_what_they_include_stay_constraints(tmp_path: Path, include: str) -> None:
    file = read(tmp_path, f"tiny\n{include}\n", limits="numpy<2\n-r more.txt\n", more="pandas<2\n")
    assert [line.text for line in file.requirements] == ["tiny"]
    assert [line.text for line in file.constraints] == ["numpy<2", "pandas<2"]


def test_hashes_belong_to_the_requirement(tmp_path: Path) -> None:
    file = read(tmp_path, "tiny==1.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:aa\n")
    (line,) = file.requirements
    assert line.hashed
    assert line.text == "tiny==1.0 --hash=sha256:aa --hash=sha256:bb"
    assert line.install == "tiny==1.0 --hash=sha256:bb --hash=sha256:aa"


def test_options_go_where_uv_reads_them(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        "--extra-index-url https://example.org/simple\n-i https://example.org\n--find-links wheels\n--pre\n"
        "--trusted-host example.org\n--prefer-binary\n--no-index\n--config-settings x=y\ntiny --global-option=build\n",
    )
    assert file.options == [
        "--extra-index-url https://example.org/simple",
        "-i https://example.org",
        f"--find-links {tmp_path / 'wheels'}",
        "--no-index",
    ]
    assert file.flags == ["--prerelease", "allow", "--allow-insecure-host", "example.org"]
    assert len(file.not_covered) == 2
    assert "line 8: the option --config-settings is not honoured" in file.not_covered[0]
    assert "line 9: --global-option=build is not honoured" in file.not_covered[1]


def test_a_local_wheel_is_found_beside_the_file_and_known_by_its_content(tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"first")
    (first,) = read(tmp_path, "wheels/tiny-1.0-py3-none-any.whl").requirements
    assert first.install == str(wheel)
    assert str(tmp_path) not in first.text
    wheel.write_bytes(b"second")
    (second,) = read(tmp_path, "wheels/tiny-1.0-py3-none-any.whl").requirements
    assert first.text != second.text


@pytest.mark.parametrize(
    "line", ["tiny==", "wheels/missing-1.0-py3-none-any.whl", "a b c", "missing-1.0.tar.gz", "../nowhere"]
)
def test_what_cannot_be_understood_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(LoadError, match=r"requirements.txt, line 2: .*no requirement that can be understood"):
        read(tmp_path, f"numpy\n{line}\n")


def test_a_missing_include_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"cannot read the model's requirements in .*more.txt"):
        read(tmp_path, "-r more.txt")
