"""Every command of docs/inputs.md, run by a shell; the answers are those that the page shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from support.gateway_process import Gateway

PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"
EXAMPLES = re.findall(r"```sh\n(.*?)```\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files that the commands send."""
    folder = tmp_path_factory.mktemp("files")
    pixels = load_digits().images[0]
    image = Image.fromarray((pixels * 15.9).astype("uint8")).resize((160, 160), Image.Resampling.NEAREST)
    image.save(folder / "digit.png")
    image.save(folder / "digit.jpg")
    image.save(folder / "digits.pdf", save_all=True, append_images=[image])
    return folder


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, str) and value.startswith("{"):
        return rounded(json.loads(value))  # JSON as a text
    return round(value, 6) if isinstance(value, float) else value


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("command", "answer"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_commands_of_the_page(shared_gateway: Gateway, files: Path, command: str, answer: str) -> None:
    here = command.replace("localhost:8080", shared_gateway.url.removeprefix("http://"))
    done = subprocess.run(["bash", "-c", here], cwd=files, capture_output=True, check=True, timeout=60)
    assert rounded(json.loads(done.stdout)) == rounded(json.loads(answer))


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 12
    kinds = ("text", "data", "inputs", "image", "pdf", "text/csv", "invocations", ":predict", "octet-stream", "-F")
    for kind in kinds:
        assert any(kind in command for command, _ in EXAMPLES), kind
