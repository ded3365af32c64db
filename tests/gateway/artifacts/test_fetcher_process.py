"""The life of the fetcher process: started on demand, ended when idle, replaced when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelhub.serving.gateway.artifacts.fetcher import Fetcher
from modelhub.serving.protocol.errors import ConfigError, LoadError
from support.modelhub_server import PASSWORD, SECRET, ModelHubServer, environment, unused_address
from support.processes import alive, until


async def running_pid(fetcher: Fetcher) -> int:
    return await asyncio.to_thread(until, lambda: fetcher.pid, 10, "the fetcher starts")


async def test_starts_with_the_first_question_and_ends_when_idle(mlflow_server: str, logged: Any) -> None:
    fetcher = Fetcher(
        lambda line: None, idle_timeout=0.1, environment={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server}
    )
    assert fetcher.pid is None
    asked = asyncio.create_task(fetcher.resolve("models:/echo/1"))
    process = psutil.Process(await running_pid(fetcher))
    assert (await asked).version == "1"
    await asyncio.to_thread(until, lambda: fetcher.pid is None and not alive(process), 10, "the idle fetcher ends")
    await fetcher.close()


async def test_a_killed_process_is_replaced_and_the_question_answered(mlflow_server: str, logged: Any) -> None:
    lines: list[str] = []
    fetcher = Fetcher(lines.append, environment={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server})
    try:
        asked = asyncio.create_task(fetcher.resolve("models:/echo@champion"))
        first = await running_pid(fetcher)
        os.kill(first, signal.SIGKILL)
        assert (await asked).version == "1"
        assert fetcher.pid not in (None, first)
        assert "the fetcher process was killed by signal 9; starting it again" in lines
    finally:
        await fetcher.close()


async def test_a_process_that_always_dies_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text("print('no luck today'); raise SystemExit(3)")
    lines: list[str] = []
    fetcher = Fetcher(lines.append, command=[sys.executable, str(script)])
    with pytest.raises(LoadError, match=r"ended \(3\), twice in a row"):
        await fetcher.resolve("models:/echo/1")
    await fetcher.close()
    assert lines.count("no luck today") == 2


async def test_a_process_that_does_not_listen_is_killed_at_the_end(tmp_path: Path) -> None:
    script = tmp_path / "deaf.py"
    script.write_text("import signal, sys; print('x' * 100_000, flush=True)\nwhile True: signal.pause()")
    lines: list[str] = []
    fetcher = Fetcher(lines.append, command=[sys.executable, str(script)], stop_timeout=0.2)
    asked = asyncio.create_task(fetcher.resolve("models:/echo/1"))
    process = psutil.Process(await running_pid(fetcher))
    await fetcher.close()
    assert not alive(process)
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert max(map(len, lines)) <= 8192  # a line without end does not fill the log
    with pytest.raises(LoadError, match="stopping"):
        await fetcher.resolve("models:/echo/1")


async def test_modelhubs_credentials_lead_to_its_tracking_server(mlflow_server: str, logged: Any) -> None:
    lines: list[str] = []
    with ModelHubServer(tracking_uri=mlflow_server) as modelhub:
        own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
        fetcher = Fetcher(lines.append, environment={**own, **modelhub.environment()})
        try:
            assert (await fetcher.resolve("models:/echo/latest")).version == "2"
            assert await fetcher.search(["echo"]) == {"echo": {"champion": "1", "latest": "2"}}
        finally:
            await fetcher.close()
        assert modelhub.asked == ["token", "tracking_uri", "credentials"]
        assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
        assert not [line for line in lines if SECRET in line or PASSWORD in line or modelhub.tokens[0] in line]


async def test_modelhub_without_a_copilot() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    fetcher = Fetcher(lambda line: None, environment={**own, **environment(unused_address(), COPILOT_ID=None)})
    try:
        with pytest.raises(ConfigError, match="COPILOT_ID is not"):
            await fetcher.resolve("models:/echo/1")
    finally:
        await fetcher.close()


def test_the_gateways_side_imports_no_model_libraries() -> None:
    code = (
        "import sys, modelhub.serving.workers.fetch.process\n"
        "from modelhub.serving.gateway.artifacts import store as artifacts, fetcher as fetch, mlmodel, resolve\n"
        "print([name for name in ('mlflow', 'pandas', 'numpy', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
