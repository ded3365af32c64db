"""Small bodies that would become large ones are refused before anything is made of them; what is honest is not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from modelhub.serving.protocol.errors import InvalidRequest, TooLarge
from modelhub.serving.protocol.limits import BYTES_PER_ELEMENT, INFLATE_RATIO, INFLATED_ANYHOW, MAX_COLUMNS
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.workers.convert.compression import inflate
from modelhub.serving.workers.convert.sizes import check_csv, check_records
from modelhub.serving.workers.convert.tables import records_of_csv
from modelhub.serving.workers.model.served import ServedModel

ROOMY = 1 << 30
DIAGONAL = [{f"k{number}": 1} for number in range(6000)]


@pytest.mark.parametrize(
    ("kind", "body", "content_type"),
    [
        ("infer", {"data": DIAGONAL}, "application/json"),
        ("invocations", {"dataframe_records": DIAGONAL}, "application/json"),
        ("infer", ",".join(["c"] * 300_000) + "\n1\n", "text/csv"),
        ("invocations", ",".join(["c"] * 300_000) + "\n1\n", "text/csv"),
    ],
)
def test_a_table_out_of_proportion_is_refused(
    served: Callable[[str], ServedModel], kind: str, body: Any, content_type: str
) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest, match=r"the table has \d+ (rows and \d+ )?columns"):
        served("echo").decode(InferRequest(1, kind, content_type=content_type), raw)


def test_rows_without_values_for_a_model_of_many_columns_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="100000 rows and 1000 columns, but only 0 values"):
        check_records([{}] * 100_000, 1000)


def test_honest_tables_pass() -> None:
    check_records([dict.fromkeys(map(str, range(20_000)), 1)] * 1000)  # wide and full
    check_records([{"a": 1}, {"b": 2}, {}] * 100_000)  # long, with gaps
    check_records([{f"k{number}": 1} for number in range(1000)])  # sparse and small
    check_records([[1, 2], [3, 4]])
    assert len(records_of_csv(b"a,b\n" + b"1,2\n" * 1000)) == 1000
    check_csv(b"a")


def test_lines_without_values_for_many_columns_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="send records with the same fields"):
        check_csv(b",".join([b"c"] * (MAX_COLUMNS - 1)) + b"\n" + b"1\n" * 10_000)


@pytest.mark.parametrize("size", [INFLATED_ANYHOW, INFLATED_ANYHOW + 1])
def test_a_compressed_body_inflates_in_proportion(size: int) -> None:
    bomb = gzip.compress(bytes(size))
    assert INFLATE_RATIO * len(bomb) < size
    if size == INFLATED_ANYHOW:
        assert len(inflate(bomb, "gzip", ROOMY)) == size
    else:
        with pytest.raises(TooLarge, match="inflates to more than"):
            inflate(bomb, "gzip", ROOMY)


def test_a_compressed_body_has_no_more_elements_than_another_of_its_limit() -> None:
    limit = 1 << 20
    most = limit // BYTES_PER_ELEMENT
    assert inflate(gzip.compress(b"1," * most), "gzip", limit).count(b",") == most
    with pytest.raises(TooLarge, match="more than 131072 elements"):
        inflate(gzip.compress(b"1," * (most + 1)), "gzip", limit)
