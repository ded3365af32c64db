"""scikit-learn: estimators and pipelines, each way of asking them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .parts import Asked, case, seed


def save(model: Any, folder: Path, asked: Asked, *, signed: bool = True, **options: Any) -> Asked:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    if signed:
        function = getattr(model, options.get("pyfunc_predict_fn", "predict"))
        outputs = function(asked.data)
        options["signature"] = infer_signature(asked.data, None if isinstance(outputs, list) else outputs)
    mlflow.sklearn.save_model(
        model, str(folder), pip_requirements=["mlflow"], serialization_format="cloudpickle", **options
    )
    return asked


def numbers(rows: int = 200) -> Any:
    import pandas as pd

    return pd.DataFrame(seed().normal(size=(rows, 3)), columns=["a", "b", "c"])


def classes(frame: Any) -> Any:
    return ((frame["a"] > 0).astype(int) + (frame["b"] > 0.5).astype(int)).to_numpy()


@case
def logistic_regression(folder: Path) -> Asked:
    from sklearn.linear_model import LogisticRegression

    X = numbers()
    return save(LogisticRegression().fit(X, classes(X)), folder, Asked(X.head(4)))


@case
def probabilities(folder: Path) -> Asked:
    from sklearn.linear_model import LogisticRegression

    X = numbers()
    model = LogisticRegression().fit(X, classes(X))
    return save(model, folder, Asked(X.head(3)), pyfunc_predict_fn="predict_proba")


@case
def probabilities_of_several_outputs(folder: Path) -> Asked:
    from sklearn.ensemble import RandomForestClassifier

    X = numbers()
    model = RandomForestClassifier(5, random_state=0).fit(X, (X[["a", "b"]] > 0).astype(int).to_numpy())
    return save(model, folder, Asked(X.head(2)), pyfunc_predict_fn="predict_proba")


@case
def logarithms_of_probabilities(folder: Path) -> Asked:
    from sklearn.naive_bayes import GaussianNB

    X = numbers()
    return save(GaussianNB().fit(X, classes(X)), folder, Asked(X.head(3)), pyfunc_predict_fn="predict_log_proba")


@case
def text_labels(folder: Path) -> Asked:
    from sklearn.neighbors import KNeighborsClassifier

    X = numbers()
    labels = ["über" if value > 0 else "unter" for value in X["a"]]
    return save(KNeighborsClassifier().fit(X, labels), folder, Asked(X.head(4)))


@case
def several_targets(folder: Path) -> Asked:
    from sklearn.linear_model import LinearRegression

    X = numbers()
    return save(LinearRegression().fit(X, X[["a", "b"]] * 2), folder, Asked(X.head(3)))


@case
def tensor(folder: Path) -> Asked:
    from sklearn.linear_model import Ridge

    X = numbers().to_numpy()
    return save(Ridge().fit(X, X.sum(axis=1)), folder, Asked(X[:4]))


@case
def text_pipeline(folder: Path) -> Asked:
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    X = pd.DataFrame({"text": ["good day", "bad day", "good night", "so bad"] * 5})
    columns = make_column_transformer((TfidfVectorizer(), "text"))
    return save(make_pipeline(columns, LogisticRegression()).fit(X, [1, 0, 1, 0] * 5), folder, Asked(X.head(4)))


@case
def mixed_pipeline(folder: Path) -> Asked:
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = seed()
    X = pd.DataFrame({"x": rng.normal(size=60), "city": ["Rome", "Oslo", "Bern"] * 20, "rooms": [1, 2, 3, 4] * 15})
    X.loc[::7, "x"] = float("nan")
    columns = make_column_transformer((OneHotEncoder(), ["city"]), (SimpleImputer(), ["x", "rooms"]))
    model = make_pipeline(columns, GradientBoostingRegressor(random_state=0)).fit(X, X["rooms"] * 2.5)
    return save(model, folder, Asked(X.head(8)))


@case
def clusters(folder: Path) -> Asked:
    from sklearn.cluster import KMeans

    X = numbers()
    return save(KMeans(3, n_init=1, random_state=0).fit(X), folder, Asked(X.head(5)))


@case
def outliers(folder: Path) -> Asked:
    from sklearn.ensemble import IsolationForest

    X = numbers()
    return save(IsolationForest(n_estimators=5, random_state=0).fit(X), folder, Asked(X.head(5)))


@case
def grid_search(folder: Path) -> Asked:
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    X = numbers()
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}, cv=2)
    return save(search.fit(X, classes(X)), folder, Asked(X.head(5)))


@case
def integer_columns(folder: Path) -> Asked:
    from sklearn.tree import DecisionTreeRegressor

    X = (numbers() * 10).astype("int64")
    return save(DecisionTreeRegressor(random_state=0).fit(X, X["a"]), folder, Asked(X.head(3)))


@case
def single_precision(folder: Path) -> Asked:
    from sklearn.linear_model import LinearRegression

    X = numbers().astype("float32")
    return save(LinearRegression().fit(X, X["a"]), folder, Asked(X.head(3)))


@case
def unsigned_one_column(folder: Path) -> Asked:
    """No signature: the example says that it is a table."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    X = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    model = make_pipeline(make_column_transformer(("passthrough", ["x"])), LinearRegression()).fit(X, [2.0, 4.0, 6.0])
    return save(model, folder, Asked(X), signed=False, signature=False, input_example=X)


@case
def unsigned_array(folder: Path) -> Asked:
    from sklearn.linear_model import Ridge

    X = numbers().to_numpy()
    model = Ridge().fit(X, X.sum(axis=1))
    return save(model, folder, Asked(X[:3]), signed=False, signature=False, input_example=X[:3])
