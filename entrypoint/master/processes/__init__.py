"""From the spawn of a process to the last of its group."""
