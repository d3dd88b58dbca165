"""The commands `check` and `schema`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from entrypoint.cli import check, schema
from entrypoint.config.schema import json_schema

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "pools:\n  web: {command: [a, 'no'], env: {SECRET: hunter2}}\nsockets: {s: {bind: ':80'}}\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ENTRYPOINT_CONFIG", "WEB_CONCURRENCY", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


def test_a_good_one(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["-c", str(file)]) == 0
    out, err = capsys.readouterr()
    resolved = yaml.safe_load(out)
    assert resolved["pools"]["web"]["command"] == ["a", "no"]
    assert resolved["pools"]["web"]["env"] == {"SECRET": "***"}
    assert resolved["shutdown"]["drain_delay"] == "0s"
    assert "hunter2" not in out
    assert "&id" not in out
    assert err == "entrypoint: warning: socket s is used by no pool\n"


def test_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["-c", str(file), "--json", "--set", "pools.web.workers=3", "--set", "log.level=debug"]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert (resolved["pools"]["web"]["workers"], resolved["log"]["level"]) == (3, "debug")


def test_a_bad_one(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("pools:\n  web: {comand: [a]}\n")
    lines = [
        f"cannot load {file}:2: pools.web.comand: unknown key (did you mean command?)",
        f"cannot load {file}:2: pools.web: command is missing",
    ]
    assert check.main(["-c", str(file)]) == 78
    out, err = capsys.readouterr()
    assert (out, err) == ("", "".join(f"entrypoint: {line}\n" for line in lines))
    assert check.main(["-c", str(file), "--json"]) == 78
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"errors": lines}, "")


def test_the_grace_period(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["-c", str(file), "--grace-period", "22s"]) == 0
    assert check.main(["-c", str(file), "--grace-period", "21s"]) == 78
    assert "stopping can take 22s" in capsys.readouterr().err


def test_the_file_may_come_from_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENTRYPOINT_CONFIG", str(file))
    assert check.main([]) == 0
    monkeypatch.setenv("ENTRYPOINT_CONFIG", str(file) + ".not")
    assert check.main([]) == 78
    assert capsys.readouterr().err.endswith(f"entrypoint: cannot load {file}.not: no such file or directory\n")


@pytest.mark.parametrize("argv", [["--nope"], ["x"], ["--grace-period", "soon"], ["-c"]])
def test_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(argv) == 2
    assert capsys.readouterr().err.startswith("entrypoint: cannot check: ")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: entrypoint check ")


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main([]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert schema.main(["x"]) == 2
    assert capsys.readouterr().err.startswith("entrypoint: cannot schema: ")
