"""`ready: accepting`: real servers, looked at by a real monitor. Each waits at a gate before it begins to accept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.Popen[bytes]"]
BEFORE = 0.6  # seconds of silence while the gate is shut
NO_PTRACE = ("setpriv", "--inh-caps=-all", "--bounding-set=-sys_ptrace")  # as root in a container
NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups")

SERVER = r"""
// server MODE: reads one byte from descriptor 0, then waits for a connection on descriptor 3 in the way of MODE.
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <unistd.h>

static void *accept_forever(void *unused) { for (;;) close(accept(3, 0, 0)); return unused; }

static int own(void) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bind(fd, (struct sockaddr *)&any, sizeof any);
    return fd;
}

int main(int argc, char **argv) {
    char *mode = argv[argc - 1], byte;
    int other[2];
    pipe(other);
    if (!strcmp(mode, "undumpable")) prctl(PR_SET_DUMPABLE, 0);
    if (!strcmp(mode, "idle-epoll")) {  // an event loop without the socket, yet
        int loop = epoll_create1(0);
        struct epoll_event event = {.events = EPOLLIN};
        epoll_ctl(loop, EPOLL_CTL_ADD, other[0], &event);
    }
    int early = !strcmp(mode, "own") ? own() : -1;
    read(0, &byte, 1);
    if (!strcmp(mode, "accept")) accept_forever(0);
    if (!strcmp(mode, "accept4")) for (;;) close(accept4(3, 0, 0, SOCK_CLOEXEC));
    if (!strcmp(mode, "accept-other")) { int fd = own(); listen(fd, 5); accept(fd, 0, 0); }
    if (!strcmp(mode, "thread")) {
        pthread_t thread;
        pthread_create(&thread, 0, accept_forever, 0);
        pause();
    }
    if (!strcmp(mode, "child")) {
        if (!fork()) accept_forever(0);
        wait(0);
    }
    if (!strcmp(mode, "grandchild")) {
        if (!fork()) { if (!fork()) accept_forever(0); wait(0); }
        wait(0);
    }
    struct pollfd polled[2] = {{.fd = other[0], .events = POLLIN}, {.fd = 3, .events = POLLIN}};
    struct timespec forever = {.tv_sec = 1000};
    if (!strcmp(mode, "poll")) poll(polled, 2, 1000000);
    if (!strcmp(mode, "ppoll")) ppoll(polled, 2, &forever, 0);
    if (!strcmp(mode, "poll-other")) poll(polled, 1, 1000000);
    fd_set set;
    FD_ZERO(&set);
    if (strcmp(mode, "select-other")) FD_SET(3, &set); else FD_SET(other[0], &set);
    struct timeval long_time = {.tv_sec = 1000};
    if (!strncmp(mode, "select", 6)) select(64, &set, 0, 0, &long_time);
    if (!strcmp(mode, "pselect")) pselect(4, &set, 0, 0, &forever, 0);
    if (!strncmp(mode, "epoll", 5)) {
        int loop = epoll_create1(0);
        struct epoll_event event = {.events = strcmp(mode, "epoll-nothing") ? EPOLLIN : 0};
        epoll_ctl(loop, EPOLL_CTL_ADD, dup(3), &event);
        epoll_wait(loop, &event, 1, -1);
    }
    if (early >= 0) listen(early, 5);
    pause();
}
"""

# Runs a command with a socket as its descriptor 3, as the master would.
WITH_SOCKET = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execvp(sys.argv[2], sys.argv[2:])"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("server")
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(0o755)
    (folder / "server.c").write_text(SERVER)
    subprocess.run(["gcc", "-w", "-pthread", "-o", folder / "server", folder / "server.c"], check=True)
    return str(folder / "server")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def inode(listener: socket.socket) -> int:
    return os.fstat(listener.fileno()).st_ino


class Gate:
    """A FIFO that a server reads to its end before it begins."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"
        os.mkfifo(self.path)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Wait until somebody stands at the gate, and let them wait."""
        deadline = time.monotonic() + 20
        while True:
            try:
                fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                break
        try:
            yield
        finally:
            os.close(fd)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def serve(run: Run, listener: socket.socket, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    fd = listener.fileno()
    return run([sys.executable, "-S", "-c", WITH_SOCKET, str(fd), *argv], pass_fds=[fd], **options)


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.write(b"x")
    process.stdin.flush()


def wait_for_exec(pid: int, name: str) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        assert time.monotonic() < deadline
        time.sleep(0.01)


C_MODES = ["accept", "accept4", "thread", "child", "grandchild", "poll", "ppoll", "select", "pselect", "epoll"]


@pytest.mark.parametrize("mode", C_MODES)
def test_a_server_is_ready_when_it_waits_for_connections(
    monitor: Any, run: Run, server: str, listener: socket.socket, mode: str
) -> None:
    worker = serve(run, listener, [server, mode], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(BEFORE)
    go(worker)
    assert monitor.wait_for("ready") == {"saw": "ready", "serial": 1}
    monitor.hears_nothing(0.3)


def test_a_server_that_accepts_already_is_ready_at_once(
    monitor: Any, run: Run, server: str, listener: socket.socket
) -> None:
    worker = serve(run, listener, [server, "accept"], stdin=subprocess.PIPE)
    go(worker)
    wait_for_exec(worker.pid, "server")
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.wait_for("ready")


@pytest.mark.parametrize(
    "mode", ["accept-other", "poll-other", "select-other", "epoll-nothing", "idle-epoll", "nothing"]
)
def test_holding_the_socket_is_not_accepting(
    monitor: Any, run: Run, server: str, listener: socket.socket, mode: str
) -> None:
    worker = serve(run, listener, [server, mode], stdin=subprocess.PIPE)
    go(worker)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(1)


def test_accepting_on_another_socket_is_not_enough(
    monitor: Any, run: Run, server: str, listener: socket.socket
) -> None:
    worker = serve(run, listener, [server, "epoll"], stdin=subprocess.PIPE)
    go(worker)
    with socket.create_server(("127.0.0.1", 0)) as other:
        monitor.watch(pid=worker.pid, inodes=(inode(other),))
        monitor.hears_nothing(1)
    monitor.watch(pid=worker.pid, inodes=(1, inode(listener)))
    monitor.wait_for("ready")


def test_a_unix_socket_is_accepted_on_as_well(monitor: Any, run: Run, server: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        worker = serve(run, listener, [server, "accept"], stdin=subprocess.PIPE)
        monitor.watch(pid=worker.pid, inodes=(inode(listener),))
        monitor.hears_nothing(BEFORE)
        go(worker)
        monitor.wait_for("ready")


def test_without_an_inherited_socket_its_own_counts_when_it_listens(monitor: Any, run: Run, server: str) -> None:
    worker = run([server, "own"], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid)
    monitor.hears_nothing(BEFORE)
    go(worker)
    monitor.wait_for("ready")


def test_a_unix_socket_of_its_own_counts_when_it_listens(monitor: Any, run: Run, tmp_path: Path, gate: Gate) -> None:
    script = """
        import socket, time
        s = socket.socket(socket.AF_UNIX); s.bind("own"); open("gate").read(); s.listen(); time.sleep(1000)
    """
    worker = run([sys.executable, "-c", textwrap.dedent(script)])
    monitor.watch(pid=worker.pid)
    with gate.shut():
        monitor.hears_nothing(BEFORE)
    monitor.wait_for("ready")


def test_a_socket_of_the_master_is_not_the_workers_own(
    monitor: Any, run: Run, server: str, listener: socket.socket
) -> None:
    worker = serve(run, listener, [server, "nothing"], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid)  # the tests are the master here, and hold the listener
    monitor.hears_nothing(BEFORE)


UVICORN = ["-m", "uvicorn", "app:app", "--fd", "3", "--no-access-log"]
GUNICORN = ["-m", "gunicorn", "app:wsgi", "--bind", "fd://3", "--worker-tmp-dir", "/dev/shm", "--no-control-socket"]
APP = """
open("gate").read()  # at import, as an application that takes its time

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
"""


@pytest.mark.parametrize(
    "arguments",
    [UVICORN, [*GUNICORN, "-w", "1"], [*GUNICORN, "-w", "2"], [*GUNICORN, "-k", "gthread", "--threads", "4"]],
    ids=["uvicorn", "gunicorn-sync", "gunicorn-sync-2", "gunicorn-gthread"],
)
def test_a_python_server_is_ready_when_it_has_imported_its_application(
    monitor: Any, run: Run, gate: Gate, listener: socket.socket, arguments: list[str]
) -> None:
    tmp_path = gate.path.parent
    (tmp_path / "app.py").write_text(APP)
    with open(tmp_path / "log", "wb") as log:
        worker = serve(run, listener, [sys.executable, *arguments], stdout=log, stderr=log)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    with gate.shut():
        monitor.hears_nothing(BEFORE)
    began = time.monotonic()
    monitor.wait_for("ready")
    assert time.monotonic() - began < 5
    answer = ask(listener)
    assert b"hello" in answer, (tmp_path / "log").read_text()


SPINNER = """
import socket, sys
listener = socket.socket(fileno=3)
listener.setblocking(False)
clients = []
while True:  # so busy that it never waits
    try:
        clients.append(listener.accept()[0])
    except BlockingIOError:
        pass
