"""posix_spawn(3), for programs that have been executed before: no copy of the master is made for them."""

# posix_spawn suspends the master until the program is executed or refused. A program on a network file system whose
# server is gone would suspend PID 1 for good, in the kernel, and no TERM would be heard. So the first process of a
# program is forked, and looks where the program lies before it executes it: the file, the interpreter of a script,
# every folder on the way there and those of PATH that come before. It tells this by a byte for each try, in the pipe
# that tells of the exec. Only what is on the file system of `/` or of the master's interpreter goes without a fork from
# then on: where that does not answer, no master runs either.
#
# Whatever posix_spawn refuses is forked, so that there is one place that says what is wrong, in the same words and with
# the same exit codes. PATH is searched each time: if an earlier place has the program by now, a fork finds it. The
# limit of open files is lowered in the master itself for the moment of a posix_spawn, which cannot do it for the
# program.

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING

from entrypoint.linux import kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PROGRAMS = 64  # remembered
MAX_SCRIPTS = 4  # from a script to the script that interprets it, as in the kernel
MAX_LINE = 256  # bytes of a script's first line, as in the kernel

# What a forked child writes before it tries to execute a file; the last of them is about the one that it did execute.
NEAR, FAR = b"+", b"-"


def places(name: str, path: str | None) -> list[str]:
    """Where a program may be, in the order in which that is tried; `path` is the worker's own PATH."""
    if "/" in name:
        return [name]
    return [os.path.join(folder or ".", name) for folder in (os.defpath if path is None else path).split(os.pathsep)]


class Programs:
    """The programs that may be started without a fork."""

    def __init__(self, handled: tuple[int, ...], nofile: tuple[int, int] | None) -> None:
        """`handled` are signals that a program is not to inherit as they are; `nofile` is its limit of open files."""
        self._defaults = kernel.defaults(handled)
        self._nofile = nofile
        self.devices = frozenset(device for path in ("/", sys.executable) if (device := _device(path)))
        self._tried: dict[tuple[str, str | None], list[str]] = {}  # the files that were tried; the last one was there

    def executed(self, name: str, path: str | None, told: bytes) -> None:
        """A forked child has executed it and told this before; see `NEAR`."""
        if told[-1:] == NEAR:
            self._tried[name, path] = places(name, path)[: len(told)]
            if len(self._tried) > MAX_PROGRAMS:
                del self._tried[next(iter(self._tried))]

    def start(self, argv: tuple[str, ...], environ: Mapping[str, str], descriptors: Mapping[int, int]) -> int:
        """Start a program with these descriptors, by their numbers in it; returns its pid.

        0: not this way, for whatever reason. A fork tells what is wrong.
        """
        tried = self._tried.get((argv[0], environ.get("PATH")))
        if tried is None or any(os.path.lexists(place) for place in tried[:-1]):
            return 0
        try:
            if self._nofile is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
            return os.posix_spawn(
                tried[-1],
                argv,
                environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in descriptors.items()],
                setpgroup=0,
                setsigmask=(),
                setsigdef=self._defaults,
            )
        except (OSError, ValueError):
            return 0
        finally:
            if self._nofile is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self._nofile[1], self._nofile[1]))


def _device(path: str) -> int:
    try:
        return os.stat(path).st_dev
    except OSError:  # a folder on the way there is somebody else's
        return 0


def is_near(place: str, devices: frozenset[int]) -> bool:
    """Whether a file, its interpreter, and every folder on the way there are on one of the devices.

    A file that does not exist is near if that can be told without a look elsewhere. It may block, so this is for
    the child.
    """
    try:
        for _ in range(MAX_SCRIPTS):
            path = os.path.abspath(place)
            for end in [at for at, character in enumerate(path) if character == "/" and at] + [len(path)]:
                try:
                    if os.stat(path[:end]).st_dev not in devices:
                        return False
                except FileNotFoundError:
                    return True
            with open(path, "rb") as file:
                line = file.readline(MAX_LINE)
            if not line.startswith(b"#!"):
                return True
            place = os.fsdecode(line[2:].split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return False
