from modelhub.serving import ModelhubModelService, ModelServiceGroup, ModelServer

# Create model services
extraction_model = ModelhubModelService(
    name="extraction-model",
    run_uri="runs:/abc123/model"
)

classification_model = ModelhubModelService(
    name="classification-model",
    run_uri="runs:/def456/model"
)

# Create a group for convenience
model_group = ModelServiceGroup(models=[extraction_model, classification_model])
model_group.load_models()

# Start the server with both models
ModelServer().start([extraction_model, classification_model])
