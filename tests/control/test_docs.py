"""docs/CONTROL.md says what the commands and the server do."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from entrypoint.cli import control as commands
from entrypoint.cli import probe
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
        if name != "status":
            commands._parser(name).parse_args(words)


def test_every_command_and_probe_is_described(page: str) -> None:
    for name in (*commands.DESCRIPTIONS, "status"):
        assert f"`{name} " in page or f"`{name}`" in page
    for name in probe.WHAT:
        assert f"`probe {name}`" in page


def test_every_request_of_the_page_is_one(page: str) -> None:
    found = [server.parse(text.encode()) for text in re.findall(r'`(\{"ask":[^`]*\})`', page)]
    assert {request["ask"] for request in found} == set(server.REQUESTS)


def test_the_json_of_the_page_is_json(page: str) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [next(iter(json.loads(block))) for block in blocks] == ["ok", "done"]


def test_every_field_of_the_status_is_described(page: str) -> None:
    pool = STATUS["pools"]["web"]
    names = [*STATUS, *pool, *pool["workers"][0]]
    names += [f"config.{key}" for key in STATUS["config"]] + [f"rollout.{key}" for key in pool["rollout"]]
    for name in set(names) - {"config"}:
        assert f"`{name}`" in page, name
