"""`entrypoint check`: the resolved configuration, or every mistake in it."""

from __future__ import annotations

import json
import os
from typing import Any

import yaml

from entrypoint.cli.arguments import parse
from entrypoint.cli.common import complain, tell, write
from entrypoint.config.errors import ConfigError
from entrypoint.config.load import Request, load
from entrypoint.config.location import find_config


def main(argv: list[str]) -> int:
    """Print the resolved configuration on stdout and exit 0, or every error and exit 78. Raises OutputError."""
    options = parse("check", argv)
    if isinstance(options, int):
        return options
    path = find_config(options.config, os.environ)
    request = Request(path, sets=tuple(options.set), strict_grace=True, grace_period=options.grace_period, streams=True)
    try:
        loaded = load(request, os.environ)
    except ConfigError as error:
        if options.json:
            tell(json.dumps({"errors": list(error.errors)}, indent=2) + "\n")  # the exit code says it, too
        else:
            complain("\n".join(error.errors))
        return error.exit_code
    for warning in loaded.warnings:
        complain(f"warning: {warning}")
    write(json.dumps(loaded.resolved, indent=2) + "\n" if options.json else _yaml(loaded.resolved))
    return 0


class _Dumper(yaml.SafeDumper):
    """Writes shared defaults out in full."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the name is PyYAML's
        return True


def _yaml(resolved: dict[str, Any]) -> str:
    text: str = yaml.dump(resolved, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)
    return text
