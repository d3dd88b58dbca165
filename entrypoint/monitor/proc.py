"""What /proc shows of a worker: whether it accepts connections on a socket. See proc(5)."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from entrypoint.linux.proc import children, is_dead, read, tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOLL = "anon_inode:[eventpoll]"
IO_URING = "anon_inode:[io_uring]"
READABLE = 0x41  # EPOLLIN and EPOLLRDNORM, POLLIN and POLLRDNORM
TCP_LISTEN = b"0A"
SO_ACCEPTCON = 0x10000  # a flag of /proc/net/unix
MAX_POLLED = 65536  # descriptors of one poll() or select() that are read

# Numbers of the system calls in which a thread waits for a connection.
_X86_64 = {43: "accept", 288: "accept", 23: "select", 270: "select", 7: "poll", 271: "poll", 426: "io_uring"}
_GENERIC = {202: "accept", 242: "accept", 72: "select", 73: "poll", 426: "io_uring"}
_CALLS = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}.get(os.uname().machine, {})
# Functions of the kernel in which a thread sleeps that is in accept().
_ACCEPTING = ("inet_csk_accept", "unix_accept")

YES, NO, UNSURE = "yes", "no", "unsure"


class View(NamedTuple):
    """What a look at a worker has shown."""

    accepts: bool
    refused: str = ""  # why one of its processes cannot be looked into
    unsure: bool = False  # one holds the socket, but what its threads wait for is hidden


def look(pid: int, inodes: frozenset[int]) -> View:
    """Whether a process or a descendant of it accepts on one of the sockets; without inodes, on any of its own.

    It does when it waits for the socket with accept, select, poll, epoll or io_uring, or, so busy that it never waits,
    has accepted a connection. Holding the socket proves nothing: a gunicorn arbiter does so for its workers. Raises
    ProcessLookupError when the process is gone.
    """
    wanted = {f"socket:[{inode}]" for inode in inodes}
    refused = ""
    unsure = False
    for process in _tree(pid):
        try:
            answer = _examine(process, wanted)
        except PermissionError:
            if not is_dead(process):  # a zombie has no descriptors, and belongs to root
                refused = f"cannot look into /proc/{process}: permission denied"
        except (FileNotFoundError, ProcessLookupError):
            if process == pid and not gone(pid):  # /proc is mounted with hidepid
                refused = f"cannot look into /proc/{process}: hidden"
        else:
            if answer == YES:
                return View(accepts=True)
            unsure = unsure or answer == UNSURE
    return View(accepts=False, refused=refused, unsure=unsure)


def gone(pid: int) -> bool:
    """Whether there is no such process any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _tree(pid: int) -> Iterator[int]:
    """A process and its descendants. Raises ProcessLookupError."""
    if gone(pid):
        raise ProcessLookupError
    level = [pid]
    while level:
        yield from level
        level = [child for parent in level for child in children(parent)]


def _examine(pid: int, wanted: set[str]) -> str:
    try:
        return _accepts(pid, wanted)
    except PermissionError:
        with _as_owner(pid):
            return _accepts(pid, wanted)


