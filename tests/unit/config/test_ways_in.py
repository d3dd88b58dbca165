"""Where a configuration may come from, and what is said to one text in place of a list."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
import yaml

from entrypoint.config.load import ConfigError, Request, load
from entrypoint.config.location import absolute

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Errors


@pytest.mark.parametrize(
    ("line", "write"),
    [
        ("command: gunicorn app:app -w 4", '[gunicorn, "app:app", "-w", "4"]'),
        ("command: sh -c 'echo \"hi\"'", '[sh, "-c", "echo \\"hi\\""]'),
        ("command: migrate && run", '[sh, "-c", "migrate && run"]'),
        ("command: echo $HOME", '[sh, "-c", "echo $HOME"]'),
        ("command: run --port ${PORT}", '[run, "--port", "${PORT}"]'),
        ("{command: [a], sockets: http}", "[http]"),
        ("{command: [a], env_from: /run/a b}", '["/run/a b"]'),
    ],
)
def test_one_text_in_place_of_a_list(errors: Errors, line: str, write: str) -> None:
    (message,) = errors(f"pools:\n  web:\n    {line}\nsockets: {{http: {{bind: ':80'}}}}\n", {"PORT": "80"})
    assert message.endswith(f" expected, not a single value: write {write}")
    assert yaml.safe_load(write)


def test_one_text_of_a_variable_in_place_of_a_list_is_not_repeated(errors: Errors) -> None:
    (message,) = errors("pools: {web: {command: [a]}}", {"ENTRYPOINT_POOLS__WEB__COMMAND": "run --token hunter2"})
    assert message.endswith("list of words expected, not a single value")


def test_a_pipe_is_read_where_that_is_wanted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    def write() -> None:
        (tmp_path / "fifo").write_text("pools: {web: {command: [a]}}\nreload: {watch: true}\n")

    writer = threading.Thread(target=write)
    writer.start()
    loaded = load(Request(str(tmp_path / "fifo"), streams=True), {})
    writer.join()
    assert loaded.spec.pools[0].process.argv == ("a",)
    assert (
        "reload.watch: there is no file to follow: the configuration came from standard input or a pipe"
        in loaded.warnings
    )
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load(Request("/dev/zero", streams=True), {})


def test_where_a_relative_path_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "current").symlink_to("one")
    monkeypatch.chdir(tmp_path / "current")
    current = str(tmp_path / "current")
    assert absolute("c.yaml", {"PWD": current}) == f"{current}/c.yaml"
    for pwd in ({"OLDPWD": current}, {"PWD": "current"}, {"PWD": "/"}, {"PWD": "/nowhere"}):
        assert absolute("../c.yaml", pwd) == f"{tmp_path}/one/../c.yaml"
    for path in ("/c.yaml", "-", "/dev/stdin"):
        assert absolute(path, {"PWD": current}) == path
