"""The termination message, which Kubernetes shows as the reason of a container's end."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` would cost PID 1 memory
if TYPE_CHECKING:
    from typing import Any

MAX_MESSAGE = 4096  # bytes; what the kubelet reads


def write(path: str, fields: dict[str, Any]) -> None:
    """Write the message as JSON into the file that the platform made; without that file there is nobody to read it.

    Never raises and never blocks: the file may be anything.
    """
    import json

    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    data = text.encode("utf-8", "backslashreplace")
    while len(data) > MAX_MESSAGE and fields.get("last_output"):
        fields = {**fields, "last_output": fields["last_output"][1:]}
        data = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    while len(data) > MAX_MESSAGE and "error" in fields:
        fields = {**fields, "error": str(fields["error"])[: max(0, len(str(fields["error"])) // 2 - 1)]}
        if not fields["error"]:
            del fields["error"]
        data = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, data[:MAX_MESSAGE])
    except OSError:
        pass
    finally:
        os.close(fd)
