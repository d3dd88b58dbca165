"""A web server in plain Python, on the socket that entrypoint hands to every worker of the pool."""

from __future__ import annotations

import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LISTEN_FD = 3  # the first inherited socket, as systemd numbers them


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{os.environ.get('GREETING', 'hello')}, pid {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass  # a line for each request is not what this example is to show


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests in progress

    def __init__(self) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()  # made by the base class, never bound
        self.socket = socket.socket(fileno=LISTEN_FD)
        self.socket.setblocking(False)  # a sibling may be quicker to accept
        self.drained = False

    def handle_timeout(self) -> None:
        self.drained = True

    def drain(self) -> None:
        """Serve what is still queued on the socket, then end."""
        self.timeout = 0
        while not self.drained:
            self.handle_request()
        self.server_close()


server = Server()
# shutdown() waits for serve_forever(), which runs in this very thread: hence the helper thread.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving, pid", os.getpid(), flush=True)
server.serve_forever(poll_interval=0.1)
server.drain()
