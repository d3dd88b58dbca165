"""The process that makes lines of the log out of what workers write."""
