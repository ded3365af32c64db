from modelhub.serving import AutoModelPredictor, ModelServer

# Create a predictor that automatically detects model type
predictor = AutoModelPredictor(
    name="my-model",
    model_uri="runs:/abc123/model"  # or use model_name="registered-model"
)

# Create and start server
server = ModelServer(models=[predictor])
server.start()  # Serves on http://localhost:8080
