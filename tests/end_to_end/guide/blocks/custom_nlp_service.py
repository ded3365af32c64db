from modelhub.serving import ModelhubModelService
from typing import Dict, Any, Optional

class CustomNLPModelService(ModelhubModelService):
    """Custom NLP model service with preprocessing and postprocessing."""

    def __init__(self, name: str, run_uri: str):
        super().__init__(name, run_uri, "pyfunc")
        self.labels = ["negative", "neutral", "positive"]

    def predict_text(self, request: Dict[str, Any], headers: Optional[Dict[str, str]] = None) -> Dict[str, Any]:
        """Override the text prediction method with custom logic."""
        text = request.get("text", "")

        # Custom preprocessing
        preprocessed_text = self._preprocess(text)

        # Prediction
        prediction = self.loaded_model.predict(preprocessed_text)

        # Custom postprocessing
        result = self._postprocess(prediction)

        return {
            "statusCode": 200,
            "data": result
        }

    def _preprocess(self, text: str) -> str:
        """Custom text preprocessing."""
        # Add your preprocessing steps here
        return text.lower().strip()

    def _postprocess(self, prediction) -> Dict[str, Any]:
        """Custom prediction postprocessing."""
        # Map numerical predictions to labels
        if isinstance(prediction, (int, float)):
            label_idx = min(int(prediction), len(self.labels) - 1)
            label = self.labels[label_idx]
        else:
            label = str(prediction)

        return {
            "prediction": label,
            "confidence": 0.95,  # Example
            "model_version": "v1.0"
        }
