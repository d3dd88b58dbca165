"""Where the dependencies are not beside the package: the master's own processes find them where the master does.

The trees are real: made of the packages that are installed beside these tests, for the interpreter of the system.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import zipapp
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.system.observed import OBSERVER, Observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Master, Start

PYTHON = "/usr/bin/python3"
POOLS = f"""
pools: {{web: {{command: [sleep, '1000'], output: json}}}}
reload: {{watch: true}}
{OBSERVER}"""
HELPERS = ("logger", "monitor", "observer")
WHERE = "import site, sys; print(*site.getsitepackages(), sep='\\n')"
MAIN = "from entrypoint.__main__ import main\nmain()\n"


class Tree(NamedTuple):
    """An installation: `wrap` has the command run from it."""

    wrap: tuple[str, ...]
    packages: Path  # where the dependencies are
    env: dict[str, str] = {}  # noqa: RUF012 - never changed


def site_packages(python: str) -> list[Path]:
    told = subprocess.check_output([python, "-I", "-c", WHERE], text=True)
    return [Path(line) for line in told.splitlines()]


def install(folder: Path, *, package: bool, dependencies: bool) -> Path:
    """Copy the entrypoint, or what it depends on, into a folder, as `pip install --target` does."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = importlib.metadata.requires("entrypointd") or []
    names = [re.split(r"[^\w.-]", line)[0] for line in needed if "extra ==" not in line] if dependencies else []
    for name in [*names, *(["entrypointd"] if package else [])]:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if not file.parts[0].startswith("..")}:
            source = Path(str(distribution.locate_file(top)))
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / top, dirs_exist_ok=True, ignore=ignored)
            elif source.exists():
                shutil.copy(source, folder / top)
    return folder


