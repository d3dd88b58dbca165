"""The image: how large its folder is, and how much later a worker runs for having the entrypoint before it.

All containers are of the same image, so that they differ in their command only. The worker reports into a FIFO that is
mounted: it stamps the time itself, as everywhere in this bench, and a container shares the clock of its host.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .measure import Reports
from .namespace import BenchError
from .report import Target, grid, median, ms, number, verdicts
from .systems import HERE, find

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_FOLDER = "/opt/entrypoint"
_PLACE = "/bench"  # where the containers have the worker
_TIMEOUT = 60.0
_PARTS = {"libexec": "interpreter", "lib/python3.": "standard library", "lib/site-packages": "Python packages"}

FOLDER_MB = 40.0
BESIDE_TINI = 1.25  # times the time from `docker run` to the worker

# What each container runs: the options of `docker run` before the image, and the arguments after it.
_WORKERS = {
    "no init": (["--entrypoint", f"{_PLACE}/worker"], []),
    "tini": (["--entrypoint", f"{_PLACE}/tini"], ["--", f"{_PLACE}/worker"]),
    "entrypoint (init)": ([], ["--", f"{_PLACE}/worker"]),
    "entrypoint (pool)": ([], ["-c", f"{_PLACE}/config.yaml"]),
}
_COMMANDS = {
    "true": (["--entrypoint", "true"], []),
    "entrypoint version": (["--entrypoint", "entrypoint"], ["version"]),
}


@dataclass
class Size:
    """Of the image, or a part of its folder."""

    what: str
    bytes: int
    packed: int | None = None  # by gzip, as it is pulled


@dataclass
class Start:
    """One container."""

    system: str
    ms: float | None = None  # from `docker run` to the worker's main; of a command, to the end of `docker run`
    failure: str = ""


class Results(NamedTuple):
    """Everything that was measured in this part."""

    sizes: Sequence[Size]
    starts: Sequence[Start]

    @property
    def failures(self) -> list[str]:
        """What could not be measured, and why."""
        return [start.failure for start in self.starts if start.failure]


def measure(image: str, place: Path, repeat: int, say: Callable[[str], None]) -> Results:
    """Weigh the image, and start each container so often. Raises BenchError if that cannot be done here."""
    sizes = _sizes(image)
    folder = _prepare(place)
    starts: list[Start] = []
    for turn in range(repeat + 1):
        found = [_worker(image, folder, name) for name in _WORKERS]
        found += [_command(image, name) for name in _COMMANDS]
        if turn:  # the first of each finds no caches
            starts += found
        say(f"{turn}/{repeat} starts of {image}: {'; '.join(s.failure for s in found if s.failure) or 'measured'}")
    return Results(sizes, starts)


def _docker(*words: str) -> bytes:
    try:
        return subprocess.run(["docker", *words], check=True, capture_output=True, timeout=_TIMEOUT).stdout
    except FileNotFoundError as error:
        raise BenchError("cannot find docker: apt-get install -y docker.io") from error
    except subprocess.CalledProcessError as error:
        raise BenchError(f"cannot docker {words[0]}: {error.stderr.decode(errors='replace').strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"cannot docker {words[0]}: not done after {_TIMEOUT:g} s") from error


def _sizes(image: str) -> list[Size]:
    [about] = json.loads(_docker("image", "inspect", image))
    sizes = [Size("the image", about["Size"])]
    base = about["Config"]["Labels"]["org.opencontainers.image.base.name"]
    sizes.append(Size("its base", json.loads(_docker("image", "inspect", base))[0]["Size"]))
    container = _docker("create", image).decode().strip()
    try:
        archive = _docker("cp", f"{container}:{_FOLDER}", "-")
    finally:
        _docker("rm", container)
    parts: dict[str, int] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            name = member.name.partition("/")[2]
            part = next((part for prefix, part in _PARTS.items() if name.startswith(prefix)), "the rest")
            parts[part] = parts.get(part, 0) + member.size
    sizes.append(Size(_FOLDER, sum(parts.values()), len(gzip.compress(archive, 6))))
    return sizes + [Size(f"- {part}", size) for part, size in sorted(parts.items(), key=lambda item: -item[1])]


def _prepare(place: Path) -> Path:
    """Make the folder that every container gets: the worker, tini, a configuration."""
    folder = place / "image"
    folder.mkdir()
    folder.chmod(0o755)  # the container's user is another
    worker, tini = folder / "worker", find("tini-static")
    # Static: it runs whatever the C library of the image is.
    subprocess.run(["cc", "-O2", "-static", "-o", worker, HERE / "worker.c"], check=True)
    if tini is None:
        raise BenchError("cannot find tini-static: apt-get install -y tini")
    shutil.copy(tini, folder / "tini")
    pool = {"command": [f"{_PLACE}/worker"], "ready": {"when": "alive", "after": "0s"}}
    (folder / "config.yaml").write_text(json.dumps({"pools": {"web": pool}}))  # JSON is YAML
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


def _worker(image: str, folder: Path, name: str) -> Start:
    options, arguments = _WORKERS[name]
    fifo = folder / "fifo"
    reports = Reports(fifo)
    fifo.chmod(0o666)
    mounted = ["--volume", f"{folder}:{_PLACE}", "--env", f"BENCH_FIFO={_PLACE}/fifo"]
    began = time.monotonic_ns()
    try:
        words = ["run", "--detach", "--no-healthcheck", *mounted, *options, image, *arguments]
        container = _docker(*words).decode().strip()
        try:
            [(_, stamp)] = reports.read(time.monotonic() + _TIMEOUT)
            return Start(name, (stamp - began) / 1e6)
        except TimeoutError:
            told = _docker("logs", "--tail", "3", container).decode(errors="replace")
            return Start(name, failure=f"{name}: no worker after {_TIMEOUT:g} s: {told}")
        finally:
            _docker("rm", "--force", container)
    except BenchError as error:
        return Start(name, failure=f"{name}: {error}")
    finally:
        reports.close()
        fifo.unlink()


def _command(image: str, name: str) -> Start:
    options, arguments = _COMMANDS[name]
    began = time.monotonic_ns()
    try:
        _docker("run", "--rm", "--no-healthcheck", *options, image, *arguments)
    except BenchError as error:
        return Start(name, failure=f"{name}: {error}")
    return Start(name, (time.monotonic_ns() - began) / 1e6)


def _median(results: Results, system: str) -> float | None:
    return median(start.ms for start in results.starts if start.system == system)


def targets(results: Results) -> list[Target]:
    """Every number that this project promises here."""
    folder = next(size.bytes for size in results.sizes if size.what == _FOLDER) / 1e6
    found = [Target(f"size of {_FOLDER}", f"{number(folder)} MB", "", folder, FOLDER_MB, "MB")]
    tini = _median(results, "tini")
    for system in ("entrypoint (init)", "entrypoint (pool)"):
        ours = _median(results, system)
        value = ours / tini if ours and tini else None
        found.append(Target(f"`docker run` to the worker, {system}", ms(ours), f"tini {ms(tini)}", value, BESIDE_TINI))
    return found


def markdown(results: Results) -> str:
    """The results as tables, in Markdown that is aligned for reading in a terminal too."""
    whole = results.sizes[0].bytes
    rows = [
        [
            size.what,
            number(size.bytes / 1e6),
            "-" if size.packed is None else number(size.packed / 1e6),
            f"{size.bytes / whole:.2f}",
        ]
        for size in results.sizes
    ]
    parts = [grid(["size", "MB", "gzip MB", "of the image"], rows)]
    for head, systems, beside in (
        ("`docker run` to the worker", _WORKERS, "tini"),
        ("the whole of `docker run`", _COMMANDS, "true"),
    ):
        least = _median(results, beside)
        rows = []
        for system in systems:
            ours = _median(results, system)
            compared = [f"{ours / least:.2f}", f"{ours - least:+.1f}"] if ours and least else ["-", "-"]
            rows.append([system, number(ours), *compared])
        parts.append(grid([head, "median ms", f"times {beside}", f"ms more than {beside}"], rows))
    parts.append(verdicts(targets(results)))
    return "\n\n".join(parts)
