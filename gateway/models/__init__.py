"""The models: versions, groups, rolls, memory, and the configuration that they come from."""
