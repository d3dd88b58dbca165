"""The table of a worker's life is total, and the core is pure."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import get_args

import pytest

from entrypoint import core
from entrypoint.core import events as ev
from entrypoint.core import worker
from entrypoint.core.model import STATES
from tests.unit.core.harness import running

PACKAGE = Path(core.__file__).parent
SOURCES = sorted(PACKAGE.glob("*.py"))
# Also what would only be allowed by the rule that everything else of the standard library is pure enough.
BANNED = {"os", "time", "select", "socket", "threading", "subprocess", "random", "signal", "asyncio", "datetime", "sys"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, those for types only and inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module.count(".") == 1)
    return found


def test_every_state_is_crossed_with_everything_that_can_happen() -> None:
    about_a_worker = {e for e in get_args(ev.Event) if "serial" in e._fields}
    happenings = about_a_worker | {worker.DUE, worker.DRAIN, worker.HURRY}
    assert set(worker.TABLE) == {(state, what) for state in STATES for what in happenings}


def test_no_pair_of_the_table_is_written_twice() -> None:
    tree = ast.parse((PACKAGE / "worker.py").read_text())
    table = next(n for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "TABLE")
    assert isinstance(table.value, ast.Dict)
    keys = [ast.unparse(key) for key in table.value.keys if key is not None]
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_the_core_imports_only_itself_and_the_data_types_of_the_configuration(path: Path) -> None:
    allowed = {"entrypoint.config", "entrypoint.record", "entrypoint.config.spec", "entrypoint.core"}
    for name in imports(path):
        top = name.partition(".")[0]
        assert top not in BANNED
        if top == "entrypoint":
            assert name in allowed or name.startswith(("entrypoint.core.", "entrypoint.record.")), name
        else:
            assert top in sys.stdlib_module_names, name


def test_the_core_does_no_input_or_output() -> None:
    for path in SOURCES:
        calls = {n.func.id for n in ast.walk(ast.parse(path.read_text()))
                 if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
        assert not calls & {"open", "print", "input", "exec", "eval", "__import__"}, path.name


IMPOSSIBLE = [pair for pair, handler in worker.TABLE.items() if handler is worker.impossible]


@pytest.mark.parametrize("event", [ev.Spawned(1), ev.Executed(1), ev.SpawnRefused(1, "no"), ev.GroupGone(1)], ids=repr)
def test_what_cannot_happen_changes_nothing_and_is_reported_as_a_bug(event: ev.Event) -> None:
    k = running(web=1)
    before = list(k.m.workers), k.states("web"), k.m.next_deadline()
    with pytest.raises(AssertionError, match="this is a bug"):  # the harness takes no report of a bug
        k.tell(event)
    assert (list(k.m.workers), k.states("web"), k.m.next_deadline()) == before
    assert len(IMPOSSIBLE) > len(STATES)
