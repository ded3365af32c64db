from modelhub.serving import ModelhubModelService, ModelServer
import argparse
import logging

# Configure logging
logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("text.classifier")

class TextClassifier(ModelhubModelService):
    def __init__(self, name, run_uri):
        super().__init__(name, run_uri, "pyfunc")
        self.labels = ["spam", "ham"]

    def predict_text(self, request, headers=None):
        text = request.get("text")
        if not text:
            return {"statusCode": 400, "message": "Missing text input"}

        logger.info(f"Processing text: {text[:50]}...")

        # Make prediction
        prediction = self.loaded_model.predict(text)

        # Post-process result
        if isinstance(prediction, (int, float)):
            label = self.labels[min(int(prediction), len(self.labels) - 1)]
        else:
            label = str(prediction)

        return {
            "statusCode": 200,
            "data": {
                "label": label,
                "original_prediction": prediction
            }
        }

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name", type=str, required=True)
    parser.add_argument("--run", type=str, required=True)
    args = parser.parse_args()

    model = TextClassifier(args.model_name, args.run)
    model.load()
    ModelServer().start([model])

if __name__ == "__main__":
    main()
