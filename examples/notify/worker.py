"""A worker that says how it is: ready when it has started up, a heartbeat with each piece of work, what it does."""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import socket

faulthandler.enable()  # a hung worker gets ABRT, and with this it tells where it hangs


def notify(text: str) -> None:
    """Tell the master, if there is one. See sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), address.replace("@", "\0", 1))


def work() -> None:
    """One piece of work takes half a second; after USR1 it never ends."""
    signum = signal.sigtimedwait({signal.SIGTERM, signal.SIGUSR1}, 0.5)
    if signum is not None and signum.si_signo == signal.SIGTERM:
        notify("STOPPING=1")
        print(f"{name}: asked to stop", flush=True)
        raise SystemExit
    if signum is not None:
        print(f"{name}: hangs", flush=True)
        while True:
            signal.sigtimedwait((), 3600)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
name = os.environ.get("ENTRYPOINT_WORKER", "worker")
print(f"{name}: at work, pid {os.getpid()}", flush=True)
notify("READY=1")
for count in itertools.count(1):
    work()
    notify(f"WATCHDOG=1\nSTATUS={count} pieces of work done")
