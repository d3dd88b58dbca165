"""What a configuration that cannot be used raises."""

from __future__ import annotations

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h
EXIT_INTERNAL = 70  # EX_SOFTWARE


class ConfigError(Exception):
    """The configuration cannot be used: every mistake as a one-line `cannot X: reason`, and the exit code."""

    def __init__(self, errors: tuple[str, ...], exit_code: int = EXIT_CONFIG) -> None:
        # A key or path may hold anything; a message is one line and cannot steer a terminal.
        errors = tuple(error if error.isprintable() else _printable(error) for error in errors)
        super().__init__(errors, exit_code)  # both, so that it can be pickled
        self.errors = errors
        self.exit_code = exit_code
        self.sha256 = ""  # of the file's content, if it could be read

    def __str__(self) -> str:
        return "\n".join(self.errors)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
