"""What the master holds of one address: a socket for all workers, or one for each slot."""

# The kernel hashes connections also to SO_REUSEPORT sockets that nobody accepts on. So a classic BPF program
# (SO_ATTACH_REUSEPORT_CBPF) picks only those with a working worker, at random. It is attached again on each change, and
# before a stop signal that depends on it. Where the kernel refuses it, one socket is shared, with a warning.

from __future__ import annotations

import _socket as socket  # as in `held`
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entrypoint.config.spec import Socket as SocketSpec

# Offsets in struct tcp_info; for a listener, the connections that wait to be accepted and how many may.
TCPI_UNACKED, TCPI_SACKED = 24, 28
SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF = 51, 68  # asm-generic/socket.h

# Classic BPF, see linux/filter.h and linux/bpf_common.h.
BPF_LD_W_ABS, BPF_MOD_K, BPF_JEQ_K, BPF_RET_K, BPF_RET_A = 0x20, 0x94, 0x15, 0x06, 0x16
SKF_AD_RANDOM = 0xFFFFF000 + 56
BPF_MAXINSNS = 4096


class Shared:
    """One socket for all workers."""

    def __init__(self, spec: SocketSpec, sock: socket.socket) -> None:
        self.spec = spec
        self.sockets = [sock]

    def of_slot(self, slot: int) -> int:  # noqa: ARG002 - a group's differ
        """The descriptor for the worker in that slot. Raises OSError."""
        return self.sockets[0].fileno()

    def select(self, slot: int, *, chosen: bool) -> None:
        """Note whether the kernel may choose the slot's own socket."""

    def apply(self) -> str:
        """Tell the kernel; returns why it refuses, when it first does."""
        return ""

    def waiting(self, slot: int) -> int:  # noqa: ARG002 - a group's differ
        """How many connections wait on the slot's own socket."""
        return 0

    def queued(self) -> int:
        """How many connections wait to be accepted; 0 where the kernel does not tell."""
        return sum(backlog(sock)[0] for sock in self.sockets) if self.spec.kind != "unix" else 0

    def limit(self) -> int:
        """How many connections may wait. A server may have set a limit of its own."""
        if self.spec.kind == "unix":
            return self.spec.backlog
        return sum(backlog(sock)[1] or self.spec.backlog for sock in self.sockets)

    def close(self) -> None:
        """Close the master's copies."""
        for sock in self.sockets:
            sock.close()


class Group(Shared):
    """The SO_REUSEPORT sockets of one address, one a slot, in the order of listen(2). See socket(7).

    That order is the kernel's index of them as long as they are all there is at the address, and none is closed.
    """

    def __init__(self, spec: SocketSpec, first: socket.socket) -> None:
        super().__init__(spec, first)
        self._index: dict[int, int] = {}  # slot -> place in `sockets`
        self._chosen: set[int] = set()
        # Where the kernel refuses (seccomp, say), one socket is shared, and told of with the first `apply`.
        self._changed = self._refused = not self._takes_selector()

    def of_slot(self, slot: int) -> int:
        """The slot's own descriptor, or the one shared socket where the kernel takes no selector."""
        if self._refused:
            return self.sockets[0].fileno()
        if slot not in self._index:
            if self._index:
                self._add()
            self._index[slot] = len(self._index)
        return self.sockets[self._index[slot]].fileno()

    def _add(self) -> None:
        sock = bind_tcp(self.spec)
        try:
            if self._chosen:
                # From listen(2) on the kernel would choose it, too, where it has no selector because all are chosen.
                try:
                    self._attach(sorted(self._chosen))
                except OSError:  # as `apply` is going to say
                    pass
            sock.listen(self.spec.backlog)
        except OSError:
            sock.close()
            raise
        self.sockets.append(sock)
        self._changed = True

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
        if self._refused:
            return (
                f"cannot use reuse_port of socket {self.spec.name}: the kernel refuses its selector;"
                " all workers share one socket"
            )
        # With none to choose the last ones stay: a successor is going to serve their queue, while the sockets of slots
        # that are out of use may never see a worker again.
        if self._chosen:
            try:
                self._attach([] if len(self._chosen) == len(self.sockets) else sorted(self._chosen))
            except OSError as error:
                return f"cannot attach the selector of socket {self.spec.name}: {error.strerror}"
        return ""

    def _attach(self, chosen: list[int]) -> None:
        """Make the kernel choose evenly among these places; among all of them when there are none."""
        sock = self.sockets[0]
        program = selector(chosen)
        if not program:
            try:
                sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
            except OSError as error:
                if error.errno != errno.ENOENT:  # none was attached
                    raise
            return
        import struct  # neither is in the way of the first worker where no socket is `reuse_port`
        from array import array

        code = array("Q", program)
        location, length = code.buffer_info()
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", length, location))

    def waiting(self, slot: int) -> int:
        """How many connections wait on the slot's socket."""
        index = self._index.get(slot)
        return 0 if index is None or self._refused else backlog(self.sockets[index])[0]


def selector(chosen: list[int]) -> list[int]:
    """A classic BPF program that returns one of `chosen` at random; each instruction as a 64-bit word.

    Empty, which is to leave the choice to the kernel, for no choice and for more than a program can hold.
    """
    if not chosen or 2 * len(chosen) + 2 > BPF_MAXINSNS:
        return []

    import struct

    def instruction(code: int, k: int, jump_false: int = 0) -> int:
        return struct.unpack("=Q", struct.pack("=HBBI", code, 0, jump_false, k))[0]  # type: ignore[no-any-return] # struct

    program = [instruction(BPF_LD_W_ABS, SKF_AD_RANDOM), instruction(BPF_MOD_K, len(chosen))]
    for number, index in enumerate(chosen[:-1]):
        program += [instruction(BPF_JEQ_K, number, jump_false=1), instruction(BPF_RET_K, index)]
    return [*program, instruction(BPF_RET_K, chosen[-1])]


def bind_tcp(spec: SocketSpec) -> socket.socket:
    """A bound TCP socket. An empty host is every address of both families, where there are both. Raises OSError."""
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
        sock.bind((host, spec.port))
    except OSError as error:
        sock.close()
        if host or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        return bind_tcp(spec._replace(host="0.0.0.0"))  # IPv6 is compiled in but switched off
    return sock


def listen_tcp(spec: SocketSpec) -> socket.socket:
    """A listening TCP socket. Raises OSError."""
    sock = bind_tcp(spec)
    try:
        sock.listen(spec.backlog)
    except OSError:
        sock.close()
        raise
    return sock


def backlog(sock: socket.socket) -> tuple[int, int]:
    """How many connections wait to be accepted on a TCP listener, and how many may; 0 where that is not known."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_SACKED + 4)
    except OSError:
        return 0, 0
    if len(info) < TCPI_SACKED + 4:
        return 0, 0
    import struct

    waiting, most = struct.unpack_from("=II", info, TCPI_UNACKED)
    return waiting, most
