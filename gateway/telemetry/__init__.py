"""Counters, logs and traces; it knows nobody above."""
