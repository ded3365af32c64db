"""What is remembered of the memory of models: kept on disk, and no reason to fail when the disk is unkind."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from modelhub.serving.gateway.models import sizes
from modelhub.serving.gateway.models.sizes import Sizes


def test_sizes_are_there_after_a_restart(tmp_path: Path) -> None:
    book = Sizes(tmp_path / "state")
    assert (book.size("a"), book.typical()) == (None, 0)
    book.remember("a", 10)
    book.remember("b", 30)
    book.remember("a", 20)
    assert (book.size("a"), book.typical()) == (20, 25)
    book.save()
    again = Sizes(tmp_path / "state")
    assert (again.size("a"), again.size("b"), again.size("c")) == (20, 30, None)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["memory.json"]


def test_two_gateways_with_one_folder_keep_what_each_has_learnt(tmp_path: Path) -> None:
    one, other = Sizes(tmp_path), Sizes(tmp_path)
    one.remember("a", 10)
    one.save()
    other.remember("b", 20)
    other.save()
    one.remember("c", 30)
    one.save()
    assert [Sizes(tmp_path).size(source) for source in "abc"] == [10, 20, 30]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": "much"}', '{"a": null}', "\xff\xfe"])
def test_a_file_that_makes_no_sense_is_begun_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "memory.json").write_bytes(text.encode("latin-1"))
    book = Sizes(tmp_path)
    assert "is begun anew" in caplog.text
    book.remember("a", 1)
    book.save()
    assert Sizes(tmp_path).size("a") == 1


def test_a_disk_that_cannot_be_written_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    book = Sizes(tmp_path / "file")
    book.remember("a", 1)
    with caplog.at_level(logging.WARNING):
        book.save()
    assert "cannot be written" in caplog.text
    assert book.size("a") == 1


def test_what_was_not_seen_for_longest_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "MAX_ENTRIES", 2)
    book = Sizes(tmp_path)
    for source in ("a", "b", "a", "c"):
        book.remember(source, 1)
    assert [book.size(source) for source in "abc"] == [1, None, 1]
