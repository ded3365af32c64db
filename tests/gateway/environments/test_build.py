"""Environments built by real uv from small wheels: once, whole or not at all, with uv's words when it fails."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelhub.serving.gateway.environments.environments import Environment, Environments
from modelhub.serving.gateway.environments.uv import Uv
from modelhub.serving.protocol.errors import LoadError
from support.env_parts import index, make_model, make_uv, make_wheel, make_wheelhouse, offline
from support.processes import guarded

BUILDER = """
import asyncio, os, sys
from pathlib import Path
from modelhub.serving.gateway.environments.uv import Uv
from modelhub.serving.gateway.environments.environments import Environments

async def main(state, model, uv):
    environments = Environments(Path(state), report=print, uv=Uv(Path(uv)))
    print("DONE", (await environments.ensure(Path(model), "isolated")).key)
    await environments.close()

asyncio.run(main(*sys.argv[1:]))
"""
COUNTING = 'printf "%s " "$@" >> "$(dirname "$0")/calls"; echo >> "$(dirname "$0")/calls"; exec "$UV" "$@"'
Make = Callable[..., Environments]


@pytest.fixture
def index_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv sees the wheels made for these tests, and nothing else."""
    for name, value in offline(make_wheelhouse(tmp_path / "wheels"), tmp_path / "cache").items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make(tmp_path: Path, index_settings: None) -> Make:
    def environments(uv: Uv | None = None, report: Callable[[str], None] = print, **more: object) -> Environments:
        return Environments(tmp_path / "state", report=report, uv=uv or Uv(), **more)  # type: ignore[arg-type]

    return environments


def run_in(environment: Environment, code: str) -> str:
    """As a worker is started: with the kit last on the path."""
    code = f"import sys; sys.path.append({str(environment.kit)!r}); {code}"
    return subprocess.check_output([str(environment.python), "-c", code], text=True, stdin=subprocess.DEVNULL).strip()


def left_in(state: Path) -> list[str]:
    """What lies in the cache: finished keys and leftovers."""
    root = state / "environments"
    return sorted(path.name for path in root.iterdir() if path.name != ".locks") if root.exists() else []


def calls(folder: Path, word: str) -> int:
    return sum(word in line.split() for line in (folder / "calls").read_text().splitlines())


async def test_a_built_environment_has_what_was_asked_for_and_a_kit_beside_it(make: Make, tmp_path: Path) -> None:
    lines: list[str] = []
    environments = make(report=lines.append)
    model = make_model(tmp_path / "m", "mlflow==9.0\ntiny==1.0.0\n-c constraints.txt", constraints_txt="msgpack<1")
    environment = await environments.ensure(model, "auto")
    code = "import mlflow, tiny, msgpack; print(mlflow.__version__, tiny.VERSION)"
    assert await asyncio.to_thread(run_in, environment, code) == "9.0 1.0.0"
    assert environment.label.endswith(environment.key[:8])
    assert any("instead of the shared one: mlflow==9.0, here" in line for line in lines)
    assert await make().ensure(model, "isolated") == environment
    assert left_in(tmp_path / "state") == [environment.key]
    await environments.close()


async def test_the_shared_environment_is_used_when_it_meets_everything(make: Make, tmp_path: Path) -> None:
    environments = make(make_uv(tmp_path / "uv", "exit 9"))
    model = make_model(tmp_path / "m", "packaging\npyyaml\n")
    environment = await environments.ensure(model, "auto")
    assert (environment.key, environment.python, environment.kit) == ("shared", Path(sys.executable), None)
    assert (await environments.ensure(tmp_path / "no-model", "auto")).key == "shared"
    assert (await environments.ensure(make_model(tmp_path / "n", "nowhere==1"), "shared")).key == "shared"


async def test_ten_models_of_one_environment_are_one_build_that_outlives_its_first_caller(
    make: Make, tmp_path: Path
) -> None:
    environments = make(make_uv(tmp_path / "uv", COUNTING))
    models = [make_model(tmp_path / f"m{number}") for number in range(10)]
    tasks = [asyncio.create_task(environments.ensure(model, "isolated")) for model in models]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert len({result.key for result in done[1:] if isinstance(result, Environment)}) == 1
    assert (calls(tmp_path, "venv"), calls(tmp_path, "--target")) == (1, 1)
    await environments.close()


async def test_two_gateways_build_one_key_once(index_settings: None, tmp_path: Path) -> None:
    make_uv(tmp_path / "uv", COUNTING)
    model = make_model(tmp_path / "m")
    command = guarded([sys.executable, "-c", BUILDER, str(tmp_path / "state"), str(model), str(tmp_path / "uv")])
    builders = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) for _ in "ab"
    ]
    said = [(await builder.communicate())[0].decode() for builder in builders]
    assert [text.splitlines()[-1].split()[0] for text in said] == ["DONE", "DONE"], said
    assert calls(tmp_path, "venv") == 1
    assert len(left_in(tmp_path / "state")) == 1


