"""What a model's requirements can read of the gateway's environment: what an operator has named, and nothing else."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelhub.serving.gateway.cli.main import main
from modelhub.serving.gateway.environments.environments import Environments
from modelhub.serving.gateway.environments.variables import expanded, granted
from modelhub.serving.protocol.errors import LoadError
from support.env_parts import make_model, make_wheelhouse, offline

SECRET = "s3cr3t-of-the-gateway"
ENVIRON = {"TOKEN": "t0ken", "OTHER": "other", "EMPTY": ""}

#: A package whose build backend keeps the environment that it is run in.
BACKEND = """
import json, os, pathlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    pathlib.Path({seen!r}).write_text(json.dumps(dict(os.environ)))
    name = "nosy-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("nosy.py", "")
        wheel.writestr("nosy-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: nosy\\nVersion: 1\\n")
        wheel.writestr("nosy-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("nosy-1.dist-info/RECORD", "")
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "nosy"
version = "1"
"""


class Index:
    """A package index that has nothing; keeps the paths that it was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: list[str] = []


@pytest.fixture
def index() -> Iterator[Index]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.paths.append(self.path)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Index(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_wheelhouse(tmp_path / "wheels")
    for name, value in {**offline(folder, tmp_path / "cache"), "MLFLOW_TRACKING_PASSWORD": SECRET}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("UV_INDEX_CORP_PASSWORD", SECRET)
    return folder


Make = Callable[..., Environments]


@pytest.fixture
def make(tmp_path: Path, wheels: Path) -> Make:
    return lambda **more: Environments(tmp_path / "state", report=print, **more)


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "UV_INDEX_CORP_PASSWORD", "HOME", "NOT_SET"])
@pytest.mark.parametrize(
    "line",
    [
        "--extra-index-url {url}/${{{name}}}/simple",
        "--index-url {url}/${{{name}}}/simple",
        "--find-links {url}/${{{name}}}/",
        "tiny @ {url}/${{{name}}}/tiny-1.0.0-py3-none-any.whl",
        "-e git+{url}/${{{name}}}/repository#egg=tiny",
        "-c constraints.txt",
    ],
)
async def test_a_variable_that_nobody_has_named_is_refused_and_nothing_is_sent(
    make: Make, index: Index, tmp_path: Path, line: str, name: str
) -> None:
    line = line.format(url=index.url, name=name)
    constraints = f"tiny @ {index.url}/${{{name}}}/tiny-1.0.0-py3-none-any.whl\n"
    model = make_model(tmp_path / "m", f"mlflow==9.0\ntiny\n{line}\n", constraints_txt=constraints)
    environments = make()
    with pytest.raises(LoadError) as refused:
        await environments.ensure(model, "isolated", ["ANOTHER"])
    await environments.close()
    assert f"${{{name}}}" in refused.value.message
    assert "server.environments.variables" in refused.value.message
    assert SECRET not in refused.value.message
    assert index.paths == []


@pytest.mark.parametrize("by", ["the entry", "the server"])
async def test_a_variable_that_is_named_is_put_in_its_place_and_masked(
    make: Make, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("INDEX_PART", "the-part-of-it")  # by its name no secret
    model = make_model(tmp_path / "m", f"mlflow==9.0\nabsent-of-ours\n--index-url {index.url}/${{INDEX_PART}}/simple\n")
    names = ["INDEX_PART"]
    environments = make(variables=names) if by == "the server" else make()
    with pytest.raises(LoadError, match="absent") as failed:
        await environments.ensure(model, "isolated", names if by == "the entry" else ())
    await environments.close()
    assert "/the-part-of-it/simple/absent-of-ours/" in index.paths
    assert "the-part-of-it" not in failed.value.message


async def test_what_builds_a_package_sees_none_of_them(
    make: Make, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEX_TOKEN", SECRET)
    seen, source = tmp_path / "seen.json", tmp_path / "nosy-1"
    source.mkdir()
    (source / "backend.py").write_text(BACKEND.format(seen=str(seen)))
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: nosy\nVersion: 1\n")
    with tarfile.open(wheels / "nosy-1.tar.gz", "w:gz") as archive:
        archive.add(source, "nosy-1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    requirements = f"mlflow==9.0\nnosy==1\n--find-links {wheels}/${{INDEX_TOKEN}}/..\n"
    model = make_model(tmp_path / "m", requirements)
    monkeypatch.delenv("UV_INDEX_CORP_PASSWORD")  # uv's own settings are uv's, whatever it runs
    environments = make()
    await environments.ensure(model, "isolated", ["INDEX_TOKEN"])
    await environments.close()
    assert SECRET not in seen.read_text()
    assert not {"INDEX_TOKEN", "MLFLOW_TRACKING_PASSWORD"} & json.loads(seen.read_text()).keys()


@pytest.mark.parametrize("named", [False, True])
def test_the_command_that_builds_environments_has_the_same_rules(
    wheels: Path, index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    line = f"--index-url {index.url}/${{MLFLOW_TRACKING_PASSWORD}}/simple"
    model = make_model(tmp_path / "m", f"mlflow==9.0\nabsent-of-ours\n{line}\n")
    entry: dict[str, Any] = {"name": "m", "uri": str(model), "environment": "isolated"}
    if named:
        entry["env"] = ["MLFLOW_TRACKING_PASSWORD"]
    config = {"server": {"state_dir": str(tmp_path / "state")}, "models": [entry]}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(config))
    assert main(["env", "build", str(tmp_path / "models.yaml")]) == 1
    assert bool(index.paths) is named
    said = capsys.readouterr()
    assert ("may not read" in said.out + said.err) is not named
    assert SECRET not in said.out + said.err


def test_lines_and_their_values() -> None:
    lines = ["a ${TOKEN}", "b", r"c \${TOKEN}", "d $TOKEN ${lower} ${PROJECT_ROOT}"]
    assert granted(lines, ["TOKEN", "UNUSED"], ENVIRON) == {"TOKEN": "t0ken"}
    assert expanded(lines, {"TOKEN": "t0ken"}) == ["a t0ken", *lines[1:]]
    with pytest.raises(LoadError, match="is not set"):
        granted(["${EMPTY}"], ["EMPTY"], ENVIRON)
    with pytest.raises(LoadError, match=r"\$\{OTHER\}, \$\{TOKEN\}, which they may not read"):
        granted(["${TOKEN} ${OTHER}"], [], ENVIRON)
    with pytest.raises(LoadError, match=r"\$\{TOKEN\}, which they may not read"):
        granted([r"\${TOKEN}"], [], ENVIRON)
    with pytest.raises(LoadError, match="put together"):
        expanded(["${T${TOKEN}}"], {"TOKEN": "OKEN"})
