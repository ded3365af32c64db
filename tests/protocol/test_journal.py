"""The journal page, written by one process and read by another."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest

from modelhub.serving.protocol.journal import SIZE, SLOTS, Journal


def test_what_one_side_begins_the_other_sees(tmp_path: Path) -> None:
    reader = Journal(str(tmp_path / "page"), create=True)
    writer = Journal(str(tmp_path / "page"))
    assert reader.begun() == {}
    before = time.monotonic()
    writer.begin([7, 8])
    assert set(reader.begun()) == {7, 8}
    assert before - 0.01 <= reader.begun()[7] <= time.monotonic()
    writer.close()
    assert set(reader.begun()) == {7, 8}
    reader.close()


def test_it_remembers_the_last_slots(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "page"), create=True)
    journal.begin(range(1, SLOTS + 11))
    assert set(journal.begun()) == set(range(11, SLOTS + 11))
    journal.close()


def test_its_blocks_are_taken_when_it_is_made(tmp_path: Path) -> None:
    """A page that the disk has no room for any more when it is touched ends both processes with SIGBUS."""
    Journal(str(tmp_path / "page"), create=True).close()
    assert (tmp_path / "page").stat().st_blocks * 512 >= SIZE


def test_an_existing_page_is_never_taken_over(tmp_path: Path) -> None:
    Journal(str(tmp_path / "page"), create=True).close()
    with pytest.raises(FileExistsError):
        Journal(str(tmp_path / "page"), create=True)


def test_a_page_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    reader, writer = Journal(str(tmp_path / "page"), create=True), Journal(str(tmp_path / "page"))
    writer.begin([7, 8])
    assert reader.whole
    for size, left in ((24, {7}), (0, set())):
        os.truncate(tmp_path / "page", size)
        assert set(reader.begun()) == left
        assert not reader.whole
    writer.close()
    reader.close()


def test_what_begins_in_the_future_has_begun_now(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "page"), create=True)
    (tmp_path / "page").write_bytes(struct.pack("<QQ", 7, 1 << 63))
    assert journal.begun()[7] <= time.monotonic()
    journal.close()
