"""Reading the configuration, at the start and again."""
