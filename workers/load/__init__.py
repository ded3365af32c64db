"""A model directory to a model that can be served."""
