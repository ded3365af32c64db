"""Sizes and durations: what is accepted, what is not, and that the two ways agree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.config.quantities import format_duration, format_size, human_size, parse_duration, parse_size

SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "Gi": 2**30,
}
DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}


@given(st.integers(0, 10**12), st.sampled_from(sorted(SIZE_UNITS)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}") == number * SIZE_UNITS[unit]
    assert parse_size(f"{number}{unit.lower()}") == number * SIZE_UNITS[unit]


@given(st.integers(0, 2**70))
def test_an_int_is_bytes(number: int) -> None:
    assert parse_size(number) == number


def test_fractions_of_a_size_are_exact() -> None:
    assert parse_size("1.5GiB") == 3 << 29
    assert parse_size("0.1GB") == 100_000_000


@pytest.mark.parametrize(
    "wrong", ["", "GiB", "-1MiB", "1e3MB", "2G", "64Mob", "1 2MB", "٣MB", "9" * 5000, None, True, 1.5, -1, [], "1.MB"]
)
def test_what_is_no_size_says_how_to_write_one(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"64MiB|0 or more bytes") as raised:
        parse_size(wrong)
    assert len(str(raised.value)) < 200


@given(st.integers(0, 10**6), st.sampled_from(sorted(DURATION_UNITS)))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * DURATION_UNITS[unit])


@given(st.floats(0, 1e9))
def test_a_number_is_seconds(number: float) -> None:
    assert parse_duration(number) == number


def test_parts_of_a_duration_add_up() -> None:
    assert parse_duration("1h2m3s") == 3723
    assert parse_duration("1m 30s") == 90
    assert parse_duration("2.5") == 2.5


@pytest.mark.parametrize(
    "wrong", ["", "s", "-1s", "30x", "1s2", "nan", "inf", math.nan, math.inf, -1, True, None, {}, "9" * 400 + "d"]
)
def test_what_is_no_duration_says_how_to_write_one(wrong: object) -> None:
    with pytest.raises(ValueError, match="not a duration; write"):
        parse_duration(wrong)


@given(st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none()))
def test_any_value_is_a_quantity_or_a_value_error(value: object) -> None:
    for parse in (parse_size, parse_duration):
        try:
            number = parse(value)
        except ValueError:
            continue
        assert number >= 0
        assert math.isfinite(number)


@given(st.integers(0, 2**50))
def test_a_formatted_size_reads_back_within_its_precision(number: int) -> None:
    assert parse_size(format_size(number)) == pytest.approx(number, rel=0.05)


@pytest.mark.parametrize(
    ("size", "written", "said"),
    [
        (0, "0B", "0 B"),
        (1536, "1.5KiB", "1.5 KiB"),
        (300 << 20, "300MiB", "300 MiB"),
        (357_892_096, "341.3MiB", "341.3 MiB"),
        (1 << 52, "4096TiB", "4096 TiB"),
    ],
)
def test_sizes_for_people(size: int, written: str, said: str) -> None:
    assert (format_size(size), human_size(size)) == (written, said)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.25, "250ms"), (4.21, "4.2s"), (30, "30s"), (200, "3m20s"), (7500, "2h05m"), (273600, "3d04h")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
