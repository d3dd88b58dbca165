"""The sockets that the master binds once and holds for its workers, and how they change while it runs."""

# The master holds each socket, so a worker can die without losing what is queued. It closes its copy just before the
# last pool that uses the socket stops: held longer, the kernel would go on completing handshakes that nobody accepts,
# and a late close would reset them.

from __future__ import annotations

import _socket as socket  # `socket` would cost 4 ms and a quarter megabyte more
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from entrypoint.core.terms import address
from entrypoint.linux.stale import unlink_stale
from entrypoint.master.sockets.listeners import Group, Shared, bind_tcp, listen_tcp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from entrypoint.config.spec import Socket as SocketSpec

FIRST = 3  # SD_LISTEN_FDS_START in sd_listen_fds(3)


class SocketError(Exception):
    """A socket cannot be had; the message says which and why."""


class Sockets:
    """All sockets that the master holds, told apart by their address: name, backlog, mode and owner may change.

    A shared socket is one descriptor. Of a `reuse_port` socket each slot has its own, made when the slot is first
    used and kept from then on, so that a replacement inherits its predecessor's queue.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], Shared] = {}
        self._configured: tuple[SocketSpec, ...] = ()  # of the last `prepare`; more may be held
        self._unix: dict[str, tuple[int, int]] = {}  # path: identity of the file that we made

    # -- of a configuration ----------------------------------------------------------------------------------

    def prepare(self, new: tuple[SocketSpec, ...], *, starting: bool = False) -> None:
        """Bind every socket of a configuration that is not held yet, and give the others what is new about them.

        What is held beyond these stays so until `forget`. `starting` is for the first configuration of all: only then
        are the master's descriptors those that it was given. Raises SocketError, or OSError where no descriptor is left
        to reserve; then nothing has changed.
        """
        missing = [s for s in new if address(s) not in self._held]
        kept = [s for s in new if address(s) in self._held]
        opened: dict[tuple[object, ...], Shared] = {}
        changed: list[tuple[Shared, SocketSpec]] = []
        try:
            # Descriptors that were handed to the master come first: their numbers must not be taken by `reserve`.
            for spec in missing:
                if spec.kind == "fd":
                    opened[address(spec)] = Shared(spec, adopt(spec, FIRST + len(new), starting=starting))
            if starting:
                reserve(len(new))
            for spec in missing:
                if spec.kind != "fd":
                    opened[address(spec)] = self._open(spec)
            for spec in kept:
                held = self._held[address(spec)]
                changed.append((held, held.spec))
                self._change(held, spec)
        except Exception:
            self._undo(opened.values(), changed)
            raise
        self._held.update(opened)
        self._configured = new

    def _undo(self, opened: Iterable[Shared], changed: list[tuple[Shared, SocketSpec]]) -> None:
        for held in opened:
            held.close()
            self._unlink(held.spec.path)
        for held, before in changed:
            try:
                self._change(held, before)
            except SocketError:  # the very one that could not be changed
                held.spec = before

    def _open(self, spec: SocketSpec) -> Shared:
        try:
            if spec.kind == "unix":
                return Shared(spec, self._listen_unix(spec))
            if not spec.reuse_port:
                return Shared(spec, listen_tcp(spec))
            # It would join those of another process, and the kernel's choice with it; a plain one is refused then.
            bind_tcp(spec._replace(reuse_port=False)).close()
            return Group(spec, listen_tcp(spec))
        except OSError as error:
            who = ""
            if error.errno == errno.EADDRINUSE:
                who = f"; {self._still_held(spec) or holder(spec)}"
            raise SocketError(f"cannot bind {spec.bind} (socket {spec.name}): {reason(error)}{who}") from None

    def _still_held(self, spec: SocketSpec) -> str:
        """Says which socket of ours is in the way, if one is."""
        from entrypoint.config.addresses import clash

        for held in self._held.values():
            if clash(held.spec, spec):
                return f"it is still held as socket {held.spec.name} ({held.spec.bind}): restart to change it"
        return ""

    def _listen_unix(self, spec: SocketSpec) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            unlink_stale(spec.path)
            # The mode has to be right from the first moment on: connecting needs write permission.
            before = os.umask(0o777 & ~file_mode(spec))
            try:
                sock.bind(spec.path)
            finally:
                os.umask(before)
            made = os.lstat(spec.path)
            self._unix[spec.path] = (made.st_dev, made.st_ino)
            if spec.uid != -1 or spec.gid != -1:
                os.chown(spec.path, spec.uid, spec.gid)
            sock.listen(spec.backlog)
        except OSError:
            sock.close()
            self._unlink(spec.path)
            raise
        return sock

    def _change(self, held: Shared, spec: SocketSpec) -> None:
        """Give a socket another backlog, and its file another mode and owner."""
        before, held.spec = held.spec, spec
        try:
            if spec.backlog != before.backlog and spec.kind != "fd":
                for sock in held.sockets:
                    sock.listen(spec.backlog)  # only that, when it does listen already
            if (before.mode, before.uid, before.gid) != (spec.mode, spec.uid, spec.gid):
                if not self._is_ours(spec.path):
                    raise SocketError(f"cannot change {spec.bind} (socket {spec.name}): its file is not there any more")
                # What is not configured is to be as in a file that has just been made.
                uid, gid = (os.geteuid() if spec.uid == -1 else spec.uid, os.getegid() if spec.gid == -1 else spec.gid)
                if (before.uid, before.gid) != (spec.uid, spec.gid):
                    os.chown(spec.path, uid, gid)
                os.chmod(spec.path, file_mode(spec))
        except OSError as error:
            raise SocketError(f"cannot change {spec.bind} (socket {spec.name}): {reason(error)}") from None

    # -- for workers -----------------------------------------------------------------------------------------

    def _those(self, sockets: tuple[SocketSpec, ...]) -> Iterator[tuple[SocketSpec, Shared]]:
        """Those of the sockets that are held."""
        for spec in sockets:
            held = self._held.get(address(spec))
            if held is not None:
                yield spec, held

    def of_worker(self, sockets: tuple[SocketSpec, ...], slot: int) -> list[tuple[str, int]]:
        """(name, descriptor) of each socket that the worker in `slot` is to inherit. Raises OSError."""
        return [(spec.name, held.of_slot(slot)) for spec, held in self._those(sockets)]

    def address(self, socket_spec: SocketSpec) -> str:
        """Where a socket listens, with the port that it really has."""
        held = self._held[address(socket_spec)]
        if socket_spec.kind != "tcp":
            return socket_spec.bind
        host, port = held.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def inodes(self, sockets: tuple[SocketSpec, ...], slot: int) -> tuple[int, ...]:
        """The inode numbers, as /proc shows them, of the sockets that the worker in `slot` has inherited."""
        return tuple(os.fstat(held.of_slot(slot)).st_ino for _, held in self._those(sockets))

    def select(self, sockets: tuple[SocketSpec, ...], slot: int, *, chosen: bool) -> None:
        """Let the kernel choose the slot's own sockets for new connections, or not. Takes effect with `apply`."""
        for _, held in self._those(sockets):
            held.select(slot, chosen=chosen)

    def apply(self) -> list[str]:
        """Tell the kernel what `select` changed; returns a message for each group that refuses it."""
        return [message for held in self._held.values() if (message := held.apply())]

    def waiting(self, sockets: tuple[SocketSpec, ...], slot: int) -> int:
        """How many connections wait on the slot's own sockets."""
        return sum(held.waiting(slot) for _, held in self._those(sockets))

    def describe(self) -> dict[str, dict[str, str | int]]:
        """The configured sockets by name: `bind`; connections `queued`, and how many may be: `backlog`.

        Both are sums over the slots of a `reuse_port` socket.
        """
        return {
            spec.name: {"bind": spec.bind, "backlog": held.limit(), "queued": held.queued()}
            for spec, held in self._those(self._configured)
        }

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self, sockets: tuple[SocketSpec, ...]) -> dict[str, int]:
        """Close the master's copies; returns how many connections were still queued, by name."""
        queued = {}
        for spec, held in list(self._those(sockets)):
            del self._held[address(spec)]
            queued[spec.name] = held.queued()
            held.close()
        return queued

    def forget(self, sockets: tuple[SocketSpec, ...]) -> dict[str, int]:
        """`close` what is configured no longer, and remove the files of unix sockets."""
        queued = self.close(sockets)
        for spec in sockets:
            self._unlink(spec.path)
        return queued

    def unlink(self) -> None:
        """Remove the files of unix sockets that still are ours."""
        for path in list(self._unix):
            self._unlink(path)

    def _is_ours(self, path: str) -> bool:
        """Whether the file is the one that we made; another process may have put its own there."""
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return self._unix.get(path) == (found.st_dev, found.st_ino)

    def _unlink(self, path: str) -> None:
        try:
            if self._is_ours(path):
                os.unlink(path)
        except OSError:  # it was never promised: the folder may be another's by now
            pass
        self._unix.pop(path, None)


