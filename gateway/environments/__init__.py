"""Python for a model: found, compared, built."""
