"""Heartbeats, heard in bulk: a thousand workers that beat every second must not wake the master a thousand times."""

from __future__ import annotations

import select
import time
from _socket import MSG_DONTWAIT
from typing import TYPE_CHECKING

from entrypoint.core import events as ev
from entrypoint.master.notify.channel import BEAT_TEXT, MAX_MESSAGE, ROOM
from entrypoint.master.reactor import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.master.notify.channel import Channel, Datagram, Read
    from entrypoint.master.part import Tell
    from entrypoint.master.reactor import Reactor
    from entrypoint.master.running import Running

PAUSE = 0.03  # seconds; a hang is noticed so much late at most, as the last beat may have been heard so late
ONCE = select.EPOLLIN | select.EPOLLONESHOT


class Beats:
    """The sockets of the workers that beat, in an epoll of their own, looked into once a PAUSE.

    What these workers say besides comes as late. Before a deadline is judged, everybody is heard.
    """

    def __init__(self, reactor: Reactor, tell: Tell, heard: Callable[[Running, Read], None]) -> None:
        """`heard` gets what they say besides."""
        self.timer = reactor.timer(self.hear)
        self._reactor = reactor
        self._tell = tell
        self._heard = heard
        self._epoll: select.epoll | None = None
        # By descriptor: how to receive, and the credentials that come with what the worker itself says.
        self._beating: dict[int, tuple[Callable[[int, int, int], Datagram], object, Running, Channel]] = {}

    def add(self, running: Running, channel: Channel) -> None:
        """Hear a worker here from now on. Raises OSError; then nothing has changed."""
        if self._epoll is None:
            epoll = select.epoll()
            self._reactor.watch(epoll.fileno(), self.hear, ONCE)
            self._epoll = epoll
        self._epoll.register(channel.fd, select.EPOLLIN)
        self._reactor.unwatch(channel.fd)
        self._beating[channel.fd] = channel.receive, channel.own, running, channel

    def remove(self, fd: int) -> None:
        """Forget the worker, if it is heard here; to be called before the descriptor is closed."""
        if self._beating.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def hear(self) -> None:
        """Hear everybody who has something to say; then again after a pause, or, if nobody had, when somebody has."""
        if self._epoll is None:
            return
        ready = self._epoll.poll(0, max(1, len(self._beating)))
        beats = []
        for fd, _ in ready:
            if fd not in self._beating:  # what another one said has ended it
                continue
            receive, own, running, channel = self._beating[fd]
            try:
                received = receive(MAX_MESSAGE, ROOM, MSG_DONTWAIT)
            except OSError:
                continue
            if received[0] == BEAT_TEXT and received[1] == own:  # what follows it comes with the next look
                beats.append(running.serial)
            else:
                read = channel.read(running.pid, running.uid, first=received)
                self._heard(running, read)
        if beats:
            self._tell(ev.Beats(tuple(beats)))
        if ready:
            self.timer.arm(time.monotonic() + PAUSE)
        else:
            self.timer.arm(NEVER)
            self._reactor.rewatch(self._epoll.fileno(), ONCE)
