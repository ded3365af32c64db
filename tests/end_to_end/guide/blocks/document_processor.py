from modelhub.serving import ImageModelService, ModelServer
import argparse
import logging
import pandas as pd

# Configure logging
logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("document.processor")

class DocumentProcessor(ImageModelService):
    def __init__(self, name, run_uri):
        super().__init__(name, run_uri)

    def predict(self, request, headers=None):
        if not self.ready:
            return {"statusCode": 503, "message": "Model not loaded"}

        try:
            # Process PDF if provided
            pdf_file = request.get("pdf_file")
            images = request.get("images", [])

            if pdf_file:
                logger.info("Processing PDF input")
                # Process PDF to images
                from pdf2image import convert_from_bytes
                pdf_images = convert_from_bytes(pdf_file)
                logger.info(f"Converted PDF to {len(pdf_images)} images")
                images.extend(pdf_images)

            if not images:
                return {"statusCode": 400, "message": "No images or PDF provided"}

            # Process images to binary format for model
            img_binary_list = self._process_images(images)

            # Create dataframe for prediction
            df = pd.DataFrame({"image": img_binary_list})

            # Get prediction from model
            prediction = self.loaded_model.predict(df)

            # Format the results
            return {
                "statusCode": 200,
                "data": self._format_results(prediction)
            }

        except Exception as e:
            logger.error(f"Error in prediction: {str(e)}")
            return {"statusCode": 500, "message": f"Prediction error: {str(e)}"}

    def _process_images(self, images):
        # Implementation of image processing
        # ...
        return processed_images

    def _format_results(self, prediction):
        # Implementation of result formatting
        # ...
        return formatted_results

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name", type=str, required=True)
    parser.add_argument("--run", type=str, required=True)
    args = parser.parse_args()

    model = DocumentProcessor(args.model_name, args.run)
    model.load()
    ModelServer().start([model])

if __name__ == "__main__":
    main()
