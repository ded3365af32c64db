"""The command as a user runs it: real processes, exit codes, no traceback."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from modelhub.serving.gateway.cli.main import main, split_settings
from modelhub.serving.protocol.errors import ConfigError

COMMAND = Path(sys.executable).with_name("modelhub")


def modelhub(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODELHUB_", "MODEL_", "PORT"))}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env={**kept, **environ}, timeout=60)


def test_check_of_a_broken_file_is_exit_code_2_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - {name: iris, uri: runs:/x/model, replica: 2}\n")
    done = modelhub("check", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"{path}:2: models[0].replica: unknown key; did you mean replicas?\n"


def test_a_state_folder_that_cannot_be_written_is_exit_code_2_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(f"models:\n  - {{name: iris, uri: {tmp_path}}}\n")
    done = modelhub("serve", str(path), "--server.host=127.0.0.1", "--server.port=0", f"--server.state_dir={path}/in")
    assert done.returncode == 2
    assert f"nothing can be written to server.state_dir, {path}/in: " in done.stderr
    assert "--server.state_dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - {name: iris, uri: runs:/x/model}\ngroups: [{name: g}]\n")
    done = modelhub("check", str(path), "--server.port", "9", MODEL_URI="runs:/y/model")
    assert (done.returncode, done.stdout) == (0, f"{path}: valid, 1 model, 1 group\n")
    assert done.stderr == f"warning: MODEL_URI ignored: the models come from {path}\n"


def test_check_resolves_every_uri(tmp_path: Path) -> None:
    for name in ("iris", "digits"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "MLmodel").write_text("flavors: {}\n")
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  - {name: iris, uri: ./iris}\n  - {name: other, uri: ./digits}\n")
    done = modelhub("check", str(path), "--resolve")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split()[:3] for line in done.stdout.splitlines()[1:]]
    assert rows == [
        ["model", "version", "uri"],
        ["iris", "-", f"{tmp_path}/iris"],
        ["other", "-", f"{tmp_path}/digits"],
    ]
    (tmp_path / "digits" / "MLmodel").unlink()
    done = modelhub("check", str(path))
    assert done.returncode == 2
    assert done.stderr == f"{path}:3: models[1].uri: {tmp_path}/digits has no MLmodel file\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["check", "absent.yaml"], "absent.yaml: no such file"),
        (["serve", "absent.yaml"], "absent.yaml: no such file"),
        (["serve"], "nothing to serve"),
        (["serve", "runs:/x/model", "--server.prot=1"], "--server.prot: unknown flag; did you mean server.port?"),
        (["serve", "--server.port"], "--server.port: needs a value"),
        (["serve", "--sever.port=1"], "unrecognized arguments: --sever.port=1\n"),
        (["serve", "--grpc-port", "1", "models.yaml"], "did you mean --server.grpc_port?"),
        (["frobnicate"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_mistakes_of_the_user_are_exit_code_2(arguments: list[str], text: str) -> None:
    done = modelhub(*arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = modelhub("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    for command in ("serve", "check", "schema", "status", "env"):
        assert command in done.stdout
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.3
    code = "import sys; import modelhub.serving.gateway.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "yaml", "aiohttp", "rich", "mlflow", "numpy", "pandas", "zmq"} & set(loaded)


def test_schema_is_json_and_a_closed_pipe_is_no_traceback() -> None:
    schema = json.loads(modelhub("schema").stdout)
    assert schema["title"] == "ModelHub Serving configuration"
    pipeline = ["sh", "-c", '"$0" schema | head -c 1', COMMAND]
    done = subprocess.run(pipeline, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{", "")


def test_version() -> None:
    assert modelhub("--version").stdout.startswith("modelhub-serving ")


def test_settings_are_taken_out_of_the_arguments() -> None:
    rest, flags = split_settings(["serve", "--server.port", "1", "a.yaml", "--defaults.timeout=5s", "--server.port=2"])
    assert rest == ["serve", "a.yaml"]
    assert flags == {"server.port": "2", "defaults.timeout": "5s"}
    assert split_settings(["serve", "--", "--server.port"]) == (["serve", "--", "--server.port"], {})
    with pytest.raises(ConfigError, match=r"--server\.host: needs a value"):
        split_settings(["--server.host", "--server.port=1"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelhub.serving.config.load.load", interrupted)
    assert main(["check", "models.yaml"]) == 130
    assert capsys.readouterr().err == ""
