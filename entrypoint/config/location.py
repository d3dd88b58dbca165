"""Where the configuration is. Imports next to nothing: asked before anything else is known."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` would cost 7 ms before the configuration can be read
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONFIG = "/etc/entrypoint/config.yaml"
STDIN = ("-", "/dev/stdin")  # names of the standard input


def find_config(option: str | None, environ: Mapping[str, str]) -> str:
    """The configuration file: `-c`, else $ENTRYPOINT_CONFIG, else /etc/entrypoint/config.yaml; it may not exist."""
    return option or environ.get("ENTRYPOINT_CONFIG") or DEFAULT_CONFIG


def absolute(path: str, environ: Mapping[str, str]) -> str:
    """The path from the root, as a shell would say it: through the links by which the working directory was entered.

    So a file of a directory `current`, a link that each deployment turns, is the new one's once it is turned.
    """
    if path.startswith("/") or path in STDIN:
        return path
    folder = environ.get("PWD", "")
    try:
        if folder.startswith("/") and os.path.samefile(folder, "."):
            return os.path.join(folder, path)
    except OSError:  # it is of another time or place
        pass
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:  # the working directory is gone: nothing in it can be read either
        return path


def inherited(path: str) -> bool:
    """Whether this is a file or a pipe that whoever started us has opened."""
    return path in STDIN or path.startswith(("/dev/fd/", "/proc/self/fd/"))
