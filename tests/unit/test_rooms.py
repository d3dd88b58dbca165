"""The rooms of the house: who may know whom. Read from the files themselves, imports for types only included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import entrypoint

HOUSE = Path(entrypoint.__file__).parent

# What each room may import of ours, beside itself. What is not listed knows nobody.
ROOMS: dict[str, tuple[str, ...]] = {
    "commands": (),
    "interpreter": (),
    "lean": (),
    "record": (),
    "reasons": ("record",),
    "linux": ("record",),
    "config": ("linux", "record"),
    "core": ("config.spec", "reasons", "record"),
    "logger": (),
    "monitor": ("config", "linux", "record"),
    "observer": ("linux", "reasons"),
    "master": (
        "commands",
        "config",
        "core",
        "interpreter",
        "linux",
        "logger.messages",
        "monitor.messages",
        "observer.messages",
        "record",
    ),
    "cli": ("commands", "config", "logger.main", "master.boot", "monitor.main", "observer.main"),
    "__main__": ("cli", "interpreter", "lean"),
}

# The master from the ground up: a file knows those of its own storey and of the ones below.
GROUND = ("reactor", "part", "spared", "log", "running", "termination", "snapshot", "journal")
BESIDE = ("sockets", "control", "helpers", "configuration")
MASTER = (GROUND, ("notify",), ("processes",), BESIDE, ("shell",), ("boot",))

# The core likewise, a storey a line: what a row changes is settled above it.
CORE = (
    ("terms",),
    ("actions", "events", "counters"),
    ("model",),
    ("state",),
    ("ending", "status"),
    ("health",),
    ("starting",),
    ("worker",),
    ("plan", "rollout", "sizing"),
    ("ends",),
    ("pool",),
    ("shutdown",),
    ("phases",),
    ("settle",),
    ("asked", "reload"),
    ("step",),
)

MOST = 10  # files of a room of the master


def modules() -> dict[str, Path]:
    """Every file, by the name that it is imported by, without `entrypoint.`; packages are left out."""
    paths = [path for path in HOUSE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(HOUSE).with_suffix("").parts): path for path in paths}


FILES = modules()


def imports(name: str) -> set[str]:
    """The files of ours that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            module = str(node.module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
            found.add(module)
    ours = {each.removeprefix("entrypoint.") for each in found if each.startswith("entrypoint.")}
    return ours & FILES.keys()


GRAPH = {name: imports(name) for name in FILES}


def room(name: str) -> str:
    return name.partition(".")[0]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way that leads back to where it began; empty when there is none."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for below in sorted(graph[name]):
                if found := follow(below, [*way, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_nobody_goes_in_circles() -> None:
    assert circle(GRAPH) == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_knows_only_rooms_that_its_own_may_know(name: str) -> None:
    allowed = (room(name), *ROOMS[room(name)])
    strangers = {
        each for each in GRAPH[name] if not any(each == other or each.startswith(f"{other}.") for other in allowed)
    }
    assert not strangers


@pytest.mark.parametrize("name", sorted(name for name in FILES if room(name) == "master"))
def test_the_master_is_built_from_the_ground_up(name: str) -> None:
    storeys = {part: level for level, parts in enumerate(MASTER) for part in parts}
    for other in GRAPH[name]:
        if room(other) == "master":
            mine, its = name.split(".")[1], other.split(".")[1]
            assert storeys[its] <= storeys[mine], f"{other} is above"
            assert storeys[its] < storeys[mine] or mine == its or mine in GROUND, f"{other} is a room beside it"


def test_every_file_of_the_core_has_its_storey() -> None:
    assert {f"core.{part}" for storey in CORE for part in storey} == {name for name in FILES if room(name) == "core"}


@pytest.mark.parametrize("name", sorted(name for name in FILES if room(name) == "core"))
def test_the_core_is_built_from_the_ground_up(name: str) -> None:
    storeys = {f"core.{part}": level for level, storey in enumerate(CORE) for part in storey}
    above = {other for other in GRAPH[name] if room(other) == "core" and storeys[other] >= storeys[name]}
    assert not above


def test_nobody_but_the_start_knows_the_shell() -> None:
    assert {name for name in FILES if "master.shell" in GRAPH[name]} == {"master.boot"}


def test_a_room_of_the_master_can_be_surveyed() -> None:
    for folder in [HOUSE / "master", *(path for path in (HOUSE / "master").iterdir() if path.is_dir())]:
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MOST, folder
