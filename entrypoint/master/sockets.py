"""The sockets that the master binds once and holds for its workers."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entrypoint.config.spec import Socket as SocketSpec
    from entrypoint.config.spec import Spec

TCPI_UNACKED = 24  # offset in struct tcp_info; for a listener, the connections that wait to be accepted
SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF = 51, 68  # asm-generic/socket.h

# Classic BPF, see linux/filter.h and linux/bpf_common.h.
BPF_LD_W_ABS, BPF_MOD_K, BPF_JEQ_K, BPF_RET_K, BPF_RET_A = 0x20, 0x94, 0x15, 0x06, 0x16
SKF_AD_RANDOM = 0xFFFFF000 + 56
BPF_MAXINSNS = 4096


class SocketError(Exception):
    """A socket cannot be had; the message says which and why."""


class Sockets:
    """All sockets of a configuration.

    A shared socket is one descriptor. Of a `reuse_port` socket each slot has its own, made when the slot is first
    used and kept from then on, so that a replacement inherits its predecessor's queue.
    """

    def __init__(self, spec: Spec) -> None:
        self.specs = {s.name: s for s in spec.sockets}
        self.most = max((len(p.sockets) for p in spec.pools), default=0)
        self._shared: dict[str, int] = {}
        self._groups: dict[str, Group] = {}
        self._unix: dict[str, tuple[int, int]] = {}  # path: identity of the file that we made

    def reserve(self) -> None:
        """Occupy the numbers that workers find their sockets at, so that nothing of the master is ever there."""
        while self.most:
            fd = os.open(os.devnull, os.O_RDONLY)
            if fd >= 3 + self.most:
                os.close(fd)
                return

    def bind(self) -> None:
        """Bind every socket. Raises SocketError."""
        # Descriptors that were handed to the master come first: their numbers must not be taken by `reserve`.
        ordered = sorted(self.specs.values(), key=lambda s: s.kind != "fd")
        for spec in ordered:
            if spec.kind == "fd":
                self._shared[spec.name] = self._adopt(spec)
        self.reserve()
        for spec in ordered:
            if spec.kind == "fd":
                continue
            sock = self._listen(spec)
            if spec.reuse_port:
                self._groups[spec.name] = Group(spec, sock)
            else:
                self._shared[spec.name] = sock.detach()

    def _adopt(self, spec: SocketSpec) -> int:
        try:
            fd = fcntl.fcntl(spec.fd, fcntl.F_DUPFD_CLOEXEC, 3 + self.most)
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise SocketError(f"cannot use {spec.bind} (socket {spec.name}): not a socket")
        except OSError as error:
            raise SocketError(f"cannot use {spec.bind} (socket {spec.name}): {error.strerror}") from None
        os.set_inheritable(spec.fd, False)
        return fd

    def _listen(self, spec: SocketSpec) -> socket.socket:
        try:
            if spec.kind == "unix":
                return self._listen_unix(spec)
            return listen_tcp(spec)
        except OSError as error:
            who = ""
            if error.errno == errno.EADDRINUSE:
                who = f"; {holder(spec)}"
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise SocketError(f"cannot bind {spec.bind} (socket {spec.name}): {reason}{who}") from None

    def _listen_unix(self, spec: SocketSpec) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _unlink_stale(spec.path)
            # The mode has to be right from the first moment on: connecting needs write permission.
            before = os.umask(0o777 & ~(spec.mode if spec.mode is not None else 0o666))
            try:
                sock.bind(spec.path)
            finally:
                os.umask(before)
            if spec.uid != -1 or spec.gid != -1:
                os.chown(spec.path, spec.uid, spec.gid)
            sock.listen(spec.backlog)
            made = os.lstat(spec.path)
        except OSError:
            sock.close()
            raise
        self._unix[spec.path] = (made.st_dev, made.st_ino)
        return sock

    # -- for workers -----------------------------------------------------------------------------------------

    def of_worker(self, names: tuple[str, ...], slot: int) -> list[tuple[str, int]]:
        """(name, descriptor) of each socket that the worker in `slot` is to inherit. Raises OSError."""
        found = []
        for name in names:
            if name in self._groups:
                found.append((name, self._groups[name].of_slot(slot)))
            elif name in self._shared:
                found.append((name, self._shared[name]))
        return found

    def select(self, names: tuple[str, ...], slot: int, *, chosen: bool) -> None:
        """Let the kernel choose the slot's own sockets for new connections, or not. Takes effect with `apply`."""
        for name in names:
            if name in self._groups:
                self._groups[name].select(slot, chosen=chosen)

    def apply(self) -> list[str]:
        """Tell the kernel what `select` changed; returns a message for each group that refuses it."""
        return [message for group in self._groups.values() if (message := group.apply())]

    def waiting(self, names: tuple[str, ...], slot: int) -> int:
        """How many connections wait on the slot's own sockets."""
        return sum(self._groups[name].waiting(slot) for name in names if name in self._groups)

    def close(self, names: tuple[str, ...]) -> dict[str, int]:
        """Close the master's copies; returns how many connections were still queued, by name."""
        queued = {}
        for name in names:
            group = self._groups.pop(name, None)
            if group is not None:
                queued[name] = group.close()
            elif name in self._shared:
                fd = self._shared.pop(name)
                queued[name] = backlog(fd)
                os.close(fd)
        return queued

    def unlink(self) -> None:
        """Remove the files of unix sockets that still are ours."""
        for path, identity in self._unix.items():
            try:
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) == identity:
                    os.unlink(path)
            except OSError:  # it was never promised: another process may have made a new one, or taken the folder
                pass


