"""Linux, memory, timeouts: what knows nothing of models."""
