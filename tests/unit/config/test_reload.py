"""What the table of keys says of a reload is what the core does about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint.config.fields import POOL, ROOT, SOCKET
from entrypoint.config.kinds import Section
from entrypoint.core.events import SpecChanged
from entrypoint.core.step import new_master, step

if TYPE_CHECKING:
    from pathlib import Path

    from entrypoint.config.kinds import Field
    from tests.unit.config.conftest import Load

# A value of each key that is another than the base's.
POOLS = {
    "command": "[b]", "workers": "2", "env": "{A: b}", "env_from": "[FOLDER/app.env]", "cwd": "/tmp", "user": "12345",
    "group": "12345", "umask": "'077'", "nice": "1", "rlimits": "{core: 1}", "oom_score_adj": "5", "sockets": "[s]",
    "after": "[other]", "critical": "false", "ready": "{after: 1s}", "boot_timeout": "50s",
    "heartbeat": "{abort_signal: INT}", "liveness": "{exec: ['true']}", "stop": "{timeout: 3s}",
    "lifecycle": "{pre_stop: ['true']}", "restart": "{give_up_after: 9}", "rollout": "{max_surge: 2}",
    "min_ready_workers": "50%", "output": "json",
}  # fmt: skip
SOCKETS = {"bind": "':8001'", "backlog": "7", "reuse_port": "true", "mode": "'600'", "owner": "'0'"}
MASTER = {
    "init": "[{name: i, command: [a]}]", "shutdown": "{grace_period: 90s}", "control": "{enabled: false}",
    "reload": "{watch: true}", "signals": "{USR1: reload}", "observer": "{bind: ':9999'}", "log": "{format: json}",
}  # fmt: skip


def effect(config: Load, before: str, after: str) -> str:
    """What becomes of a master that runs by the one when it is told of the other."""
    m = new_master(config(before).spec)
    first = {name: pool.template for name, pool in m.pools.items()}
    orders = step(m, SpecChanged(config(after).spec), 1.0)
    if any(getattr(order, "event", "") == "reload_incomplete" for order in orders):
        return "restart"
    return "live" if all(pool.wanted.same(first[name]) for name, pool in m.pools.items()) else "roll"


def below(field: Field) -> str:
    """What a reload does about a change of what is below it, where that is not the same for all."""
    inner = field.kind.fields.values() if isinstance(field.kind, Section) else ()
    return next((each.reload for each in inner if each.reload != "live"), field.reload)


def test_every_key_has_another_value_here() -> None:
    assert set(POOLS) == set(POOL.fields)
    assert set(SOCKETS) == set(SOCKET.fields)
    assert set(MASTER) | {"pools", "sockets"} == set(ROOT.fields)


@pytest.mark.parametrize("key", POOLS)
def test_a_key_of_a_pool(config: Load, key: str, tmp_path: Path) -> None:
    (tmp_path / "app.env").touch()
    base = "pools: {{other: {{command: [a]}}, web: {{{}}}}}\nsockets: {{s: {{bind: ':8000'}}}}\n"
    command = "" if key == "command" else "command: [a], "
    after = base.format(f"{command}{key}: {POOLS[key]}".replace("FOLDER", str(tmp_path)))
    assert effect(config, base.format("command: [a]"), after) == POOL.fields[key].reload


@pytest.mark.parametrize("key", SOCKETS)
def test_a_key_of_a_socket(config: Load, key: str) -> None:
    bind = "unix:/run/s" if key in ("mode", "owner") else ":8000"
    base = "pools: {{web: {{command: [a], sockets: [s]}}}}\nsockets: {{s: {{{}}}}}\n"
    rest = "" if key == "bind" else f"bind: '{bind}', "
    after = base.format(f"{rest}{key}: {SOCKETS[key]}")
    assert effect(config, base.format(f"bind: '{bind}'"), after) == SOCKET.fields[key].reload


@pytest.mark.parametrize("key", MASTER)
def test_a_key_of_the_master(config: Load, key: str) -> None:
    base = "pools: {web: {command: [a]}}\n"
    assert effect(config, base, f"{base}{key}: {MASTER[key]}\n") == below(ROOT.fields[key])


def test_keys_that_differ_from_what_is_around_them(config: Load) -> None:
    base = "pools: {web: {command: [a]}}\n"
    heartbeat, log = POOL.fields["heartbeat"], ROOT.fields["log"]
    assert (
        below(heartbeat) == effect(config, base, "pools: {web: {command: [a], heartbeat: {timeout: 9s}}}\n") == "roll"
    )
    assert log.reload == effect(config, base, f"{base}log: {{level: debug}}\n") == "live"
