"""When a worker batches: what its warm-up proves of the model, and what needs no proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.journal import SLOTS
from modelhub.serving.protocol.signature import Field, Signature
from modelhub.serving.workers.loop.batching import Batching
from modelhub.serving.workers.model.served import ServedModel
from support.doubling import Doubles, body, made, proven
from support.worker_link import WorkerLink

Served = Callable[[str], ServedModel]
Save = Callable[..., ServedModel]


def test_an_example_of_two_rows_proves_it(tmp_path: Path) -> None:
    state, credits = proven(made(Doubles()), body(1, 2), tmp_path)
    assert (state["enabled"], credits) == (True, 128)


def test_what_is_learned_of_one_model_is_not_anothers(tmp_path: Path) -> None:
    """Models may be made of one signature: the answers of each correct its own."""

    class Unnamed(Doubles):
        def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
            return np.ones((len(data), 3))

    one, other = made(Unnamed()), made(Doubles())
    proven(one, body(1, 2), tmp_path)
    assert one.signature.outputs != other.signature.outputs
    assert [each.name for each in other.signature.outputs] == ["y"]


@pytest.mark.parametrize("example", [body(1), body(1, 1, 1)], ids=["one row", "equal rows"])
def test_an_example_that_shows_nothing(tmp_path: Path, example: bytes) -> None:
    state, credits = proven(made(Doubles()), example, tmp_path)
    assert (state["enabled"], credits) == (False, 0)
    assert "two distinct rows" in state["reason"]


class Centred(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        return pd.DataFrame({"y": data["x"] - data["x"].mean()})


class Sorted(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        return pd.DataFrame({"y": sorted(data["x"])})


class Noisy(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        return pd.DataFrame({"y": data["x"] + np.random.default_rng().random(len(data))})


class FirstOnly(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        return pd.DataFrame({"y": data["x"][:1]})


class TwoAtLeast(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        if len(data) < 2:
            raise ValueError("two rows, please")
        return pd.DataFrame({"y": data["x"]})


@pytest.mark.parametrize("kind", [Centred, Sorted, Noisy, FirstOnly])
def test_a_model_whose_rows_depend_on_each_other(tmp_path: Path, kind: type[Doubles]) -> None:
    state, credits = proven(made(kind()), body(1, 2), tmp_path)
    assert (state["enabled"], credits) == (False, 0)
    assert "stacked" in state["reason"]


def test_an_example_that_fails_is_no_proof(tmp_path: Path) -> None:
    state, _ = proven(made(TwoAtLeast()), body(1, 2), tmp_path)
    assert state["enabled"] is False


def test_rounding_is_no_difference(tmp_path: Path) -> None:
    class Rounds(Doubles):
        def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
            return pd.DataFrame({"y": data["x"] * (1 + 1e-12 * len(data))})

    assert proven(made(Rounds()), body(1, 2), tmp_path)[0]["enabled"] is True


def test_only_the_warm_up_proves(tmp_path: Path) -> None:
    with WorkerLink(tmp_path, made(Doubles())) as worker:
        worker.ask(body(1, 2))
        assert worker.batching()["enabled"] is False


def test_a_fixed_first_dimension_is_not_stacked() -> None:
    fixed = Signature([Field("x", "tensor", "float32", "FP32", (1, 4))])
    batching = Batching(made(Doubles(), fixed))
    assert (batching.on, batching.candidate) == (False, False)


def test_no_signature_no_batches() -> None:
    assert not Batching(made(Doubles(), Signature())).candidate
    assert Batching(made(Doubles(), Signature()), {"enabled": True}).on


@pytest.mark.parametrize("settings", [{"enabled": False}, {"max_size": 1}, {"enabled": True, "max_size": 1}])
def test_it_can_be_switched_off(served: Served, settings: dict[str, Any]) -> None:
    batching = Batching(served("digits"), settings)
    assert (batching.on, batching.candidate, batching.credits(1)) == (False, False, 0)


def test_row_wise_flavours_need_no_proof(served: Served) -> None:
    for name in ("digits", "iris"):
        batching = Batching(served(name))
        assert (batching.on, batching.credits(1)) == (True, 128)
        assert batching.reason == "mlflow_sklearn is row-wise"
    assert not Batching(served("identity")).on


def test_credits_are_the_batch_that_runs_and_the_next(served: Served) -> None:
    model = served("digits")
    assert Batching(model, {"max_size": 8}).credits(1) == 16
    assert Batching(model, {"max_size": 8}).credits(3) == 48
    assert Batching(model, {"max_size": 100_000}).credits(1) == SLOTS // 4


def centred(rows: Any) -> Any:
    return rows - rows.mean(axis=0)


def test_a_step_of_ones_own_is_not_known_to_be_row_wise(tmp_path: Path, mlflow_imported: None) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    from support.served_calls import loaded_from, tensors

    rows = np.arange(8.0).reshape(4, 2)
    signature = tensors(("float64", (-1, 2), None))
    for name, step, expected in (("own", FunctionTransformer(centred), False), ("known", StandardScaler(), True)):
        pipeline = make_pipeline(step, LinearRegression()).fit(rows, rows[:, 0])
        model = loaded_from(mlflow.sklearn, pipeline, tmp_path / name, signature)
        assert Batching(model).on is expected
