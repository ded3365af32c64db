# Using model registry
MODEL_NAME_REGISTRY="my-model" MODEL_VERSION="2" python -m modelhub.serving.server
