"""The model `forecast`: a series of values in, the next ones out, by Holt's linear smoothing.

It takes parameters: `horizon` (how many values), `level` and `trend` (how fast the past is forgotten, 0 to 1).
"""

import mlflow
import pandas as pd


class Forecast(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        values = model_input["value"].tolist()
        if len(values) < 2:
            raise ValueError("a forecast needs at least two values")
        level, slope = values[0], values[1] - values[0]
        for value in values[1:]:
            before = level
            level = params["level"] * value + (1 - params["level"]) * (level + slope)
            slope = params["trend"] * (level - before) + (1 - params["trend"]) * slope
        steps = range(1, params["horizon"] + 1)
        return pd.DataFrame({"step": list(steps), "value": [level + step * slope for step in steps]})


mlflow.models.set_model(Forecast())
