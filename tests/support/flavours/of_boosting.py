"""XGBoost, LightGBM and CatBoost: estimators and boosters, with and without columns of categories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .of_sklearn import classes, numbers
from .parts import Asked, case, seed


def signature_of(data: Any, result: Any = None) -> Any:
    from mlflow.models import infer_signature

    return infer_signature(data, result)


def categories() -> tuple[Any, Any]:
    """A table with categories of texts and of numbers, and what to learn from it."""
    import pandas as pd

    rng = seed()
    cities, codes = rng.choice(["rome", "oslo", "bern"], 300), rng.choice([30, 10, 20], 300)
    X = pd.DataFrame(
        {
            "x": rng.normal(size=300),
            "city": pd.Categorical(cities, categories=["oslo", "rome", "bern"]),
            "code": pd.Categorical(codes, categories=[30, 10, 20]),
        }
    )
    return X, (cities == "oslo") * 2.0 + (codes == 20) + X["x"] * 0.1


def as_sent(X: Any) -> Any:
    """The table as a request has it."""
    return X.astype({"city": object, "code": "int64"})


def asked_of_categories(model: Any, X: Any) -> Asked:
    """What pyfunc cannot be asked: the rows with their categories, of the model itself."""
    return Asked(as_sent(X.head(6)), predict=lambda _: model.predict(X.head(6)))


@case
def xgb_classifier(folder: Path) -> Asked:
    import mlflow.xgboost
    from xgboost import XGBClassifier

    X = numbers()
    model = XGBClassifier(n_estimators=5).fit(X, classes(X))
    mlflow.xgboost.save_model(
        model, str(folder), signature=signature_of(X, model.predict(X)), pip_requirements=["mlflow"]
    )
    return Asked(X.head(4))


@case
def xgb_booster(folder: Path) -> Asked:
    import mlflow.xgboost
    import xgboost

    X = numbers()
    model = xgboost.train({"objective": "multi:softprob", "num_class": 3}, xgboost.DMatrix(X, classes(X)), 5)
    mlflow.xgboost.save_model(model, str(folder), signature=signature_of(X), pip_requirements=["mlflow"])
    return Asked(X.head(4))


@case
def xgb_categories(folder: Path) -> Asked:
    import mlflow.xgboost
    from xgboost import XGBRegressor

    X, y = categories()
    model = XGBRegressor(n_estimators=5, enable_categorical=True).fit(X, y)
    mlflow.xgboost.save_model(
        model, str(folder), signature=signature_of(as_sent(X), model.predict(X)), pip_requirements=["mlflow"]
    )
    return asked_of_categories(model, X)


@case
def xgb_booster_with_categories(folder: Path) -> Asked:
    """MLflow's own `predict` refuses a Booster's categories, so the Booster is asked."""
    import mlflow.xgboost
    import xgboost

    X, y = categories()
    model = xgboost.train({}, xgboost.DMatrix(X, y, enable_categorical=True), 5)
    expected = model.predict(xgboost.DMatrix(X.head(6), enable_categorical=True))
    mlflow.xgboost.save_model(
        model, str(folder), signature=signature_of(as_sent(X), expected), pip_requirements=["mlflow"]
    )
    return Asked(as_sent(X.head(6)), predict=lambda _: expected)


@case
def lgbm_classifier(folder: Path) -> Asked:
    from lightgbm import LGBMClassifier

    X = numbers()
    model = LGBMClassifier(n_estimators=5, min_child_samples=5, verbose=-1).fit(X, classes(X))
    return _save_lgbm(model, folder, X, model.predict(X), Asked(X.head(4)))


@case
def lgbm_booster(folder: Path) -> Asked:
    import lightgbm

    X = numbers()
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1}
    model = lightgbm.train(settings, lightgbm.Dataset(X, classes(X)), 5)
    return _save_lgbm(model, folder, X, model.predict(X), Asked(X.head(4)))


@case
def lgbm_categories(folder: Path) -> Asked:
    import lightgbm

    X, y = categories()
    model = lightgbm.train({"verbose": -1, "min_data_in_leaf": 5}, lightgbm.Dataset(X, y), 5)
    return _save_lgbm(model, folder, as_sent(X), model.predict(X), asked_of_categories(model, X))


@case
def lgbm_estimator_with_categories(folder: Path) -> Asked:
    from lightgbm import LGBMRegressor

    X, y = categories()
    model = LGBMRegressor(n_estimators=5, min_child_samples=5, verbose=-1).fit(X, y)
    return _save_lgbm(model, folder, as_sent(X), model.predict(X), asked_of_categories(model, X))


@case
def lgbm_categories_among_the_columns_of_scikit_learn(folder: Path) -> Asked:
    import mlflow.sklearn
    from lightgbm import LGBMRegressor

    X, y = categories()
    model = LGBMRegressor(n_estimators=5, min_child_samples=5, verbose=-1).fit(X, y)
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=signature_of(as_sent(X), model.predict(X)),
        pip_requirements=["mlflow"],
        serialization_format="cloudpickle",
    )
    return asked_of_categories(model, X)


def _save_lgbm(model: Any, folder: Path, X: Any, result: Any, asked: Asked) -> Asked:
    import mlflow.lightgbm

    mlflow.lightgbm.save_model(
        model,
        str(folder),
        signature=signature_of(X, result),
        pip_requirements=["mlflow"],
        serialization_format="cloudpickle",
    )
    return asked


@case
def catboost_classifier(folder: Path) -> Asked:
    from catboost import CatBoostClassifier

    X = numbers()
    return _save_catboost(CatBoostClassifier(5, verbose=0, allow_writing_files=False).fit(X, classes(X)), folder, X)


@case
def catboost_categories(folder: Path) -> Asked:
    from catboost import CatBoostRegressor

    X, y = categories()
    X = X.assign(city=X["city"].astype(object), code=X["code"].astype("int64"))
    model = CatBoostRegressor(5, verbose=0, allow_writing_files=False, cat_features=["city", "code"]).fit(X, y)
    return _save_catboost(model, folder, X)


def _save_catboost(model: Any, folder: Path, X: Any) -> Asked:
    import mlflow.catboost

    mlflow.catboost.save_model(
        model, str(folder), signature=signature_of(X, model.predict(X)), pip_requirements=["mlflow"]
    )
    return Asked(X.head(5))
