"""statsmodels, pmdarima and Prophet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .of_boosting import signature_of
from .of_sklearn import numbers
from .parts import Asked, case, seed


@case
def ols(folder: Path) -> Asked:
    import statsmodels.api as sm

    X = numbers()
    return _save(sm.OLS(X["a"] * 2 + X["b"], X).fit(), folder, X)


@case
def glm(folder: Path) -> Asked:
    import statsmodels.api as sm

    X = numbers()
    return _save(sm.GLM((X["a"] > 0).astype(float), X, family=sm.families.Binomial()).fit(), folder, X)


def _save(model: Any, folder: Path, X: Any) -> Asked:
    import mlflow.statsmodels

    signature = signature_of(X, model.predict(X))
    mlflow.statsmodels.save_model(model, str(folder), signature=signature, pip_requirements=["mlflow"])
    return Asked(X.head(4))


@case
def auto_arima(folder: Path) -> Asked:
    import mlflow.pmdarima
    import pandas as pd
    import pmdarima

    series = pd.Series(seed().normal(size=40).cumsum())
    model = pmdarima.ARIMA(order=(1, 1, 0)).fit(series)
    asked = pd.DataFrame({"n_periods": [5]})
    mlflow.pmdarima.save_model(model, str(folder), signature=signature_of(asked), pip_requirements=["mlflow"])
    return Asked(asked)


@case
def prophet(folder: Path) -> Asked:
    import mlflow.prophet
    import pandas as pd
    from prophet import Prophet

    days = pd.date_range("2024-01-01", periods=40)
    model = Prophet(uncertainty_samples=0, weekly_seasonality=False, daily_seasonality=False).fit(
        pd.DataFrame({"ds": days, "y": range(40)})
    )
    asked = pd.DataFrame({"ds": pd.date_range("2024-02-20", periods=3).astype("datetime64[ns]")})
    mlflow.prophet.save_model(model, str(folder), signature=signature_of(asked), pip_requirements=["mlflow"])
    return Asked(asked)
