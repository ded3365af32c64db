"""The check of `make check` that finds files in a circle, and files in no room: planted ones, and none of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.imports import main

ROOT = Path(__file__).parents[1]
DOWN = "from ..system.clock import now\n"


def plant(folder: Path, files: dict[str, str]) -> Path:
    """A small tree: `dispatch/queue.py` imports `system/clock.py`; and these files, in the place of its own too."""
    rooms = {f"gateway/{room}/__init__.py": '"""A room."""\n' for room in ("dispatch", "system")}
    own = {"gateway/__init__.py": "", "gateway/dispatch/queue.py": DOWN, "gateway/system/clock.py": "now = 0\n"}
    for name, text in {**rooms, **own, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


UP = {
    "at the top": "from ..dispatch.queue import put\n",
    "in a function": "def now():\n    from ..dispatch.queue import put\n\n    return put\n",
    "for a type checker": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from ..dispatch import queue\n",
    "by its whole name": "import modelhub.serving.gateway.dispatch.queue\n",
    "from its whole name": "from modelhub.serving.gateway.dispatch import queue as line\n",
    "over its package": "from .. import server\n",
}


@pytest.mark.parametrize("text", UP.values(), ids=UP)
def test_two_files_that_import_each_other_are_found(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"gateway/system/clock.py": text, "gateway/server.py": "from .dispatch.queue import put\n"}
    assert main(plant(tmp_path, files)) == 1
    said = capsys.readouterr().out
    assert "gateway/dispatch/queue.py -> gateway/system/clock.py\n" in said
    assert "  gateway/system/clock.py -> gateway/" in said


def test_two_circles_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "gateway/system/clock.py": UP["in a function"],
        "workers/model/__init__.py": '"""A room."""\n',
        "workers/model/a.py": "from . import b\n",
        "workers/model/b.py": "from .c import d\n",
        "workers/model/c.py": "from .a import b\n",
        "workers/model/d.py": "from .a import b\n",
    }
    assert main(plant(tmp_path, files)) == 1
    said = capsys.readouterr().out
    assert "2 files import each other in a circle" in said
    assert "3 files import each other in a circle" in said
    assert "model/d.py" not in said, "it only looks on"


def test_a_file_beside_the_rooms_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"gateway/helpers.py": "", "gateway/server.py": "", "workers/linux.py": "", "config/load.py": ""}
    assert main(plant(tmp_path, files)) == 1
    assert capsys.readouterr().out == "in no room: gateway/helpers.py\n"


def test_a_room_without_a_meaning_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(plant(tmp_path, {"workers/loop/loop.py": ""})) == 1
    assert capsys.readouterr().out == "in no room: workers/loop/__init__.py is missing\n"


def test_imports_that_lead_down_are_no_circle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(plant(tmp_path, {})) == 0
    assert capsys.readouterr().out == ""


def test_ours() -> None:
    assert main(ROOT) == 0