def test_a_killed_build_leaves_nothing_that_is_used_and_the_next_builder_cleans_up(
    index_settings: None, make: Make, tmp_path: Path
) -> None:
    """SIGKILL while uv installs: it dies with its builder, the lock is free, nothing half is taken for whole."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    half = 'for last; do :; done; case "$*" in *"pip install --python"*) touch "$(dirname "$last")/half"; exec cat'
    make_uv(tmp_path / "uv", f'{half} "{fifo}";; esac; exec "$UV" "$@"')
    model = make_model(tmp_path / "m")
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "state"), str(model), str(tmp_path / "uv")]
    builder = subprocess.Popen(guarded(command), stdin=subprocess.DEVNULL)
    writer = os.open(fifo, os.O_WRONLY)  # returns when uv's stand-in has begun to read
    (leftover,) = left_in(tmp_path / "state")
    assert leftover.startswith(".build~")
    builder.send_signal(signal.SIGKILL)
    builder.wait(10)
    poll = select.poll()
    poll.register(writer, 0)
    assert poll.poll(10_000), "uv's stand-in outlived its builder"
    os.close(writer)

    environment = asyncio.run(make().ensure(model, "isolated"))
    assert run_in(environment, "import mlflow; print('works')") == "works"
    assert left_in(tmp_path / "state") == [environment.key]


async def test_a_full_disk_fails_with_uvs_words_and_leaves_no_trace(make: Make, tmp_path: Path) -> None:
    full = 'echo "error: failed to write: No space left on device (os error 28)" >&2; exit 2'
    broken = make_uv(tmp_path / "uv", f'case "$*" in *"pip install"*) {full};; esac; exec "$UV" "$@"')
    model = make_model(tmp_path / "m")
    with pytest.raises(LoadError, match=r"(?s)exit code 2:.*No space left on device \(os error 28\)"):
        await make(broken).ensure(model, "isolated")
    assert left_in(tmp_path / "state") == []
    environments = make()
    await environments.ensure(model, "isolated")
    await environments.close()


async def test_a_killed_uv_is_said_to_be_one(make: Make, tmp_path: Path) -> None:
    killed = make_uv(tmp_path / "uv", 'case "$*" in *"pip install"*) kill -9 $$;; esac; exec "$UV" "$@"')
    with pytest.raises(LoadError, match="killed by signal 9, perhaps out of memory"):
        await make(killed).ensure(make_model(tmp_path / "m"), "isolated")
    assert left_in(tmp_path / "state") == []


async def test_closing_stops_a_build_and_leaves_no_trace(make: Make, tmp_path: Path) -> None:
    started = asyncio.Event()
    hanging = make_uv(tmp_path / "uv", 'case "$*" in *"pip install"*) echo hangs; sleep 600;; esac; exec "$UV" "$@"')
    uv = Uv(hanging.binary, tail=lambda line: started.set() if line == "hangs" else None)
    environments = make(uv)
    ensuring = asyncio.create_task(environments.ensure(make_model(tmp_path / "m"), "isolated"))
    await started.wait()
    await environments.close()
    with pytest.raises(asyncio.CancelledError):
        await ensuring
    assert left_in(tmp_path / "state") == []


async def test_unsolvable_requirements_show_uvs_explanation(make: Make, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"(?s)could not be built.*tiny==7.*no version of tiny==7"):
        await make().ensure(make_model(tmp_path / "m", "mlflow==9.0\ntiny==7\n"), "isolated")
    assert left_in(tmp_path / "state") == []


async def test_never_names_the_command_and_serves_what_is_built(make: Make, tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    with pytest.raises(LoadError, match=rf"modelhub env build FILE --state-dir {tmp_path / 'state'}"):
        await make(build="never").ensure(model, "isolated")
    assert left_in(tmp_path / "state") == []
    environments = make()
    built = await environments.ensure(model, "isolated")
    assert await make(build="never").ensure(model, "isolated") == built
    await environments.close()


async def test_an_environment_whose_python_is_gone_is_built_anew(make: Make, tmp_path: Path) -> None:
    environments = make()
    model = make_model(tmp_path / "m")
    built = await environments.ensure(model, "isolated")
    built.python.unlink()
    built.python.symlink_to(tmp_path / "gone")
    assert await environments.ensure(model, "isolated") == built
    assert await asyncio.to_thread(run_in, built, "import mlflow; print('works')") == "works"
    assert left_in(tmp_path / "state") == [built.key]
    await environments.close()


async def test_no_mlflow_among_the_requirements_is_an_error_that_says_which_to_add(make: Make, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"do not name mlflow.*`mlflow==9.0`"):
        await make().ensure(make_model(tmp_path / "m", "tiny==1.0.0"), "isolated")


@pytest.mark.parametrize("python", ["3.7", "3.6", "2.7"])
async def test_a_python_that_workers_cannot_run_on_is_said_before_anything_is_built(
    make: Make, tmp_path: Path, python: str
) -> None:
    environments = make(make_uv(tmp_path / "uv", COUNTING))
    for choice in ("auto", "isolated"):
        model = make_model(tmp_path / choice, python=python)
        with pytest.raises(LoadError, match=rf"^the model is of Python {python}, .* on Python 3\.8 or newer"):
            await environments.ensure(model, choice)
    assert not (tmp_path / "calls").exists()


async def test_isolated_needs_requirements(make: Make, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="names no requirements"):
        await make().ensure(make_model(tmp_path / "m", ""), "isolated")


# ---- rescue ----------------------------------------------------------------------------------------


async def test_old_setuptools_are_added_where_the_import_needs_them(make: Make, tmp_path: Path) -> None:
    lines: list[str] = []
    environments = make(report=lines.append)
    environment = await environments.ensure(make_model(tmp_path / "m", "mlflow==8.0"), "isolated")
    assert any("No module named 'pkg_resources'); trying with setuptools<81" in line for line in lines)
    assert any(line.endswith("it imports with setuptools<81") for line in lines)
    facts = json.loads((environment.python.parents[1] / ".complete").read_text())
    assert (facts["rescue"], facts["mlflow"]) == ("setuptools<81", "")
    await environments.close()


async def test_an_import_that_nothing_mends_says_the_first_reason(make: Make, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"does not import: .*No module named 'of_the_past'.*setuptools<81, then with"):
        await make().ensure(make_model(tmp_path / "m", "mlflow==7.0"), "isolated")
    assert left_in(tmp_path / "state") == []


async def test_packages_as_of_the_models_date_are_tried_and_credentials_stay_secret(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an index with upload times that asks for a password: `past` lost a module after the model was logged."""
    wheels = tmp_path / "served"
    wheels.mkdir()
    rotten = {"mlflow/__init__.py": "import of_the_past\n", "mlflow/pyfunc.py": ""}
    served = [
        (make_wheel(wheels, "mlflow", "6.0", rotten, ["past"]), "2024-01-01T00:00:00Z"),
        (make_wheel(wheels, "past", "1.0", {"of_the_past.py": ""}), "2024-01-02T00:00:00Z"),
        (make_wheel(wheels, "past", "2.0", {"of_today.py": ""}), "2025-01-01T00:00:00Z"),
        (make_wheel(wheels, "setuptools", "80.0", {"pkg_resources.py": ""}), "2024-01-01T00:00:00Z"),
    ]
    lines: list[str] = []
    model = make_model(tmp_path / "m", "mlflow==6.0\n")
    with index(served, password="s3cr3t!") as address:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://reader:wr0ng-one@{address}")
        with pytest.raises(LoadError) as refused:
            await make(Uv(tail=lines.append), lines.append).ensure(model, "isolated")
        assert "401" in refused.value.message
        lines.append(refused.value.message)

        monkeypatch.setenv("PIP_INDEX_URL", f"http://reader:s3cr3t%21@{address}")
        environments = make(Uv(tail=lines.append), lines.append)
        with pytest.raises(LoadError, match="the kit for Python"):  # which this index does not have
            await environments.ensure(model, "isolated")
        await environments.close()
    assert any(line.endswith("setuptools<81 and --exclude-newer 2024-02-04T04:05:06Z") for line in lines)
    (key,) = left_in(tmp_path / "state")
    facts = (tmp_path / "state" / "environments" / key / ".complete").read_text()
    assert "--exclude-newer" in json.loads(facts)["rescue"]
    everything = "\n".join([*lines, facts])
    assert not [secret for secret in ("wr0ng-one", "s3cr3t") if secret in everything]


