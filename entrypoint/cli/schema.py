"""`entrypoint schema`: the JSON Schema of the configuration, for editors and charts."""

from __future__ import annotations

import json

from entrypoint.cli.arguments import parse
from entrypoint.cli.common import write
from entrypoint.config.schema import json_schema


def main(argv: list[str]) -> int:
    """Print the schema on stdout. Raises OutputError."""
    options = parse("schema", argv)
    if isinstance(options, int):
        return options
    write(json.dumps(json_schema(), indent=2) + "\n")
    return 0
