"""`entrypoint check`: the resolved configuration, or every mistake in it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

import yaml

from entrypoint.cli.arguments import Parser, parse
from entrypoint.cli.common import write
from entrypoint.config.errors import ConfigError
from entrypoint.config.load import Request, load
from entrypoint.config.location import find_config
from entrypoint.config.units import parse_duration


def main(argv: list[str]) -> int:
    """Print the resolved configuration on stdout and exit 0, or every error and exit 78."""
    options = parse(_parser(), argv)
    if isinstance(options, int):
        return options
    path = find_config(options.config, os.environ)
    request = Request(
        path, sets=tuple(options.sets), strict_grace=True, grace_period=options.grace_period, streams=True
    )
    try:
        loaded = load(request, os.environ)
    except ConfigError as error:
        if options.json:
            write(json.dumps({"errors": list(error.errors)}, indent=2) + "\n")
        else:
            for line in error.errors:
                print(f"entrypoint: {line}", file=sys.stderr)
        return error.exit_code
    for warning in loaded.warnings:
        print(f"entrypoint: warning: {warning}", file=sys.stderr)
    write(json.dumps(loaded.resolved, indent=2) + "\n" if options.json else _yaml(loaded.resolved))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="entrypoint check", description="Check a configuration and print what it resolves to.")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="- is the standard input; default: $ENTRYPOINT_CONFIG, /etc/entrypoint/config.yaml",
    )
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="PATH=VALUE", help="lay a value over it"
    )
    parser.add_argument("--grace-period", type=_duration, metavar="30s", help="what the platform gives for a shutdown")
    parser.add_argument("--json", action="store_true", help="print JSON, errors included")
    return parser


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text!r}") from None


class _Dumper(yaml.SafeDumper):
    """Writes shared defaults out in full."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the name is PyYAML's
        return True


def _yaml(resolved: dict[str, Any]) -> str:
    text: str = yaml.dump(resolved, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)
    return text
