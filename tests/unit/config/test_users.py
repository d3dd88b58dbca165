"""Who a worker runs as, and whether the master may do that."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from entrypoint.config.spec import Credentials
from entrypoint.config.users import credentials, find_group, find_user, missing_capabilities

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Errors, Load

KILL, SETGID, SETUID = 1 << 5, 1 << 6, 1 << 7
OTHER = Credentials(os.geteuid() + 1, 1, (1,))


def other_user() -> pwd.struct_passwd:
    """A user with an entry that is not the one that runs the tests."""
    return next(entry for entry in pwd.getpwall() if entry.pw_uid != os.geteuid() and entry.pw_uid < 65536)


def test_a_user_by_name_or_number() -> None:
    entry = other_user()
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    expected = Credentials(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)
    assert credentials(entry.pw_name, None) == expected
    assert credentials(str(entry.pw_uid), None) == expected


def test_a_group_beside_a_user() -> None:
    entry = other_user()
    who = credentials(entry.pw_name, "54321")
    assert who is not None
    assert (who.uid, who.gid) == (entry.pw_uid, 54321)
    assert 54321 in who.groups


def test_a_number_without_an_entry() -> None:
    assert credentials("3999999999", None) == Credentials(3999999999, os.getegid(), (os.getegid(),), "", "/")
    assert credentials("3999999999", "7") == Credentials(3999999999, 7, (7,), "", "/")


def test_a_group_alone() -> None:
    assert credentials(None, "54321") == Credentials(os.geteuid(), 54321, (54321,))


def test_who_we_are_already() -> None:
    assert credentials(None, None) is None
    assert credentials(None, str(os.getegid())) is None
    assert credentials(str(os.geteuid()), str(os.getegid())) is None


@pytest.mark.parametrize("text", ["nobody-here", "-1", "4294967295", "99999999999", "", "a\0b", "²", "\udcff"])
def test_nobody(text: str) -> None:
    with pytest.raises(ValueError, match="no such user"):
        find_user(text)
    with pytest.raises(ValueError, match="no such group"):
        find_group(text)


def status(root: Path, effective: int) -> str:
    path = root / "proc/self/status"
    path.parent.mkdir(parents=True)
    path.write_text(f"Name:\tx\nCapPrm:\t{2**40:016x}\nCapEff:\t{effective:016x}\nCapBnd:\t{2**40:016x}\n")
    return str(root)


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        (KILL | SETGID | SETUID, ()),
        (SETGID | SETUID, ("CAP_KILL",)),
        (KILL, ("CAP_SETGID", "CAP_SETUID")),
        (0, ("CAP_KILL", "CAP_SETGID", "CAP_SETUID")),
    ],
)
def test_capabilities_for_another_user(tmp_path: Path, effective: int, missing: tuple[str, ...]) -> None:
    assert missing_capabilities(OTHER, status(tmp_path, effective)) == missing


def test_capabilities_for_another_group(tmp_path: Path) -> None:
    who = Credentials(os.geteuid(), 54321, (54321,))
    root = status(tmp_path, KILL | SETUID)
    assert missing_capabilities(who, root) == ("CAP_SETGID",)


def test_without_proc_only_root_is_trusted(tmp_path: Path) -> None:
    assert bool(missing_capabilities(OTHER, str(tmp_path))) == (os.geteuid() != 0)


@pytest.mark.parametrize("text", ["user: '12345:54321'", "user: 12345:54321", "user: 12345, group: 54321"])
def test_a_user_and_a_group_as_docker_writes_them(config: Load, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("entrypoint.config.users.missing_capabilities", lambda _: ())
    process = config(f"pools: {{web: {{command: [a], {text}}}}}").spec.pools[0].process
    assert process.credentials == Credentials(12345, 54321, (54321,), "", "/")


def test_a_wrong_user_and_group(errors: Errors) -> None:
    text = """pools:
  a: {command: [a], user: "1000:1000", group: "1000"}
  b: {command: [a], user: "1000:nobody-here"}
  c: {command: [a], user: ":1000"}
"""
    assert errors(text) == [
        "config.yaml:2: pools.a.user: it has a group, and there is `group` as well: '1000:1000'",
        "config.yaml:3: pools.b.user: no such group: '1000:nobody-here'",
        "config.yaml:4: pools.c.user: no such user: ':1000'",
    ]


def test_in_a_configuration(config: Load, errors: Errors) -> None:
    text = "pools: {web: {command: [a], user: 12345, group: 54321}}"
    if missing_capabilities(Credentials(12345, 54321, ())):
        (line,) = errors(text)
        assert line.startswith("config.yaml:1: pools.web.user: the master lacks CAP_")
    else:
        process = config(text).spec.pools[0].process
        assert process.credentials == Credentials(12345, 54321, (54321,), "", "/")


def test_a_master_that_may_not(errors: Errors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrypoint.config.users.missing_capabilities", lambda _: ("CAP_KILL", "CAP_SETUID"))
    assert errors("pools: {web: {command: [a], user: 12345}, b: {command: [a], group: 54321}}") == [
        "config.yaml:1: pools.web.user: the master lacks CAP_KILL, CAP_SETUID for another user: '12345'",
        "config.yaml:1: pools.b.group: the master lacks CAP_KILL, CAP_SETUID for another group: '54321'",
    ]
