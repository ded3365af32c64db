"""What uv is started with, what of its words is masked, and that it ends when it should."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from modelhub.serving.gateway.environments.uv import UvFailed, run_program, uv_environment


def test_pip_settings_become_uvs(tmp_path: Path) -> None:
    env = uv_environment(
        {
            "PIP_INDEX_URL": "https://a.example/simple",
            "PIP_EXTRA_INDEX_URL": "https://b.example https://c.example",
            "PIP_FIND_LINKS": f"{tmp_path} /no/such/folder https://d.example",
            "PIP_TRUSTED_HOST": "a.example",
            "PIP_PRE": "1",
        }
    )
    assert env["UV_DEFAULT_INDEX"] == "https://a.example/simple"
    assert env["UV_INDEX"] == "https://b.example https://c.example"
    assert "UV_INDEX_STRATEGY" not in env
    assert env["UV_FIND_LINKS"] == f"{tmp_path},https://d.example"
    assert (env["UV_INSECURE_HOST"], env["UV_PRERELEASE"]) == ("a.example", "allow")


def test_uvs_own_settings_win() -> None:
    own = {"UV_INDEX_URL": "https://own.example", "UV_EXTRA_INDEX_URL": "https://more.example"}
    env = uv_environment({**own, "PIP_INDEX_URL": "https://pip.example", "PIP_EXTRA_INDEX_URL": "https://pip.example"})
    assert {name: env[name] for name in own} == own
    assert "UV_DEFAULT_INDEX" not in env
    assert "UV_INDEX" not in env


def test_no_other_secret_and_no_other_environment_reaches_a_package_that_is_built() -> None:
    env = uv_environment(
        {
            "PATH": "/bin",
            "https_proxy": "http://proxy",
            "MLFLOW_TRACKING_PASSWORD": "x",
            "CLIENT_SECRET": "x",
            "VIRTUAL_ENV": "/v",
            "PYTHONPATH": "/p",
            "UV_PYTHON": "3.8",
            "INDEX_TOKEN": "t",
            "UV_PUBLISH_TOKEN": "x",
            "OTHER": "x",
        }
    )
    assert {name for name in env if not name.startswith("UV_")} == {"PATH", "https_proxy", "NO_COLOR"}
    assert not {"UV_PYTHON", "UV_PUBLISH_TOKEN"} & env.keys()


async def test_output_is_masked_and_told_line_by_line() -> None:
    lines: list[str] = []
    code = "import sys; print('one https://a:b@h'); print('two', file=sys.stderr); sys.exit(7)"
    with pytest.raises(UvFailed) as failed:
        await run_program(["/usr/bin/env", "python3", "-uc", code], env=dict(os.environ), tail=lines.append)
    assert lines == ["one https://***@h", "two"]
    assert str(failed.value) == "exit code 7:\none https://***@h\ntwo"
    assert failed.value.last_line == "two"


async def test_of_a_line_without_end_only_its_beginning_is_looked_at() -> None:
    lines: list[str] = []
    code = "print('x' * 1_000_000); print('the end')"
    await run_program(["/usr/bin/env", "python3", "-c", code], env=dict(os.environ), tail=lines.append)
    assert [len(line) for line in lines] == [4096, 7]


@pytest.mark.parametrize(
    ("script", "said"), [("kill -9 $$", "killed by signal 9, perhaps out of memory"), ("exit 3", "exit code 3")]
)
async def test_an_end_is_described(script: str, said: str) -> None:
    with pytest.raises(UvFailed) as failed:
        await run_program(["/bin/sh", "-c", script], env={})
    assert str(failed.value) == said


async def test_a_line_without_end_is_no_reason_to_hang() -> None:
    said = await run_program(["/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo done"], env={})
    assert said.splitlines()[-1] == "done"


async def test_an_answer_is_neither_cut_nor_masked_but_its_failure_is() -> None:
    """A list of a thousand distributions, one of which is called …-token, is one line of JSON."""
    script = "printf 'a-token: \"%08000d\"' 0"
    said = await run_program(["/bin/sh", "-c", script], env={}, whole=True)
    assert said == 'a-token: "' + "0" * 8000 + '"'
    with pytest.raises(UvFailed) as failed:
        await run_program(["/bin/sh", "-c", f"{script}; echo; echo https://a:b@h; exit 3"], env={}, whole=True)
    assert failed.value.last_line == "https://***@h"
    assert len(failed.value.said) < 5000


async def test_a_time_limit_and_a_cancellation_end_the_whole_group() -> None:
    with pytest.raises(UvFailed, match=r"no end within 0.2 s"):
        await run_program(["/bin/sh", "-c", "cat /dev/zero >/dev/null | sleep 600"], env={}, timeout=0.2)
    started: asyncio.Queue[str] = asyncio.Queue()
    script = "sleep 600 & echo $!; wait"
    task = asyncio.create_task(run_program(["/bin/sh", "-c", script], env={}, tail=started.put_nowait))
    child = psutil.Process(int(await started.get()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(psutil.wait_procs, [child], 10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