class Group:
    """The SO_REUSEPORT sockets of one address, one a slot. See socket(7)."""

    def __init__(self, spec: SocketSpec, first: socket.socket) -> None:
        self._spec = spec
        self._sockets: list[socket.socket] = [first]  # in the order of listen(2), which is the kernel's index
        self._index: dict[int, int] = {}  # slot -> place in _sockets
        self._chosen: set[int] = set()
        # Where the kernel refuses (seccomp, say), one socket is shared, and told of with the first `apply`.
        self._changed = self._refused = not self._takes_selector()

    def of_slot(self, slot: int) -> int:
        """The slot's own descriptor, or the one shared socket where the kernel takes no selector."""
        if self._refused:
            return self._sockets[0].fileno()
        if slot not in self._index:
            if self._index:
                self._sockets.append(listen_tcp(self._spec))
                self._changed = True
            self._index[slot] = len(self._index)
        return self._sockets[self._index[slot]].fileno()

    def _takes_selector(self) -> bool:
        try:
            self._attach([0])
            self._attach([])
        except OSError:
            return False
        return True

    def select(self, slot: int, *, chosen: bool) -> None:
        """Note whether the kernel may choose the slot's socket."""
        if slot not in self._index:
            return
        if chosen:
            self._chosen.add(self._index[slot])
        else:
            self._chosen.discard(self._index[slot])
        self._changed = True

    def apply(self) -> str:
        """Tell the kernel; returns why it refuses, when it first does."""
        if not self._changed:
            return ""
        self._changed = False
        if not self._refused:
            try:
                self._attach([] if len(self._chosen) == len(self._sockets) else sorted(self._chosen))
            except OSError as error:
                return f"cannot attach the selector of socket {self._spec.name}: {error.strerror}"
            return ""
        return (
            f"cannot use reuse_port of socket {self._spec.name}: the kernel refuses its selector;"
            " all workers share one socket"
        )

    def _attach(self, chosen: list[int]) -> None:
        """Make the kernel choose evenly among these places; among all of them when there are none."""
        sock = self._sockets[0]
        program = selector(chosen)
        if not program:
            try:
                sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
            except OSError as error:
                if error.errno != errno.ENOENT:  # none was attached
                    raise
            return
        code = array("Q", program)
        address, length = code.buffer_info()
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", length, address))

    def waiting(self, slot: int) -> int:
        """How many connections wait on the slot's socket."""
        index = self._index.get(slot)
        return 0 if index is None or self._refused else backlog(self._sockets[index].fileno())

    def close(self) -> int:
        """Close the master's copies; returns how many connections were queued."""
        queued = sum(backlog(s.fileno()) for s in self._sockets)
        for sock in self._sockets:
            sock.close()
        return queued


def selector(chosen: list[int]) -> list[int]:
    """A classic BPF program that returns one of `chosen` at random; each instruction as a 64-bit word.

    Empty, which is to leave the choice to the kernel, for no choice and for more than a program can hold.
    """
    if not chosen or 2 * len(chosen) + 2 > BPF_MAXINSNS:
        return []

    def instruction(code: int, k: int, jump_false: int = 0) -> int:
        return struct.unpack("=Q", struct.pack("=HBBI", code, 0, jump_false, k))[0]  # type: ignore[no-any-return] # struct

    program = [instruction(BPF_LD_W_ABS, SKF_AD_RANDOM), instruction(BPF_MOD_K, len(chosen))]
    for number, index in enumerate(chosen[:-1]):
        program += [instruction(BPF_JEQ_K, number, jump_false=1), instruction(BPF_RET_K, index)]
    return [*program, instruction(BPF_RET_K, chosen[-1])]


def listen_tcp(spec: SocketSpec) -> socket.socket:
    """A listening TCP socket. An empty host is every address of both families, where there are both. Raises OSError."""
    host = spec.host
    family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if host:
            raise
        family, host = socket.AF_INET, "0.0.0.0"
        sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if spec.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        try:
            sock.bind((host, spec.port))
        except OSError as error:
            if host or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            sock.close()  # IPv6 is compiled in but switched off
            return listen_tcp(spec._replace(host="0.0.0.0"))
        sock.listen(spec.backlog)
    except OSError:
        sock.close()
        raise
    return sock


def backlog(fd: int) -> int:
    """How many connections wait to be accepted on a TCP listener; 0 where the kernel does not tell."""
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", info, TCPI_UNACKED)[0]) if len(info) >= TCPI_UNACKED + 4 else 0


def _unlink_stale(path: str) -> None:
    """Remove a socket file that nobody accepts on. Raises OSError (EADDRINUSE when somebody does)."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "the path exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its queue is full: somebody holds it
            pass
    raise OSError(errno.EADDRINUSE, "somebody accepts on it")


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
