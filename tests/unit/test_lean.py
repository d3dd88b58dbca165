"""The finder of our own modules beside the interpreter's: the same modules, or none."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

import entrypoint

PLACE = str(Path(entrypoint.__file__).parent.parent)
CODE = """
import sys
sys.path[:0] = sys.argv[1:3]
from entrypoint import lean
lean.install("house")
import house.room.thing, house.plain, house
for module in (house.room.thing, house.plain, house.room):
    spec = module.__spec__
    print(type(spec.loader).__name__, module.VALUE, module.__file__, module.__package__, spec.name, spec.parent,
          getattr(module, "__path__", None))
try:
    import house.missing
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    house = tmp_path / "house"
    (house / "room").mkdir(parents=True)
    (house / "__init__.py").write_text("")
    (house / "room/__init__.py").write_text("VALUE = 'room'")
    (house / "room/thing.py").write_text("from house.plain import VALUE as PLAIN\nVALUE = PLAIN + ' thing'")
    (house / "plain.py").write_text("VALUE = 'plain'")
    return house


def found(house: Path, *options: str, mode: py_compile.PycInvalidationMode | None = None) -> tuple[set[str], list[str]]:
    """The kinds of loaders, and what else is told; everything is compiled before if there is a mode."""
    for path in house.rglob("*.py") if mode else ():
        py_compile.compile(str(path), doraise=True, invalidation_mode=mode)
    command = [sys.executable, "-I", "-B", *options, "-c", CODE, str(house.parent), PLACE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return {kind for kind, _, _ in lines[:-1]}, [rest for _, _, rest in lines]


def test_modules_are_the_same_by_whomever_they_are_found(house: Path) -> None:
    kinds, plain = found(house)  # nothing is compiled
    assert kinds == {"SourceFileLoader"}
    for mode in (py_compile.PycInvalidationMode.TIMESTAMP, py_compile.PycInvalidationMode.UNCHECKED_HASH):
        assert found(house, mode=mode) == ({"Finder"}, plain)


def test_a_hash_that_is_to_be_checked_and_other_optimizations_are_left_to_the_interpreter(house: Path) -> None:
    kinds, plain = found(house, mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    assert kinds == {"SourceFileLoader"}
    assert found(house, "-O", mode=py_compile.PycInvalidationMode.TIMESTAMP) == (kinds, plain)
    assert found(house, "-X", f"pycache_prefix={house}/elsewhere") == (kinds, plain)


def test_compiled_code_that_is_not_of_its_source_is_not_run(house: Path) -> None:
    found(house, mode=py_compile.PycInvalidationMode.TIMESTAMP)
    plain, before = house / "plain.py", os.stat(house / "plain.py")
    plain.write_text("VALUE = 'other'")  # the same size
    os.utime(plain, (before.st_atime, before.st_mtime + 2))
    assert "other" in found(house)[1][1]
    found(house, mode=py_compile.PycInvalidationMode.TIMESTAMP)
    plain.write_text("VALUE = 'longer'")
    os.utime(plain, (before.st_atime, before.st_mtime + 2))
    assert "longer" in found(house)[1][1]


@pytest.mark.parametrize("damage", [b"", b"\0" * 16])
def test_damaged_code_is_not_run(house: Path, damage: bytes) -> None:
    _, before = found(house, mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    [compiled] = house.glob("__pycache__/plain.*")
    compiled.write_bytes(damage)
    assert found(house)[1] == before
