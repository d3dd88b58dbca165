"""Following the content of a file, through symbolic links that are turned round and files that are replaced."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from inotify_simple import INotify, flags  # type: ignore[import-untyped] # it has no types

from entrypoint.config.digest import sha256
from entrypoint.config.envfiles import EnvFileError, read_bytes

if TYPE_CHECKING:
    from entrypoint.monitor.probes import Tell
    from entrypoint.monitor.timing import Timing

MAX_LINKS = 40  # as the kernel
IN_FOLDER = (
    flags.CREATE | flags.MOVED_TO | flags.CLOSE_WRITE | flags.DELETE | flags.ATTRIB
    | flags.MOVE_SELF | flags.DELETE_SELF | flags.ONLYDIR
)  # fmt: skip
OF_FILE = flags.CLOSE_WRITE | flags.ATTRIB | flags.MOVE_SELF | flags.DELETE_SELF


class Follower:
    """Tells when the content of a file is another than the master's."""

    def __init__(self, timing: Timing, tell: Tell) -> None:
        self._timing = timing
        self._tell = tell
        self._path = ""
        self._loaded = self._reported = ""
        self._changed = asyncio.Event()
        self._inotify: INotify | None = None
        self._watched: dict[int, set[str]] = {}  # watch -> names in that folder; empty: whatever happens there

    def follow(self, path: str, sha256: str) -> None:
        """Follow that file from now on; `sha256` is what the master knows."""
        self._path = os.path.abspath(path)
        self._loaded, self._reported = sha256, ""
        self._changed.set()

    def loaded(self, sha256: str) -> None:
        """The master knows this content, not necessarily the one that it was told of."""
        self._loaded = sha256
        if sha256 != self._reported:
            self._reported = ""

    async def run(self) -> None:
        """Follow for ever."""
        await self._changed.wait()
        while True:
            self._changed.clear()
            told_of_changes = self._watch()
            self._look()  # after the watch, so that no change falls between the two
            try:
                async with asyncio.timeout(self._timing.recheck if told_of_changes else self._timing.recheck_blind):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await self._settle()

    async def _settle(self) -> None:
        """Wait for the end of what is being done to the file, but not for ever."""
        try:
            async with asyncio.timeout(self._timing.unquiet):
                while True:
                    self._changed.clear()
                    async with asyncio.timeout(self._timing.quiet):
                        await self._changed.wait()
        except TimeoutError:
            pass

    def _look(self) -> None:
        digest = _digest(self._path)
        if not digest:  # it is being replaced
            return
        if digest == self._loaded:
            self._reported = ""
        elif digest != self._reported:
            self._reported = digest
            self._tell("config", sha256=digest)

    def _watch(self) -> bool:
        """Have the kernel tell of changes on the way to the file; False when it does not tell of all of them."""
        try:
            if self._inotify is None:
                self._inotify = INotify(nonblocking=True)
                asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._read)
        except OSError:  # too many in use
            return False
        complete = True
        watched: dict[int, set[str]] = {}
        try:
            # The file itself as well: one that is mounted alone has another folder, outside of what we can see.
            watched[self._inotify.add_watch(self._path, OF_FILE)] = set()
        except OSError:
            complete = False
        for folder, names in decisive(self._path).items():
            try:
                watched[self._inotify.add_watch(folder, IN_FOLDER)] = names
            except OSError:  # too many, or not there
                complete = False
        for old in self._watched.keys() - watched.keys():
            try:
                self._inotify.rm_watch(old)
            except OSError:  # it ended with its folder
                pass
        self._watched = watched
        return complete

    def _read(self) -> None:
        if self._inotify is None:
            return
        for event in self._inotify.read(timeout=0):
            names = self._watched.get(event.wd)
            if event.mask & flags.Q_OVERFLOW or (names is not None and (not event.name or event.name in names)):
                self._changed.set()


def decisive(path: str) -> dict[str, set[str]]:
    """The folders whose entries decide what `path` leads to, and those entries: the file and each link on the way."""
    found: dict[str, set[str]] = {}
    folder = "/"
    rest = path.split("/")[::-1]
    links = 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            folder = os.path.dirname(folder)
            continue
        place = os.path.join(folder, name)
        try:
            target = os.readlink(place)
        except OSError:  # no link, or nothing at all
            if rest:
                folder = place
            else:
                found.setdefault(folder, set()).add(name)
            continue
        found.setdefault(folder, set()).add(name)
        links += 1
        if links > MAX_LINKS:
            break
        if target.startswith("/"):
            folder = "/"
        rest.extend(target.split("/")[::-1])
    return found


def _digest(path: str) -> str:
    """Of the content; empty when there is no such file."""
    try:
        content = read_bytes(path)
    except EnvFileError as error:
        if not error.reason.startswith("larger"):
            return ""
        content = error.reason.encode()  # too large, whatever it says: the master will tell why it does not take it
    return sha256(content)
