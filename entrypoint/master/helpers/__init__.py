"""The lines to processes of the master's own."""