@contextmanager
def _as_owner(pid: int) -> Iterator[None]:
    """Be the owner of a process for a moment: that one may look where root without CAP_SYS_PTRACE may not.

    Only the effective ids change, so the owner gets no chance to send us a signal. Raises PermissionError.
    """
    owner = os.stat(f"/proc/{pid}")
    if os.geteuid() != 0 or owner.st_uid == 0:
        raise PermissionError
    group = os.getegid()
    os.setegid(owner.st_gid)
    try:
        os.seteuid(owner.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
    finally:
        os.setegid(group)


def _accepts(pid: int, wanted: set[str]) -> str:
    links = _links(pid)
    if not wanted:
        own = {link for link in links.values() if link.startswith("socket:")}
        return YES if own and own & _listening(pid) - _held_by_master() else NO
    held = {fd for fd, link in links.items() if link in wanted}
    if not held:
        return NO
    polls = False
    for fd, link in links.items():
        if link == EPOLL:
            entries = _polled(pid, fd, links)
            if entries & wanted:
                return YES
            polls = polls or bool(entries)
    answer = _threads(pid, held, uring=IO_URING in links.values())
    if answer != YES and _has_accepted(pid, set(links.values()), wanted):
        return YES
    # A server that has an event loop, but not yet with its socket in it, is on the way there.
    return NO if answer == UNSURE and polls else answer


def _links(pid: int) -> dict[int, str]:
    """What its descriptors lead to. Raises OSError."""
    links = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            links[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:  # closed in the meantime
            continue
    return links


def _polled(pid: int, fd: int, links: dict[int, str]) -> set[str]:
    """What an epoll instance waits for until it can be read; descriptors are named as in /proc/PID/fd."""
    found: set[str] = set()
    try:
        lines = read(f"/proc/{pid}/fdinfo/{fd}").splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        words = line.split()  # tfd: 5 events: 19 data: 5 pos:0 ino:1f2b sdev:8
        if words[:1] != [b"tfd:"] or not int(words[3], 16) & READABLE:
            continue
        # The number is that of the time when it was added; the inode, where the kernel shows it, is the truth.
        inode = [int(word[4:], 16) for word in words if word.startswith(b"ino:")]
        found.add(f"socket:[{inode[0]}]" if inode else links.get(int(words[1]), ""))
    return found


def _threads(pid: int, held: set[int], *, uring: bool) -> str:
    """Whether a thread waits for one of those descriptors in a system call."""
    unsure = False
    for task in tasks(pid):
        waits: bool | None = None
        try:
            if _CALLS:
                waits = _waits(pid, read(f"{task}/syscall").split(), held, uring=uring)
        except (PermissionError, FileNotFoundError):  # as Yama has it; a kernel without it
            pass
        except (OSError, ValueError):  # it is gone, or its arguments make no sense
            waits = False
        if waits is None:
            waits = _sleeps_in(task) in _ACCEPTING
            unsure = unsure or not waits
        if waits:
            return YES
    return UNSURE if unsure else NO


def _sleeps_in(task: str) -> str:
    try:
        return read(f"{task}/wchan").decode()
    except OSError:
        return ""


def _waits(pid: int, words: list[bytes], held: set[int], *, uring: bool) -> bool:
    """Whether the system call of a thread waits for one of the descriptors; `words` are of /proc/PID/task/TID/syscall.

    Raises OSError when it takes a look at memory that cannot be read.
    """
    if len(words) < 7:  # running, or asleep for another reason
        return False
    call = _CALLS.get(int(words[0]), "")
    first, second = (int(word, 16) for word in words[1:3])
    if call == "accept":
        return first & 0xFFFFFFFF in held
    if call == "poll":
        count = min(second & 0xFFFFFFFF, MAX_POLLED)
        entries = struct.iter_unpack("iHH", _memory(pid, first, 8 * count))
        return any(fd in held and events & READABLE for fd, events, _ in entries)
    if call == "select" and second:
        bits = int.from_bytes(_memory(pid, second, (min(first, MAX_POLLED) + 63) // 64 * 8), "little")
        return any(fd < first and bits >> fd & 1 for fd in held)
    return call == "io_uring" and uring


def _memory(pid: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    except OverflowError:
        return b""
    finally:
        os.close(fd)


def _listening(pid: int) -> set[str]:
    """Every socket in the network of the process that somebody listens on."""
    found = set()
    for name in ("tcp", "tcp6"):
        for words in _table(f"/proc/{pid}/net/{name}"):
            if words[3] == TCP_LISTEN:
                found.add(f"socket:[{int(words[9])}]")
    for words in _table(f"/proc/{pid}/net/unix"):
        if int(words[3], 16) & SO_ACCEPTCON:
            found.add(f"socket:[{int(words[6])}]")
    return found


def _has_accepted(pid: int, own: set[str], wanted: set[str]) -> bool:
    """Whether one of its sockets is a connection that was made to one of the listening ones."""
    mine = {int(link[8:-1]) for link in own - wanted if link.startswith("socket:")}
    if not mine:
        return False
    listening = {int(link[8:-1]) for link in wanted}
    for name in ("tcp", "tcp6"):
        rows = [(int(words[9]), words[3], words[1].rpartition(b":")[2]) for words in _table(f"/proc/{pid}/net/{name}")]
        ports = {port for inode, _, port in rows if inode in listening}
        if any(inode in mine and state != TCP_LISTEN and port in ports for inode, state, port in rows):
            return True
    named = [words for words in _table(f"/proc/{pid}/net/unix") if len(words) > 7]
    paths = {words[7] for words in named if int(words[6]) in listening}
    return any(int(words[6]) in mine and words[7] in paths for words in named)


def _table(path: str) -> list[list[bytes]]:
    try:
        return [line.split() for line in read(path).splitlines()[1:]]
    except OSError:  # no IPv6, for example
        return []


def _held_by_master() -> set[str]:
    """The master's own sockets: a worker that happens to have one does not serve it."""
    try:
        return {link for link in _links(os.getppid()).values() if link.startswith("socket:")}
    except OSError:
        return set()
