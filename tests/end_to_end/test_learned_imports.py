"""What a model's first load imports of its environment, the fork server imports for the next: through the gateway."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.environments import make_environment
from support.gateway_process import Gateway
from support.group_configs import one

Start = Callable[..., Gateway]

#: `slow` is imported by a model as it is loaded, `later` by its first prediction; both say where.
PACKAGES = {
    "slow/__init__.py": "import os, slow.part\nPID = os.getpid()\n",
    "slow/part.py": "TABLE = {number: str(number) for number in range(200_000)}\n",
    "later.py": "import os\nPID = os.getpid()\n",
    "setting.py": "import os\nPID = os.getpid()\nMODE = os.environ.get('MODE', 'none')\n",
    "helper.py": "import os\nPID = os.getpid()\nOWN = 'of the environment'\n",
}
MODEL = """
import os, sys
import mlflow
import slow{imports}

class Own(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        import later
        here = {{os.getpid(): "worker", os.getppid(): "fork server"}}
        modules = {{name: here.get(sys.modules[name].PID) for name in {names} if name in sys.modules}}
        return [repr(dict(modules, {facts}))]

mlflow.models.set_model(Own())
"""
SAVE = """
import sys, mlflow, numpy as np
mlflow.pyfunc.save_model(
    sys.argv[2], python_model=sys.argv[1], code_paths=sys.argv[3:] or None, pip_requirements=["mlflow"],
    input_example=np.ones((1, 1), np.float32),
)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("slow") / "environment", PACKAGES)


def save(environment: Path, folder: Path, *imports: str, facts: str = "", code: Path | None = None) -> str:
    """A model that imports these and answers with `facts` beside; `code`: a folder of packages that it brings along."""
    names = ["slow", "later", *imports]
    source = MODEL.format(imports="".join(f", {name}" for name in imports), names=names, facts=facts)
    folder.with_suffix(".py").write_text(source)
    paths = os.pathsep.join(str(path) for path in (code, folder.parent / "folder") if path is not None)
    command = [str(environment / "bin" / "python"), "-W", "ignore", "-c", SAVE, str(folder.with_suffix(".py"))]
    command += [str(folder), *map(str, code.iterdir() if code is not None else ())]
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=env)
    assert done.returncode == 0, done.stderr
    return str(folder)


def group(environment: Path, *entries: dict[str, Any], load: str = "lazy", **server: Any) -> dict[str, Any]:
    return {
        "server": server,
        "defaults": {"environment": str(environment)},
        "groups": [{"name": "all", "load": load, "models": list(entries)}],
    }


def ask(running: Gateway, name: str) -> dict[str, str]:
    """What the model says of where its modules were imported."""
    answer = running.infer(name, one(1))
    assert answer.status == 200, answer.body
    found: dict[str, str] = ast.literal_eval(answer.json()["outputs"][0]["data"][0])
    return found


def unload(running: Gateway, name: str) -> None:
    assert running.post(f"/v2/repository/models/{name}/unload").status == 200


def load(running: Gateway, name: str) -> None:
    answer = running.post(f"/v2/repository/models/{name}/load")
    assert answer.status == 200, answer.body


WORKER = {"slow": "worker", "later": "worker"}
LEARNED = {"slow": "fork server", "later": "fork server"}


def test_the_second_load_finds_imported_what_the_first_has_imported(
    gateway: Start, environment: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    (code / "own_code").mkdir(parents=True)
    (code / "own_code" / "__init__.py").write_text("import os\nPID = os.getpid()\n")
    own = tmp_path / "folder"
    own.mkdir()
    (own / "own_module.py").write_text("import os\nPID = os.getpid()\n")
    entries = [
        {"name": "first", "uri": save(environment, tmp_path / "first")},
        {
            "name": "second",
            "uri": save(environment, tmp_path / "second", "own_code", "own_module", code=code),
            "pythonpath": [str(own)],
        },
    ]
    running = gateway(group(environment, *entries))
    assert ask(running, "first") == WORKER
    running.wait_log("has a new fork server")
    assert ask(running, "first") == WORKER  # its worker stays, and its fork server with it
    second = {**LEARNED, "own_code": "worker", "own_module": "worker"}
    assert ask(running, "second") == second, "a model's own code is never imported ahead"
    unload(running, "first")
    load(running, "first")
    assert ask(running, "first") == LEARNED
    unload(running, "second")
    load(running, "second")
    assert ask(running, "second") == second
    running.stop()
    assert "fresh interpreter" not in running.log()
    # known from then on, to the first load of another gateway, and for models that are loaded at start
    server = {"state_dir": str(running.state_dir)}
    again = gateway(group(environment, *entries, load="eager", **server))
    again.wait_ready()
    assert ask(again, "first") == LEARNED
    again.stop()
    known = gateway(group(environment, *entries, environments={"preload": "known"}, **server))
    assert ask(known, "first") == WORKER


def test_a_model_whose_own_module_has_the_name_of_a_package_gets_its_own(
    gateway: Start, environment: Path, tmp_path: Path
) -> None:
    own = tmp_path / "folder"
    own.mkdir()
    (own / "helper.py").write_text("import os\nPID = os.getpid()\nOWN = 'its own'\n")
    facts = "own=sys.modules['helper'].OWN"
    entries = [
        {"name": "installed", "uri": save(environment, tmp_path / "first", "helper", facts=facts)},
        {
            "name": "its_own",
            "uri": save(environment, tmp_path / "second", "helper", facts=facts),
            "pythonpath": [str(own)],
        },
    ]
    running = gateway(group(environment, *entries))
    assert ask(running, "installed")["own"] == "of the environment"
    running.wait_log("has a new fork server")
    answer = ask(running, "its_own")
    assert (answer["own"], answer["helper"], answer["slow"]) == ("its own", "worker", "worker")
    assert "its own module helper has the name of one that the fork server has imported" in running.log()
    learned = running.state_dir / "learned"
    # that name is left to the workers, and the next one is forked again
    running.wait_log("2 modules")
    unload(running, "its_own")
    load(running, "its_own")
    assert ask(running, "its_own") == {**LEARNED, "helper": "worker", "own": "its own"}
    assert ask(running, "installed")["own"] == "of the environment"
    running.stop()
    (file,) = learned.glob("*.json")
    assert list(json.loads(file.read_text())["refused"]) == ["helper"]


def test_what_a_package_reads_of_the_variables_when_it_is_imported_it_reads_of_the_models_own(
    gateway: Start, environment: Path, tmp_path: Path
) -> None:
    facts = "mode=sys.modules['setting'].MODE"
    entries = [
        {"name": "plain", "uri": save(environment, tmp_path / "first", "setting", facts=facts)},
        {"name": "own", "uri": save(environment, tmp_path / "second", "setting", facts=facts), "env": ["MODE"]},
        {"name": "other", "uri": save(environment, tmp_path / "third"), "env": ["OTHER"]},
    ]
    running = gateway(group(environment, *entries), env={"MODE": "fast", "OTHER": "1"})
    assert ask(running, "plain")["mode"] == "none"
    running.wait_log("has a new fork server")
    assert ask(running, "other") == LEARNED, "its own variable is none that an import reads"
    assert ask(running, "own")["mode"] == "fast"
    assert "the import of setting reads variables, and this model has its own" in running.log()
    running.wait_log("2 modules")
    unload(running, "own")
    load(running, "own")
    assert ask(running, "own") == {**LEARNED, "setting": "worker", "mode": "fast"}
