"""`entrypoint schema`: the JSON Schema of the configuration, for editors and charts."""

from __future__ import annotations

import json

from entrypoint.cli.check import EXIT_USAGE, Parser, write
from entrypoint.config.schema import json_schema


def main(argv: list[str]) -> int:
    """Print the schema on stdout."""
    parser = Parser(prog="entrypoint schema", description="Print the JSON Schema (draft 2020-12) of the configuration.")
    try:
        parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed why; the caller owns the exit
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    write(json.dumps(json_schema(), indent=2) + "\n")
    return 0