def reserve(count: int) -> None:
    """Occupy the numbers that workers find their sockets at, so that none of the master's has to be moved there."""
    while count:
        fd = os.open(os.devnull, os.O_RDONLY)
        if fd >= FIRST + count:
            os.close(fd)
            return


def adopt(spec: SocketSpec, at_least: int, *, starting: bool) -> socket.socket:
    """Take over a descriptor that the master was given; its number is occupied from then on. Raises SocketError."""
    if not starting:
        raise SocketError(
            f"cannot use {spec.bind} (socket {spec.name}): descriptors are taken over at the start only; restart"
        )
    try:
        if not stat.S_ISSOCK(os.fstat(spec.fd).st_mode):
            raise SocketError(f"cannot use {spec.bind} (socket {spec.name}): not a socket")
        fd = fcntl.fcntl(spec.fd, fcntl.F_DUPFD_CLOEXEC, at_least)
        # To close a socket later, no other copy may be left.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, spec.fd, inheritable=False)
        os.close(null)
        return socket.socket(fileno=fd)
    except OSError as error:
        raise SocketError(f"cannot use {spec.bind} (socket {spec.name}): {error.strerror}") from None


def reason(error: OSError) -> str:
    """What went wrong, as our messages put it."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


def file_mode(spec: SocketSpec) -> int:
    """The mode of a unix socket's file."""
    return spec.mode if spec.mode is not None else 0o666


def holder(spec: SocketSpec) -> str:
    """Who listens on the address already, as far as /proc shows it."""
    if spec.kind == "unix":
        return "another process accepts connections on it"
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == spec.port:
                inodes.add(f"socket:[{fields[9]}]")
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()] if inodes else []
    except OSError:
        pids = []
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    with open(f"/proc/{pid}/comm") as file:
                        return f"pid {pid} ({file.read().strip()}) listens on port {spec.port}"
        except OSError:
            continue
    return (
        "the process that listens there cannot be seen from here: with a shared network namespace, as in a pod, look in"
        " the other containers (is this entrypoint in two of them?)"
    )
