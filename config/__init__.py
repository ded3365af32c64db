"""The configuration: YAML, environment variables and flags become the typed, frozen `Settings`; see `load.py`."""
