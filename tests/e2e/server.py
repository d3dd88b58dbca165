"""A web server that loses no request: HTTP/1.1, connections are kept, on the socket that entrypoint hands over.

An answer says which configuration and which container gave it. On TERM the server accepts no more; who has been
accepted gets an answer, and connections that are idle are closed, as servers do.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time

LISTEN_FD = 3  # the first inherited socket, as systemd numbers them
PATIENCE = 1.0  # seconds that who is connected has to send the request, once the server is to end

BODY = f"{os.environ.get('GREETING', 'hello')} {os.uname().nodename}\n"


class Server:
    def __init__(self) -> None:
        self.listener = socket.socket(fileno=LISTEN_FD)
        self.listener.setblocking(False)  # a sibling may be quicker to accept
        self.received: dict[socket.socket, bytes] = {}
        self.served: set[socket.socket] = set()
        self.stopping = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        wakeup, sender = socket.socketpair()
        sender.setblocking(False)
        self.selector.register(wakeup, selectors.EVENT_READ)
        self.wakeup = (wakeup, sender)
        signal.set_wakeup_fd(sender.fileno())
        signal.signal(signal.SIGTERM, lambda *_: None)

    def run(self) -> None:
        while not self.stopping:
            self.turn(None)
        while self.accept():  # the last worker to close the socket would refuse who is still queued
            pass
        self.selector.unregister(self.listener)
        self.listener.close()
        self.turn(0)  # what has arrived is answered
        for connection in [*self.served]:
            self.close(connection)
        deadline = time.monotonic() + PATIENCE
        while self.received and (left := deadline - time.monotonic()) > 0:
            self.turn(left)

    def turn(self, timeout: float | None) -> None:
        for key, _ in self.selector.select(timeout):
            if key.fileobj is self.listener:
                self.accept()
            elif key.fileobj is self.wakeup[0]:
                self.wakeup[0].recv(64)
                self.stopping = True
            elif isinstance(key.fileobj, socket.socket):
                self.read(key.fileobj)

    def accept(self) -> bool:
        """Whether there was somebody."""
        try:
            connection, _ = self.listener.accept()
        except (BlockingIOError, ConnectionError):
            return False
        self.received[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ)
        return True

    def read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
            self.received[connection] += data
            if not data:
                self.close(connection)
            elif self.received[connection].endswith(b"\r\n\r\n"):  # they are all GET, and nobody sends two at once
                last = self.stopping or b"\r\nconnection: close\r\n" in self.received[connection].lower()
                more = "Connection: close\r\n" if last else ""
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(BODY)}\r\n{more}\r\n"
                connection.sendall((head + BODY).encode())
                self.received[connection] = b""
                self.served.add(connection)
                if last:
                    self.close(connection)
        except ConnectionError:
            self.close(connection)

    def close(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        self.served.discard(connection)
        del self.received[connection]
        connection.close()


Server().run()
