# Using model run ID
MODEL_URI="runs:/abc123/model" python -m modelhub.serving.server
