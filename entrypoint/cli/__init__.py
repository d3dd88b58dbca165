"""One small module a command; nothing heavy is imported on the way to `run`."""
