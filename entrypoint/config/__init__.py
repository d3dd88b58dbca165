"""YAML, environment and flags -> a checked `Spec`."""
