"""The models that the guide's examples are pointed at, the files that they send, and the processes that run them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from support.script_process import ScriptProcess

HERE = Path(__file__).parent
BLOCKS = HERE / "blocks"
GUIDE_MODELS = HERE.parents[1] / "support" / "guide_models.py"

#: Answers a prompt after a moment, on whatever loop it is asked.
FAKE_LLM = """
import asyncio


class AsyncLLMService:
    async def generate(self, prompt):
        await asyncio.sleep(0.01)
        return prompt[::-1]
"""


@pytest.fixture(scope="session")
def fill() -> Callable[..., str]:
    """`fill("block.py", run=…)`: a block of the guide with its placeholders filled."""
    sys.path.insert(0, str(HERE))
    try:
        from substitutions import fill as filled
    finally:
        sys.path.remove(str(HERE))

    def block(name: str, **values: str) -> str:
        return filled(name, (BLOCKS / name).read_text(), **values)

    return block


@pytest.fixture(scope="session")
def runs(mlflow_server: str, fill: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`runs:/<id>/model` of what tests/support/guide_models.py logged; `my-model` is registered, version 2 too."""
    folder = tmp_path_factory.mktemp("guide_models")
    (folder / "fake_llm.py").write_text(FAKE_LLM)
    (folder / "async_llm.py").write_text(fill("async_llm_model.py"))
    done = subprocess.run(
        [sys.executable, str(GUIDE_MODELS), mlflow_server, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with document.pdf (two pages), image.jpg (40 x 30) and image.png (20 x 10), and their base64."""
    folder = tmp_path_factory.mktemp("files")
    pages = [Image.new("RGB", (200, 100), colour) for colour in ("white", "grey")]
    pages[0].save(folder / "document.pdf", save_all=True, append_images=pages[1:])
    Image.new("RGB", (40, 30), "red").save(folder / "image.jpg")
    Image.new("RGB", (20, 10), "blue").save(folder / "image.png")

    def text(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    return SimpleNamespace(folder=folder, pdf=text("document.pdf"), jpeg=text("image.jpg"), png=text("image.png"))


@pytest.fixture
def start(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ScriptProcess]]:
    """`start(command, files={name: text}, env=…)`: a process that is live; ended by SIGTERM, leaving nothing behind."""
    with ExitStack() as stack:

        def run(
            command: Any,
            files: dict[str, str] | None = None,
            env: dict[str, str] | None = None,
            *,
            live: bool = True,
        ) -> ScriptProcess:
            folder = tmp_path_factory.mktemp("script")
            for name, text in (files or {}).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
            given = {"MLFLOW_TRACKING_URI": mlflow_server} if env is None else env
            running = ScriptProcess(command, folder, env=given)
            stack.callback(running.kill)
            if live:
                running.wait_live()
                stack.callback(lambda: running.stop() if running.running else None)
            return running

        yield run
