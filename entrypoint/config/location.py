"""Where the configuration is. Imports nothing: it is asked before anything else is known."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` would cost 7 ms before the configuration can be read
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CONFIG = "/etc/entrypoint/config.yaml"


def find_config(option: str | None, environ: Mapping[str, str]) -> str:
    """The configuration file: `-c`, else $ENTRYPOINT_CONFIG, else /etc/entrypoint/config.yaml; it may not exist."""
    return option or environ.get("ENTRYPOINT_CONFIG") or DEFAULT_CONFIG
