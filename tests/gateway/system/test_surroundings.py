"""A user without home and name, a home that cannot be written to, a certification authority that is named once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from modelhub.serving.gateway.system.surroundings import AUTHORITIES, settle
from modelhub.serving.protocol.errors import ConfigError
from modelhub.serving.protocol.model_cache import default_state_dir, make_state_dir
from support.code_models import save_code_model
from support.env_parts import index, make_model, make_wheelhouse, offline
from support.gateway_process import MODELHUB, Gateway
from support.private_ca import PrivateCa
from support.processes import guarded
from support.slow_source import SlowSource

#: An id that no user has, without a home: as OpenShift starts containers.
NOBODY = ["unshare", "--user", "--map-user=12345", "--map-group=0", "--"]
NO_HOME = ["env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", "-u", "XDG_CACHE_HOME", "-u", "UV_CACHE_DIR"]
HOMELY = """
import getpass
import os
import pathlib
import mlflow


class Own(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        cache = pathlib.Path.home() / ".cache" / "own"
        cache.mkdir(parents=True)
        (cache / "file").write_text(getpass.getuser())

    def predict(self, context, model_input, params=None):
        return [f"{os.getuid()} {getpass.getuser()} {os.path.expanduser('~')}"]
"""

as_nobody = pytest.mark.skipif(
    subprocess.run([*NOBODY, "true"], capture_output=True, check=False).returncode != 0,
    reason="no user namespaces here",
)


def homeless(command: Sequence[str]) -> list[str]:
    return guarded([*NO_HOME, *NOBODY, *command])


@as_nobody
def test_models_of_a_user_without_home_and_name_have_both(gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    model = save_code_model(tmp_path / "homely", HOMELY)
    entry = {"name": "homely", "uri": str(model), "environment": "shared"}
    running = gateway({"models": [entry]}, wrap=homeless)
    running.wait_ready()
    home = running.state_dir / "home"
    answer = running.post("/models/homely/invocations", {"inputs": ["x"]})
    assert f"12345 modelhub {home}" in answer.body.decode()
    assert (home / ".cache/own/file").read_text() == "modelhub"
    assert home.stat().st_mode & 0o777 == 0o700
    assert "this user (id 12345) has no home" in running.log()


@as_nobody
def test_environments_are_built_for_a_user_without_home_and_name(tmp_path: Path) -> None:
    model, wheels = make_model(tmp_path / "m", "mlflow==9.0\n"), make_wheelhouse(tmp_path / "wheels")
    environ = {name: value for name, value in offline(wheels, tmp_path).items() if name != "UV_CACHE_DIR"}
    built = subprocess.run(
        homeless([str(MODELHUB), "env", "build", str(model), "--state-dir", str(tmp_path / "state")]),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "state/home/.cache/uv").is_dir()


@as_nobody
def test_commands_of_a_user_without_home_and_name_find_the_same_state_directory(tmp_path: Path) -> None:
    code = "import os; from modelhub.serving.protocol.model_cache import default_state_dir as d; print(d(os.environ))"
    said = subprocess.run(
        homeless([sys.executable, "-c", code]),
        env={"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == f"{tmp_path}/modelhub-12345"
    status = subprocess.run(
        homeless([str(MODELHUB), "status"]), env={"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert f"{tmp_path}/modelhub-12345/gateways" in status.stderr


def test_a_home_is_left_as_it_is(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "not/yet/made"), "USER": "somebody"}
    before = dict(environ)
    assert settle(environ, str(tmp_path / "state")) == []
    assert environ == before
    assert default_state_dir(environ) == f"{tmp_path}/not/yet/made/.cache/modelhub"


@pytest.mark.parametrize("home", ["/nowhere/at/all", "/proc/nobody"])
def test_a_home_that_nobody_can_make_is_replaced(tmp_path: Path, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).startswith(("/proc", "/nowhere")) and path != "/"
    )
    environ = {"HOME": home, "USER": "nobody", "TMPDIR": str(tmp_path)}
    assert default_state_dir(environ) == f"{tmp_path}/modelhub-{os.getuid()}"
    (line,) = settle(environ, str(tmp_path / "state"))
    assert "has no home" in line
    assert environ["HOME"] == str(tmp_path / "state/home")


def test_caches_leave_a_home_that_can_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(home)))
    environ = {"HOME": str(home), "USER": "somebody"}
    (line,) = settle(environ, str(tmp_path / "state"))
    assert environ["HOME"] == str(home)
    assert environ["XDG_CACHE_HOME"] == str(tmp_path / "state/cache")
    assert "nothing can be written" in line


def test_a_folder_that_somebody_else_made_in_a_folder_of_everybody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybodys = tmp_path / "tmp"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    make_state_dir(str(everybodys / "modelhub-1"))
    make_state_dir(str(everybodys / "modelhub-1"))
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(ConfigError, match="somebody else's"):
        make_state_dir(str(everybodys / "modelhub-1"))
    make_state_dir(str(tmp_path / "of-our-own"))


# ---- certification authorities -------------------------------------------------------------------


@pytest.mark.parametrize("named", ["", "SSL_CERT_FILE", "PIP_CERT"])
def test_one_authority_is_known_to_who_fetches_models_and_to_who_builds(named: str, tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    wheels = [(path, "2024-01-01T00:00:00Z") for path in make_wheelhouse(tmp_path / "wheels").iterdir()]
    model = make_model(tmp_path / "m", "mlflow==9.0\ntiny\n")
    environ = {name: value for name, value in offline(tmp_path, tmp_path / "cache").items() if name[:4] != "PIP_"}
    if named:
        environ[named] = str(ca.file)
    with index(wheels, password="", tls=ca.server) as packages, SlowSource(model, ca.server) as source:
        built = subprocess.run(
            [str(MODELHUB), "env", "build", source.uri, "--state-dir", str(tmp_path / "state")],
            env={**environ, "UV_DEFAULT_INDEX": f"https://{packages}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (built.returncode == 0) == bool(named), built.stdout + built.stderr


@pytest.mark.parametrize("named", AUTHORITIES)
def test_one_authority_is_everybodys(named: str, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "USER": "x", named: "/etc/corp.pem"}
    (line,) = settle(environ, str(tmp_path / "state"))
    assert {environ[name] for name in AUTHORITIES} == {"/etc/corp.pem"}
    assert line.endswith(f"/etc/corp.pem, as in {named}")


def test_what_was_set_is_never_overwritten(tmp_path: Path) -> None:
    given = {"HOME": str(tmp_path), "USER": "x", "REQUESTS_CA_BUNDLE": "/requests.pem", "SSL_CERT_FILE": "/all.pem"}
    environ = dict(given)
    settle(environ, str(tmp_path / "state"))
    assert environ == {**given, "CURL_CA_BUNDLE": "/all.pem", "PIP_CERT": "/all.pem"}


def test_a_folder_of_authorities_is_no_file(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "USER": "x", "REQUESTS_CA_BUNDLE": str(tmp_path)}
    settle(environ, str(tmp_path / "state"))
    assert "SSL_CERT_FILE" not in environ
    assert environ["SSL_CERT_DIR"] == environ["PIP_CERT"] == str(tmp_path)
