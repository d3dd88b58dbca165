"""What workers say about themselves: one is heard at once, those that beat in bulk. See sd_notify(3)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from entrypoint.core import events as ev
from entrypoint.linux import kernel
from entrypoint.master.notify.beats import Beats
from entrypoint.master.notify.channel import Channel

if TYPE_CHECKING:
    from entrypoint.master.log import Log
    from entrypoint.master.notify.channel import Read
    from entrypoint.master.part import Tell
    from entrypoint.master.reactor import Reactor
    from entrypoint.master.running import Running

LAST_WORDS = 16  # batches of messages that are read of a worker that has ended


class Messages:
    """The sockets that workers speak to."""

    def __init__(self, reactor: Reactor, tell: Tell, log: Log) -> None:
        self.rejected = 0  # messages of strangers
        self.beats = Beats(reactor, tell, self.heard)
        self._reactor = reactor
        self._tell = tell
        self._log = log
        self._token = os.urandom(8).hex()
        self._channels: dict[int, Channel] = {}  # by serial

    def open(self, serial: int) -> str:
        """Make a socket for a life of a worker; returns its address. Raises OSError."""
        channel = self._channels[serial] = Channel(self._token, serial)
        kernel.leave_descriptors(channel.fd)
        return channel.address

    def drop(self, serial: int) -> None:
        """There is to be no such life."""
        channel = self._channels.pop(serial, None)
        if channel is not None:
            channel.close()

    def listen(self, running: Running) -> None:
        """Hear a worker from now on, if it has a socket. Raises OSError."""
        channel = self._channels.get(running.serial)
        if channel is not None:
            self._reactor.watch(channel.fd, lambda: self._hear(running, channel))

    def _hear(self, running: Running, channel: Channel) -> None:
        """Hear a worker; one that beats is heard in bulk with the others from then on."""
        read = channel.read(running.pid, running.uid)
        self.heard(running, read)
        if any(said.beat for said in read.messages):
            try:
                self.beats.add(running, channel)
            except OSError:  # no descriptor or memory left: it is heard all the same
                pass

    def heard(self, running: Running, read: Read) -> None:
        """Tell the core what a worker has said."""
        for said in read.messages:
            self._tell(
                ev.Notified(running.serial, said.ready, said.beat, said.hung, said.stopping, said.extend, said.status)
            )
            if said.mainpid and not running.warned:
                running.warned = True
                reason = "a worker cannot name another"
                self._log.emit("warning", "main_pid_ignored", **running.fields, reason=reason)
        if read.refused:
            self.rejected += read.refused
            if not running.refused:
                running.refused = True
                error = "cannot accept a message: not from the worker or a descendant of it, or too long"
                self._log.emit("warning", "message_refused", **running.fields, error=error)

    def hang_up(self, running: Running) -> None:
        """Read the last words of a worker that has ended."""
        channel = self._channels.pop(running.serial, None)
        if channel is None:
            return
        for _ in range(LAST_WORDS):
            read = channel.read(running.pid, running.uid)
            self.heard(running, read)
            if not read.more:
                break
        self._reactor.unwatch(channel.fd)
        self.beats.remove(channel.fd)
        channel.close()
