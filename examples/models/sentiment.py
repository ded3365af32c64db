"""The model `sentiment`: a text in; its label and the probabilities of both labels out.

An MLflow model from code: MLflow copies this file into the model, and runs it in the model's own process.
"""

import joblib
import mlflow
import pandas as pd


class Sentiment(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.pipeline = joblib.load(context.artifacts["pipeline"])

    def predict(self, context, model_input, params=None):
        probabilities = self.pipeline.predict_proba(model_input["text"])
        table = pd.DataFrame(probabilities, columns=self.pipeline.classes_)
        table.insert(0, "label", self.pipeline.classes_[probabilities.argmax(axis=1)])
        return table


mlflow.models.set_model(Sentiment())