"""


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_server_that_never_waits_is_ready_when_it_has_accepted_somebody(
    monitor: Any, run: Run, tmp_path: Path, family: str
) -> None:
    address: Any = ("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "socket")
    with socket.socket(socket.AF_INET if family == "tcp" else socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        worker = serve(run, listener, [sys.executable, "-c", SPINNER])
        monitor.watch(pid=worker.pid, inodes=(inode(listener),))
        monitor.hears_nothing(BEFORE)
        with socket.socket(listener.family) as client:
            client.connect(listener.getsockname())
            monitor.wait_for("ready")


def test_a_client_of_the_socket_is_not_its_server(monitor: Any, run: Run, listener: socket.socket) -> None:
    script = f"""
        import socket, sys
        client = socket.create_connection(("127.0.0.1", {listener.getsockname()[1]}))
        print("connected", flush=True)
        sys.stdin.read()
    """
    pipe = subprocess.PIPE
    worker = serve(run, listener, [sys.executable, "-c", textwrap.dedent(script)], stdin=pipe, stdout=pipe)
    assert worker.stdout
    assert worker.stdout.readline() == b"connected\n"
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(1)


SLOW_APP = """
import time

def wsgi(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [("Connection", "close")])
    return [b"hello"]
"""


def test_a_gunicorn_that_never_rests_is_ready_in_time(monitor: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SLOW_APP)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(200)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with open(tmp_path / "log", "wb") as log:
            worker = serve(run, listener, [sys.executable, *GUNICORN, "-w", "1"], stdout=log, stderr=log)
        monitor.watch(pid=worker.pid, inodes=(inode(listener),))
        monitor.wait_for("ready")
        clients[-1].setblocking(False)
        with pytest.raises(BlockingIOError):  # it still has work for seconds
            clients[-1].recv(1)


def test_a_node_server_is_ready_when_it_listens(monitor: Any, run: Run, listener: socket.socket) -> None:
    script = """
        process.stdin.once("data", () =>
            require("http").createServer((_, answer) => answer.end("hello")).listen({ fd: 3 }))
    """
    worker = serve(run, listener, ["node", "-e", script], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(1)
    go(worker)
    monitor.wait_for("ready")
    assert b"hello" in ask(listener)


def ask(listener: socket.socket) -> bytes:
    with socket.create_connection(listener.getsockname(), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    return answer


@pytest.mark.parametrize("mode", ["accept", "poll", "select", "epoll"])
def test_a_worker_of_another_user_is_seen_without_cap_sys_ptrace(
    start: Any, run: Run, server: str, listener: socket.socket, mode: str
) -> None:
    monitor = start(*NO_PTRACE)
    worker = serve(run, listener, ["setpriv", *NOBODY, server, mode], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(BEFORE)
    go(worker)
    monitor.wait_for("ready")
    assert "Uid:\t0\t0\t0\t0\n" in Path(f"/proc/{monitor.pid}/status").read_text()


@pytest.mark.parametrize("inherits", [True, False])
def test_a_worker_that_cannot_be_looked_into_is_reported_once(
    start: Any, run: Run, server: str, listener: socket.socket, *, inherits: bool
) -> None:
    monitor = start(*NO_PTRACE, timing={"refused": 0.3})  # while the worker has every capability
    worker = serve(run, listener, [server, "accept"], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid, serial=3, inodes=(inode(listener),) if inherits else ())
    reason = f"cannot look into /proc/{worker.pid}: permission denied"
    assert monitor.wait_for("blind") == {"saw": "blind", "serial": 3, "reason": reason}
    monitor.hears_nothing(0.5)


def test_a_blocking_accept_is_seen_where_system_calls_are_hidden(
    start: Any, run: Run, server: str, listener: socket.socket
) -> None:
    monitor = start(hidden_calls=True)
    worker = serve(run, listener, [server, "accept"], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(BEFORE)
    go(worker)
    monitor.wait_for("ready")


def test_what_stays_unclear_where_system_calls_are_hidden_is_reported(
    start: Any, run: Run, server: str, listener: socket.socket
) -> None:
    monitor = start(hidden_calls=True, timing={"unsure": 0.4})
    worker = serve(run, listener, [server, "poll"], stdin=subprocess.PIPE)
    go(worker)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    reason = f"cannot see whether {worker.pid} accepts connections: its system calls are hidden"
    assert monitor.wait_for("blind") == {"saw": "blind", "serial": 1, "reason": reason}


def test_an_event_loop_is_waited_for_where_system_calls_are_hidden(
    start: Any, run: Run, server: str, listener: socket.socket
) -> None:
    monitor = start(hidden_calls=True, timing={"unsure": 0.2})
    worker = serve(run, listener, [server, "idle-epoll"], stdin=subprocess.PIPE)
    wait_for_exec(worker.pid, "server")
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(1)


def test_a_worker_that_ends_while_it_is_looked_at_is_no_concern(
    monitor: Any, run: Run, server: str, listener: socket.socket
) -> None:
    worker = serve(run, listener, [server, "accept"], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.hears_nothing(0.2)
    worker.send_signal(signal.SIGKILL)
    monitor.hears_nothing(0.3)  # a zombie
    worker.wait()
    monitor.hears_nothing(0.3)


def test_a_forgotten_worker_is_not_looked_at(monitor: Any, run: Run, server: str, listener: socket.socket) -> None:
    worker = serve(run, listener, [server, "accept"], stdin=subprocess.PIPE)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.forget()
    go(worker)
    monitor.hears_nothing(0.6)
    monitor.watch(pid=worker.pid, inodes=(inode(listener),))
    monitor.wait_for("ready")


def test_looking_takes_at_most_a_tenth_of_a_core(monitor: Any, run: Run, server: str, listener: socket.socket) -> None:
    worker = serve(run, listener, [server, "nothing"], stdin=subprocess.PIPE)
    for serial in range(300):
        monitor.watch(pid=worker.pid, serial=serial, inodes=(inode(listener),))
    monitor.hears_nothing(1)  # its start
    used, began = cpu(monitor.pid), time.monotonic()
    monitor.hears_nothing(3)
    assert (cpu(monitor.pid) - used) / (time.monotonic() - began) < 0.2  # and what it takes to wait


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
