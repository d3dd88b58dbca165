"""docs/CONTROL.md says what the commands and the server do."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from entrypoint.cli.arguments import parser
from entrypoint.commands import COMMANDS, REQUESTS
from entrypoint.master.control import server
from tests.control.test_status import STATUS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs/CONTROL.md").read_text()


def test_the_commands_of_the_examples_are_understood(page: str) -> None:
    found = [shlex.split(line) for line in re.findall(r"^(?: {4}|\$ )entrypoint (.*)$", page, re.MULTILINE)]
    assert len(found) >= 4
    for name, *words in found:
        parser(name).parse_args(words)  # exits with 2


def test_the_table_has_every_command_with_its_arguments_and_its_help(page: str) -> None:
    rows = dict(re.findall(r"^\| `(.*?)` \| (.*) \|$", page.partition("### As probes")[0], re.MULTILINE))
    table = {usage.replace("\\|", "|"): told for usage, told in rows.items()}
    asking = {f"{name} {command.arguments}": command.help for name, command in COMMANDS.items() if command.requests}
    assert list(table) == list(asking)
    for usage, told in asking.items():
        assert table[usage].startswith(told), usage


def test_every_request_of_the_page_is_one(page: str) -> None:
    found = [server.parse(text.encode()) for text in re.findall(r'`(\{"ask":[^`]*\})`', page)]
    assert {request["ask"] for request in found} == set(REQUESTS)


def test_the_json_of_the_page_is_json(page: str) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [next(iter(json.loads(block))) for block in blocks] == ["ok", "done"]


def test_every_field_of_the_status_is_described(page: str) -> None:
    pool = STATUS["pools"]["web"]
    names = [*STATUS, *pool, *pool["workers"][0]]
    names += [f"config.{key}" for key in STATUS["config"]] + [f"rollout.{key}" for key in pool["rollout"]]
    for name in set(names) - {"config"}:
        assert f"`{name}`" in page, name
