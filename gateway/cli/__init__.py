"""The command `modelhub`, and what it shows."""
