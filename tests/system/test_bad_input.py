"""What a user can get wrong: a clear line for each mistake, the right code, at once, and nothing started."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Master, Start

WORKER = "command: [touch, started]"


def refused(master: Master, code: int, lines: int = 1) -> list[str]:
    assert master.wait(timeout=5) == code, master.story()
    assert master.said == []
    assert master.events == []
    errors = master.errors.splitlines()
    assert len(errors) >= lines
    for line in errors:
        assert line.startswith("entrypoint: cannot "), master.errors
    return errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("just text", "a mapping expected"),
        ("pools: [", ":1"),
        ("pools: {web: {command: [x]}", ":1"),
        ("\tpools: 1", ":1"),
        ("a: &a [*a]\npools: 1", "cannot load"),
        ("pools: 3", "pools"),
        ("pools: {}", "pools"),
        ("pools: {web: {command: []}}", "command"),
        ("pools: {web: {command: ['']}}", "command"),
        ("pools: {web: {command: 3}}", "command"),
        ("pools: {web: {}}", "command"),
        (f"pools: {{web: {{{WORKER}, workers: -1}}}}", "workers"),
        (f"pools: {{web: {{{WORKER}, workers: 1000000000}}}}", "workers"),
        (f"pools: {{web: {{{WORKER}, workers: many}}}}", "workers"),
        (f"pools: {{web: {{{WORKER}, wrokers: 1}}}}", "workers"),
        (f"pools: {{web: {{{WORKER}}}, web: {{{WORKER}}}}}", "web"),
        (f"pools: {{Web: {{{WORKER}}}}}", "Web"),
        (f"pools: {{web: {{{WORKER}, sockets: [http]}}}}", "http"),
        (f"pools: {{web: {{{WORKER}, after: [web]}}}}", "after"),
        (f"pools: {{a: {{{WORKER}, after: [b]}}, b: {{{WORKER}, after: [a]}}}}", "after"),
        (f"pools: {{web: {{{WORKER}, after: [nothing]}}}}", "nothing"),
        (f"pools: {{web: {{{WORKER}, user: no-such-user}}}}", "no-such-user"),
        (f"pools: {{web: {{{WORKER}, env_from: [/no/such/file]}}}}", "/no/such/file"),
        (f"pools: {{web: {{{WORKER}, env_from: [/etc]}}}}", "/etc"),
        (f"pools: {{web: {{{WORKER}, env: {{A: '${{NOT_SET_ANYWHERE}}'}}}}}}", "NOT_SET_ANYWHERE"),
        (f"pools: {{web: {{{WORKER}, stop: {{timeout: soon}}}}}}", "timeout"),
        (f"pools: {{web: {{{WORKER}, stop: {{signal: NONSENSE}}}}}}", "signal"),
        (f"pools: {{web: {{{WORKER}, recycle: {{max_lifetime: 1h}}}}}}", "not supported yet"),
        (f"pools: {{web: {{{WORKER}}}}}\nsockets: {{a: {{bind: 'nonsense'}}}}", "bind"),
        (f"pools: {{web: {{{WORKER}}}}}\nsockets: {{a: {{bind: ':99999'}}}}", "bind"),
    ],
)
def test_a_configuration_that_cannot_be_used(start: Start, tmp_path: Path, text: str, expected: str) -> None:
    errors = refused(start(text), 78)
    assert expected in "\n".join(errors)
    assert not (tmp_path / "started").exists()


def test_every_mistake_is_told_at_once(start: Start) -> None:
    master = start(
        "pools:\n  web:\n    command: []\n    workers: -1\n    nonsense: 1\n"
        "  api:\n    command: [x]\n    sockets: [http]\n"
    )
    errors = refused(master, 78, lines=4)
    for line, what in ((3, "command"), (4, "workers"), (5, "nonsense"), (8, "http")):
        assert any(f"config.yaml:{line}:" in e and what in e for e in errors), errors


def test_a_file_that_is_missing(start: Start) -> None:
    assert refused(start(args=["-c", "/no/such/file.yaml"]), 78) == [
        "entrypoint: cannot load /no/such/file.yaml: no such file or directory"
    ]


def test_a_folder_in_place_of_a_file(start: Start, tmp_path: Path) -> None:
    assert refused(start(args=["-c", str(tmp_path)]), 78) == [f"entrypoint: cannot load {tmp_path}: it is a directory"]


def test_a_fifo_in_place_of_a_file(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    refused(start(args=["-c", str(tmp_path / "fifo")]), 78)


def test_a_file_that_may_not_be_read(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "private.yaml"
    path.write_text("pools: {}")
    path.chmod(0)
    wrap = ("setpriv", "--reuid", "1234567", "--regid", "1234567", "--clear-groups")
    assert refused(start(args=["-c", str(path)], wrap=wrap, cwd="/"), 78) == [
        f"entrypoint: cannot load {path}: permission denied"
    ]


def test_a_configuration_of_100_000_lines(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text("pools:\n" + "".join(f"  p{n}: {{x: 1}}\n" for n in range(100_000)))
    master = start(args=["-c", str(path)])
    refused(master, 78)


def test_binary_junk(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "junk.yaml"
    path.write_bytes(bytes(range(256)) * 100)
    refused(start(args=["-c", str(path)]), 78)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--nonsense"], 2),
        (["-c"], 2),
        (["--workers", "many", "--", "true"], 2),
        (["--workers", "0", "--", "true"], 2),
        (["--workers", "1000000000", "--", "true"], 2),
        (["--init"], 2),
        (["--init", "-c", "x.yaml", "true"], 2),
        (["--init", "--", ""], 78),
        (["--set", "nonsense", "-c", "config.yaml"], 78),
        (["--set", "pools.web.workers=many", "-c", "config.yaml"], 78),
        (["--set", "pools.web.nonsense=1", "-c", "config.yaml"], 78),
    ],
)
def test_a_command_line_that_cannot_be_used(start: Start, tmp_path: Path, words: list[str], code: int) -> None:
    (tmp_path / "config.yaml").write_text(f"pools: {{web: {{{WORKER}}}}}")
    refused(start(args=words), code)
    assert not (tmp_path / "started").exists()


def test_an_overlay_from_the_environment_that_names_nothing(start: Start) -> None:
    errors = refused(start(f"pools: {{web: {{{WORKER}}}}}", env={"ENTRYPOINT_POOLS__WEB__NONSENSE": "1"}), 78)
    assert "ENTRYPOINT_POOLS__WEB__NONSENSE" in errors[0]


def test_no_configuration_and_no_command(start: Start) -> None:
    master = start(args=[], env={"ENTRYPOINT_CONFIG": "/no/such/file"})
    assert refused(master, 78) == ["entrypoint: cannot load /no/such/file: no such file or directory"]


LOCALES = [
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX"},
]


@pytest.mark.parametrize("locale", LOCALES, ids=" ".join)
def test_no_locale_changes_what_a_configuration_means(
    start: Start, entrypoint: str, open_path: Path, locale: dict[str, str]
) -> None:
    text = "pools: {web: {command: [sh, -c, 'echo grüße $A; exec sleep 1000'], env: {A: größer}}}\n"
    master = start(text, env=locale)
    assert master.wait_for_line("^gr")[0]
    assert "grüße größer" in master.said
    assert master.stop()[0] == 0
    command = [entrypoint, "check", "-c", f"{open_path}/config.yaml"]
    env = {"PATH": os.environ["PATH"], **locale}
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "gr\\xFC\\xDFe" in done.stdout or "grüße" in done.stdout


@pytest.mark.parametrize("words", [["check", "-c", "CONFIG"], ["schema"]], ids=lambda words: words[0])
def test_what_reads_a_configuration_runs_nothing_of_the_environment(
    entrypoint: str, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('not the parser')\n")
    (tmp_path / "json.py").write_text("raise SystemExit('not the printer')\n")
    (tmp_path / "config.yaml").write_text(f"pools: {{web: {{{WORKER}}}}}\n")
    command = [entrypoint, *(str(tmp_path / "config.yaml") if word == "CONFIG" else word for word in words)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
