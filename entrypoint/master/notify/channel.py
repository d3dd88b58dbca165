"""What workers tell the master, in systemd's notification protocol. See sd_notify(3) and unix(7)."""

# Every life of a worker has a datagram socket of its own, so that a message needs no look-up to tell whose it is, and a
# flood from one worker fills no other's queue. It is abstract, so it needs no writable path. The address is no secret:
# who sent a message, the kernel says (SO_PASSCRED).

from __future__ import annotations

# Not `socket`, which is half a megabyte of names that PID 1 has no use for.
import _socket
import os
from typing import TYPE_CHECKING, Any

from entrypoint.linux import proc
from entrypoint.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    # What recvmsg returns: data, control messages, flags, address.
    Datagram = tuple[bytes, list[tuple[int, int, bytes]], int, Any]

MAX_MESSAGE = 4096  # bytes
MAX_LINES = 64  # of one message
MAX_STATUS = 256  # bytes
MAX_DIGITS = 20  # of a number: as many as 64 bits have
MAX_EXTEND = 86400.0  # seconds
MAX_STEPS = 64  # from a sender up to its worker

# Room for the credentials, which the kernel puts first, and for nothing else: descriptors that somebody passes do not
# fit, so that the kernel closes them at once. That is all that BARRIER=1 asks for (see sd_notify_barrier(3)), what
# FDSTORE=1 gets, and it works when the master has no descriptor left.
ROOM = _socket.CMSG_SPACE(12)  # struct ucred


class Message(Record):
    """What one datagram says."""

    ready: bool = False
    beat: bool = False
    hung: bool = False  # the worker wants to be treated as hung
    stopping: bool = False
    reloading: bool = False
    extend: float = 0.0  # seconds that it asks for, from now on; 0: it does not ask
    status: str | None = None  # printable, at most MAX_STATUS bytes of UTF-8
    busy: bool | None = None
    requests: int | None = None
    mainpid: bool = False  # it tried to name another main process


class Read(Record):
    """What was there to read."""

    messages: list[Message]  # in order; a beat after a beat is left out, and so is what says nothing
    refused: int  # datagrams of strangers, and too long ones
    more: bool  # the limit was met: there may be more


FLAGS = {
    b"READY=1": "ready",
    b"WATCHDOG=1": "beat",
    b"WATCHDOG=trigger": "hung",
    b"STOPPING=1": "stopping",
    b"RELOADING=1": "reloading",
}
BEAT = Message(beat=True)
BEAT_TEXT = b"WATCHDOG=1"


class Channel:
    """The notification socket of one life of a worker. Nothing but its making raises (OSError).

    `fd` is to be waited on, and to be taken out of an epoll before `close`: a child that is just being forked keeps
    a copy until it executes its program.
    """

    __slots__ = ("_socket", "address", "fd", "own")

    def __init__(self, token: str, serial: int) -> None:
        name = f"entrypoint/{token}/{serial}"
        self._socket = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        try:
            # Before the socket has an address: a message that came earlier would have no credentials.
            self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            self._socket.bind(f"\0{name}")
        except OSError:
            self._socket.close()
            raise
        self.address = f"@{name}"  # for NOTIFY_SOCKET
        self.fd = self._socket.fileno()
        self.own: object = None  # the credentials that come with what the worker itself says, once it has

    @property
    def receive(self) -> Callable[[int, int, int], Datagram]:
        """Read one datagram as `read` does, without a look at it. Raises OSError."""
        return self._socket.recvmsg

    def read(self, pid: int, uid: int, most: int = 32, first: Datagram | None = None) -> Read:
        """Read at most `most` datagrams for the worker `pid`, 0 when that is not known yet, which runs as `uid`.

        `first` has been received already.
        """
        messages: list[Message] = []
        refused = 0
        verdicts: dict[tuple[int, int], bool] = {}  # of this batch only: pids are used again
        for _ in range(most):
            try:
                received = first or self._socket.recvmsg(MAX_MESSAGE, ROOM, _socket.MSG_DONTWAIT)
            except OSError:  # EAGAIN; or no memory, and epoll comes back to it
                return Read(messages, refused, False)
            first = None
            data, control, flags, _address = received
            sender = _credentials(control)
            if sender[0] == pid != 0:
                self.own = control
            else:
                if sender not in verdicts:
                    verdicts[sender] = _may_speak(*sender, pid, uid)
                if not verdicts[sender]:
                    refused += 1
                    continue
            if flags & _socket.MSG_TRUNC:
                refused += 1
                continue
            message = parse(data)
            if message is not None and not (messages and message == messages[-1] == BEAT):
                messages.append(message)
        return Read(messages, refused, True)

    def close(self) -> None:
        """Close the socket; whoever still writes to it gets ECONNREFUSED."""
        try:
            self._socket.close()
        except OSError:
            pass


