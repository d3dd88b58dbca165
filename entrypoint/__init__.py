"""A PID-1-safe master for pools of workers in containers."""

__version__ = "0.1.0"
