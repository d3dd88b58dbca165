"""`entrypoint schema`: the JSON Schema of the configuration, for editors and charts."""

from __future__ import annotations

import json

from entrypoint.cli.arguments import Parser, parse
from entrypoint.cli.common import write
from entrypoint.config.schema import json_schema


def main(argv: list[str]) -> int:
    """Print the schema on stdout."""
    parser = Parser(prog="entrypoint schema", description="Print the JSON Schema (draft 2020-12) of the configuration.")
    options = parse(parser, argv)
    if isinstance(options, int):
        return options
    write(json.dumps(json_schema(), indent=2) + "\n")
    return 0
