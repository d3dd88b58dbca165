"""The monitor: a helper process of the master that looks at workers from outside and follows the configuration file."""