def script(path: Path, python: str) -> str:
    """The installed command, for another interpreter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{python}\n{MAIN}")
    path.chmod(0o755)
    return str(path)


def run(command: str, *mounts: tuple[Path, Path]) -> tuple[str, ...]:
    """Have that command run in place of the installed one, with folders mounted over others."""
    before = "".join(f"mount --bind '{source}' '{target}' && " for source, target in mounts)
    words = ("sh", "-c", f'{before}shift && exec {command} "$@"', "sh")
    return ("unshare", "--mount", "--propagation", "private", *words) if mounts else words


def venv(path: Path, *options: str) -> Path:
    """Make a virtual environment; where its packages are."""
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", *options, str(path)], check=True)
    return site_packages(f"{path}/bin/python")[0]


def of_the_distribution(base: Path) -> Tree:
    """Debian: python3-yaml and its like from apt, the entrypoint from pip."""
    ours, *_, theirs = [place for place in site_packages(PYTHON) if place.is_dir()]
    package = install(base / "local", package=True, dependencies=False)
    packages = install(base / "dist", package=False, dependencies=True)
    return Tree(run(script(base / "bin/entrypoint", PYTHON), (package, ours), (packages, theirs)), packages)


def of_the_system_below_a_venv(base: Path) -> Tree:
    install(venv(base / "venv", "--system-site-packages"), package=True, dependencies=False)
    packages = install(base / "dist", package=False, dependencies=True)
    command = script(base / "venv/bin/entrypoint", f"{base}/venv/bin/python")
    return Tree(run(command, (packages, next(p for p in site_packages(PYTHON) if p.is_dir()))), packages)


def named_by_a_pth_file(base: Path) -> Tree:
    inside = install(venv(base / "venv"), package=True, dependencies=False)
    packages = install(base / "elsewhere", package=False, dependencies=True)
    (inside / "elsewhere.pth").write_text(f"{packages}\n")
    return Tree(run(script(base / "venv/bin/entrypoint", f"{base}/venv/bin/python")), packages)


def of_an_editable_checkout(base: Path) -> Tree:
    packages = install(venv(base / "venv"), package=False, dependencies=True)
    (packages / "checkout.pth").write_text(f"{install(base / 'checkout', package=True, dependencies=False)}\n")
    return Tree(run(script(base / "venv/bin/entrypoint", f"{base}/venv/bin/python")), packages)


def below_a_user_s_own(base: Path) -> Tree:
    """`pip install --user` on top of what the system has."""
    version = re.search(r"python3\.\d+", os.path.realpath(PYTHON))
    assert version
    install(base / "home/.local/lib" / version[0] / "site-packages", package=True, dependencies=False)
    packages = install(base / "dist", package=False, dependencies=True)
    target = next(place for place in site_packages(PYTHON) if place.is_dir())
    command = script(base / "home/.local/bin/entrypoint", PYTHON)
    return Tree(run(command, (packages, target)), packages, {"HOME": f"{base}/home"})


def of_a_zipapp(base: Path) -> Tree:
    packages = install(base / "all", package=True, dependencies=True)
    (packages / "__main__.py").write_text(MAIN)
    zipapp.create_archive(packages, base / "entrypoint.pyz", PYTHON)
    (base / "entrypoint.pyz").chmod(0o755)
    return Tree(run(f"{base}/entrypoint.pyz"), packages)


TREES: tuple[Callable[[Path], Tree], ...] = (
    of_the_distribution,
    of_the_system_below_a_venv,
    named_by_a_pth_file,
    of_an_editable_checkout,
    below_a_user_s_own,
    of_a_zipapp,
)


def helpers(master: Master) -> list[str]:
    """Those that run."""
    return sorted(what.split()[-1] for what in master.descendants().values() if what.split()[-1] in HELPERS)


@pytest.mark.parametrize("isolated", [False, True], ids=["as it is", "PYTHONFAULTHANDLER"])
@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.__name__)
def test_all_processes_find_the_packages(
    start: Start, open_path: Path, tree: Callable[[Path], Tree], *, isolated: bool
) -> None:
    made = tree(open_path)
    variables = {"PYTHONFAULTHANDLER": "1"} if isolated else {}  # which has the master start over
    master = start(POOLS, wrap=made.wrap, env={**made.env, **variables})
    observed = Observed(master)
    assert observed.get("/livez").text == "ok\n"
    assert "entrypoint_build_info" in observed.get("/metrics").text
    assert "<html" in observed.get("/").text
    master.until(lambda: helpers(master) == list(HELPERS))
    assert master.stop()[0] == 0
    assert not master.all("worker_exited", level="error")
    assert master.errors == ""


def test_nothing_is_taken_from_where_the_environment_points(start: Start, open_path: Path) -> None:
    made = named_by_a_pth_file(open_path)
    for name in ("yaml", "h11", "structlog", "asyncio", "json"):
        path = open_path / f"evil/{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(open_path / 'taken')!r}, 'a').write('{name} ')\nraise ImportError('evil')\n")
    master = start(POOLS, wrap=made.wrap, env={"PYTHONPATH": f"{open_path}/evil"})
    assert Observed(master).get("/livez").status == 200
    master.until(lambda: helpers(master) == list(HELPERS))
    assert not any(str(open_path / "evil") in what for what in master.descendants().values())
    assert master.stop()[0] == 0
    assert not (open_path / "taken").exists()


def test_a_helper_that_cannot_run_says_why_once_and_is_announced_when_it_does(start: Start, open_path: Path) -> None:
    made = named_by_a_pth_file(open_path)
    hidden = (made.packages / "h11").rename(made.packages / "not-h11")
    master = start(POOLS + "log: {level: debug}\n", wrap=made.wrap)
    said = master.wait_for("worker_exited", pool="observer")
    assert said["level"] == "error"
    assert said["error"] == "cannot run entrypoint observer: ModuleNotFoundError: No module named 'h11'"
    for _ in range(2):
        assert master.wait_for("worker_exited", pool="observer")["level"] == "debug"
    assert not master.all("observer_listens")
    hidden.rename(made.packages / "h11")
    assert Observed(master).get("/livez").status == 200
    assert len(master.all("observer_listens")) == 1
    assert master.stop()[0] == 0
    assert master.errors == ""


@pytest.mark.parametrize("variables", [{}, {"PYTHONFAULTHANDLER": "1"}], ids=["as it is", "PYTHONFAULTHANDLER"])
def test_a_configuration_that_nobody_can_read(start: Start, open_path: Path, variables: dict[str, str]) -> None:
    made = named_by_a_pth_file(open_path)
    shutil.rmtree(made.packages / "yaml")
    master = start(POOLS, wrap=made.wrap, env=variables)
    assert master.wait() == 70
    assert master.errors == f"entrypoint: cannot load {open_path}/config.yaml: No module named 'yaml'\n"


def test_a_reader_of_the_configuration_that_is_ended_from_within(start: Start, open_path: Path) -> None:
    """It is not said that somebody has killed it."""
    made = named_by_a_pth_file(open_path)
    (made.packages / "yaml/__init__.py").write_text("raise SystemExit('broken')\n")
    master = start(POOLS, wrap=made.wrap)
    assert master.wait() == 70
    place = f"{open_path}/config.yaml"
    assert master.errors == f"entrypoint: cannot load {place}: the process that reads it failed: SystemExit('broken')\n"
