"""Measures entrypoint side by side with its peers: `python -m bench` from the root of the project."""
