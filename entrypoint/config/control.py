"""Where the control socket is. Imports next to nothing: a probe asks every few seconds."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False  # `typing` would cost a probe 3 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

CONTROL_NAME = "control.sock"
CONTROL_VARIABLE = "ENTRYPOINT_CONTROL__SOCKET"


def find_control(configured: str, environ: Mapping[str, str]) -> list[str]:
    """Where the control socket may be, best first; both the master and its clients look there.

    `configured` is a path, or `auto` (the same as empty) for the places that need no configuration.
    """
    if configured not in ("", "auto"):
        return [configured]
    folders = ["/run/entrypoint"]
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):  # a relative one is to be ignored, says its specification
        folders.append(f"{runtime.rstrip('/')}/entrypoint")
    folders.append(f"/dev/shm/entrypoint-{os.geteuid()}")  # noqa: S108 - the server checks whose folder it is
    return [f"{folder}/{CONTROL_NAME}" for folder in folders]


def named_control(option: str | None, environ: Mapping[str, str]) -> str:
    """Where somebody has said that the control socket is; empty when nobody has.

    By `--socket`, else $ENTRYPOINT_CONTROL__SOCKET, else in the configuration that $ENTRYPOINT_CONFIG names.
    """
    if option:
        return option
    said = next((value for name, value in environ.items() if name.upper() == CONTROL_VARIABLE), "")
    if not said and (config := environ.get("ENTRYPOINT_CONFIG", "")):
        said = configured_control(config, environ)
    return said if said.startswith("/") else ""


def configured_control(config: str, environ: Mapping[str, str]) -> str:
    """The path of `control.socket` in a configuration file; empty when it has none, or cannot be read."""
    from entrypoint.config.envfiles import EnvFileError, read_bytes

    try:
        content = read_bytes(config)
    except EnvFileError:
        return ""
    if b"socket" not in content.replace(b"sockets", b""):  # most have none, and a YAML parser takes its time
        return ""
    from entrypoint.config.interpolate import interpolate
    from entrypoint.config.tree import TreeError, parse

    try:
        root = parse(content.decode("utf-8-sig"))
        said = interpolate(root.pairs["control"].pairs["socket"].text if root else "", environ)
    except (TreeError, ValueError, KeyError):
        return ""
    return said if said.startswith("/") else ""


def distrust(folder: str, owner: int | None) -> str:
    """Why the control socket may not be in that folder; empty when it may.

    `owner` is the user id whose it has to be; None: anybody's. Only below a directory where everybody may make
    files, such as /tmp, can somebody else have made it first. Raises OSError.
    """
    if not os.stat(os.path.dirname(folder)).st_mode & stat.S_ISVTX:
        return ""
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        return "not a directory"
    if owner not in (None, found.st_uid):
        return f"the folder belongs to uid {found.st_uid}"
    if found.st_mode & 0o022:
        return f"others can write to the folder (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""