# ---- an environment of one's own -------------------------------------------------------------------


@pytest.fixture
def own_venv(tmp_path: Path, index_settings: None) -> Path:
    uv = Uv()
    venv = tmp_path / "own"
    for arguments in (["venv", str(venv)], ["pip", "install", "--no-index", "--python", str(venv), "mlflow", "tiny"]):
        subprocess.run([uv.binary, "--quiet", *arguments], env=uv.environment(), check=True, stdin=subprocess.DEVNULL)
    return venv


def test_a_path_is_used_as_it_is_and_nothing_is_written_into_it(make: Make, own_venv: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    model = make_model(tmp_path / "m", "mlflow==9.0\ntiny==1.0.0")
    before = sorted(own_venv.rglob("*"))

    async def ensure() -> list[Environment]:
        environments = make(report=lines.append)
        try:
            return [await environments.ensure(model, str(path)) for path in (own_venv, own_venv / "bin" / "python")]
        finally:
            await environments.close()

    subprocess.run(["chmod", "-R", "a-w", str(own_venv)], check=True)
    try:
        environment, same = asyncio.run(ensure())
        assert sorted(own_venv.rglob("*")) == before
        assert run_in(environment, "import mlflow, tiny, msgpack; print(tiny.VERSION)") == "2.0.0"
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(own_venv)], check=True)
    assert environment.key == same.key
    assert environment.key.startswith("path:")
    assert environment.python.parent == own_venv / "bin"
    assert any("is used as configured, though it was logged with tiny==1.0.0, here 2.0.0" in line for line in lines)
    assert left_in(tmp_path / "state") == []


async def test_a_path_that_is_no_python_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=rf"{tmp_path / 'nowhere'} does not start as a Python"):
        await make().ensure(make_model(tmp_path / "m"), str(tmp_path / "nowhere"))
