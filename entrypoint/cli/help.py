"""`entrypoint help`: every command in a line or two, or one with all its options."""

from __future__ import annotations

from entrypoint.cli.arguments import parse, parser
from entrypoint.cli.common import EXIT_USAGE, complain, write
from entrypoint.commands import COMMANDS


def main(argv: list[str]) -> int:
    """Print the help on stdout."""
    options = parse("help", argv)
    if isinstance(options, int):
        return options
    if options.command is None:
        write(overview())
    elif options.command in COMMANDS:
        write(parser(options.command).format_help())
    else:
        complain(f"cannot help: no such command: {options.command!r}; `entrypoint help` lists them")
        return EXIT_USAGE
    return 0


def overview() -> str:
    """Every command and what it does."""
    lines = ["usage: entrypoint COMMAND [ARGUMENT]...", ""]
    for name, command in COMMANDS.items():
        lines += [f"  entrypoint {name} {command.arguments}".rstrip(), f"      {command.help}"]
    asking = ", ".join(name for name, command in COMMANDS.items() if command.requests)
    lines += ["", asking, "speak to a running master. `entrypoint help COMMAND` tells what each option does."]
    return "".join(f"{line}\n" for line in lines)
