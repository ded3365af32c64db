"""Serving from a user's own script."""