# -- what a message says --------------------------------------------------------------------------------------


def parse(data: bytes) -> Message | None:
    """What a datagram says; None when that is nothing which concerns the master. Of a repeated key the last counts."""
    if data == BEAT_TEXT:  # most of them, and there may be a thousand a second
        return BEAT
    said: dict[str, Any] = {}
    for line in data.split(b"\n", MAX_LINES)[:MAX_LINES]:
        if line in FLAGS:
            said[FLAGS[line]] = True
            continue
        key, _, value = line.partition(b"=")
        if key == b"STATUS":
            said["status"] = _printable(value)
        elif key == b"MAINPID":
            said["mainpid"] = True
        elif key == b"X_ENTRYPOINT_BUSY" and value in (b"0", b"1"):
            said["busy"] = value == b"1"
        elif value.isdigit() and len(value) <= MAX_DIGITS:
            if key == b"EXTEND_TIMEOUT_USEC":
                said["extend"] = min(int(value) / 1e6, MAX_EXTEND)
            elif key == b"X_ENTRYPOINT_REQUESTS":
                said["requests"] = int(value)
    return Message(**said) if said else None


def _printable(value: bytes) -> str:
    """The text, which goes to people's terminals, without anything that could control one, and cut to its size."""
    text = value.decode(errors="replace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text.encode()[:MAX_STATUS].decode(errors="ignore")


# -- who says it ----------------------------------------------------------------------------------------------


def _credentials(control: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """The pid and uid that the kernel vouches for; pid 0 when it knows none that means anything here."""
    for level, kind, data in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS and len(data) == 12:
            pid, uid, _gid = memoryview(data).cast("I")
            return pid, uid
    return 0, 0


def _may_speak(sender: int, sender_uid: int, pid: int, uid: int) -> bool:
    """Whether a process may speak for the worker `pid`: its descendants may; where none can tell, the uid decides.

    None can tell of a sender that is gone, as a `systemd-notify` in a script is before anybody can look, and of
    any sender while the worker's own pid is not known.
    """
    if sender == 0:  # of another pid namespace
        return False
    descends = _descends(sender, pid) if pid else None
    return sender_uid == uid if descends is None else descends


def _descends(sender: int, pid: int) -> bool | None:
    """Whether a process belongs to the worker `pid`; None when it, or one on the way up to the worker, is gone.

    Most are in the worker's process group: one cheap call says so, also of orphans, whose parent is the master by now.
    Those that left it, as the jobs of a shell do, are looked for in /proc.
    """
    try:
        if os.getpgid(sender) == pid:
            return True
    except ProcessLookupError:
        return None
    except OSError:  # a security module that hides it
        pass
    dead = False
    at = sender
    for _ in range(MAX_STEPS):
        found = proc.stat(at)
        if found is None:
            return None
        state, parent, group = found[proc.STATE], int(found[proc.PARENT]), int(found[proc.GROUP])
        if pid in (parent, group):
            return True
        if at == sender:
            dead = state in (b"Z", b"X")
        if parent <= 1:
            break
        at = parent
    return None if dead else False
