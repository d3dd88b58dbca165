"""Probes, asked by a real monitor of real servers and commands."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.config.environment import Identity
from entrypoint.config.spec import Command, Credentials, Probe, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = 0.1  # seconds, a period


def shell(script: str) -> Command:
    return Command(("/bin/sh", "-c", script), "sh -c SCRIPT")


class Site:
    """A web server that answers as it is told, and remembers what it was asked."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.status = 200
        self.body = b""
        self.hang = threading.Event()
        self.hang.set()
        self.asked: list[tuple[float, str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((time.monotonic(), self.path, dict(self.headers)))
                site.hang.wait()
                self.send_response(site.status)
                if 300 <= site.status < 400:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(site.body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 512

            def handle_error(self, *_: object) -> None:  # the monitor hangs up
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self) -> None:
        self.hang.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that lets everybody connect and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("status", [200, 204, 301, 399])
def test_http_from_200_to_399_is_ready(monitor: Any, site: Site, status: int) -> None:
    site.status = status
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/healthz?deep=1"), serial=7)
    assert monitor.wait_for("ready") == {"saw": "ready", "serial": 7}
    [(_, path, headers)] = site.asked  # a redirect is not followed
    assert path == "/healthz?deep=1"
    assert headers["Host"] == f"127.0.0.1:{site.port}"
    assert headers["User-Agent"].startswith("entrypoint-probe/")


@pytest.mark.parametrize("status", [400, 404, 503])
def test_any_other_http_status_is_a_failure(monitor: Any, site: Site, status: int) -> None:
    site.status = status
    url = f"http://127.0.0.1:{site.port}/"
    monitor.watch(Probe(http=url, failure_threshold=1, period=QUICK), kind="live")
    line = monitor.wait_for("not_live")
    assert line["serial"] == 1
    assert line["reason"].startswith(url)
    assert f"answered {status}" in line["reason"]


def test_http_without_a_path_asks_for_the_root(monitor: Any, site: Site) -> None:
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}"))
    monitor.wait_for("ready")
    assert site.asked[0][1] == "/"


def test_a_proxy_from_the_environment_is_not_used(start: Any, site: Site) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    monitor = start(env={**os.environ, "http_proxy": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy})
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/"))
    monitor.wait_for("ready")


def test_an_endless_body_is_not_read_to_its_end(monitor: Any, site: Site) -> None:
    site.body = b"x" * 50_000_000
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", timeout=5))
    monitor.wait_for("ready")


def test_https_is_asked_whoever_signed_the_certificate(monitor: Any, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=somewhere.example"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with open(certificate, "ab") as both:
        both.write(key.read_bytes())
    site = Site(certificate)
    try:
        monitor.watch(Probe(http=f"https://127.0.0.1:{site.port}/", timeout=5))
        monitor.wait_for("ready")
    finally:
        site.close()


def test_what_is_no_http_is_a_failure(monitor: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monitor.watch(Probe(http=f"http://127.0.0.1:{server.getsockname()[1]}/", period=QUICK, failure_threshold=1))
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            assert "no proper answer" in monitor.wait_for("failing")["reason"]


def test_http_that_does_not_answer_times_out(monitor: Any, silent: int) -> None:
    url = f"http://127.0.0.1:{silent}/healthz"
    began = time.monotonic()
    monitor.watch(Probe(http=url, timeout=0.2, period=0.3, failure_threshold=3), kind="live", serial=17)
    assert monitor.wait_for("failing")["reason"] == f"{url}: timed out after 0.2s"
    line = monitor.wait_for("not_live")
    assert line == {"saw": "not_live", "serial": 17, "reason": f"{url}: timed out after 0.2s, 3 times in a row"}
    assert time.monotonic() - began > 0.8
    monitor.hears_nothing(0.7)  # once per watch


def test_tcp_succeeds_when_it_can_connect(monitor: Any, silent: int) -> None:
    monitor.watch(Probe(tcp=f"127.0.0.1:{silent}"))
    monitor.wait_for("ready")


def test_tcp_finds_localhost_by_name(monitor: Any, silent: int) -> None:
    monitor.watch(Probe(tcp=f"localhost:{silent}"))
    monitor.wait_for("ready")


def test_tcp_of_a_closed_port_is_refused(monitor: Any) -> None:
    port = closed_port()
    monitor.watch(Probe(tcp=f"127.0.0.1:{port}", failure_threshold=2, period=QUICK), kind="live")
    assert monitor.wait_for("failing")["reason"] == f"127.0.0.1:{port}: connection refused"
    assert monitor.wait_for("not_live")["reason"] == f"127.0.0.1:{port}: connection refused, 2 times in a row"


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 300])
def test_a_name_that_leads_nowhere_is_a_failure(monitor: Any, name: str) -> None:
    monitor.watch(Probe(tcp=f"{name}:80", timeout=5, failure_threshold=1), kind="live")
    assert monitor.wait_for("not_live", 20)


def test_exec_succeeds_with_exit_code_0(monitor: Any) -> None:
    monitor.watch(Probe(exec=shell("exit 0")))
    monitor.wait_for("ready")


def test_exec_fails_with_its_output_as_the_reason(monitor: Any) -> None:
    probe = Probe(exec=shell("echo no database; echo 'at all' >&2; exit 3"), failure_threshold=1)
    monitor.watch(probe, kind="live")
    assert monitor.wait_for("not_live")["reason"] == "sh -c SCRIPT: exit code 3: no database at all"


def test_exec_that_is_killed_says_so(monitor: Any) -> None:
    monitor.watch(Probe(exec=shell("kill -SEGV $$"), failure_threshold=1), kind="live")
    assert monitor.wait_for("not_live")["reason"] == "sh -c SCRIPT: killed by signal 11"


def test_exec_that_floods_ends_all_the_same(monitor: Any) -> None:
    script = r"head -c 3000000 /dev/zero | tr '\0' '\351'; exit 1"  # and is not UTF-8
    monitor.watch(Probe(exec=shell(script), failure_threshold=1, timeout=8), kind="live")
    assert "exit code 1" in monitor.wait_for("not_live")["reason"]


def test_exec_of_nothing_is_a_failure(monitor: Any) -> None:
    monitor.watch(Probe(exec=Command(("/no/such/thing",), "thing"), failure_threshold=1), kind="live")
    assert monitor.wait_for("not_live")["reason"] == "thing: no such file or directory"


def test_exec_has_the_environment_of_its_worker(start: Any, tmp_path: Path) -> None:
    monitor = start(env={**os.environ, "SECRET": "5", "NOTIFY_SOCKET": "/of/the/master"})
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    process = Process(("w",), "w", env=(("A", "$(ENTRYPOINT_WORKER)!"),), env_files=(("B", str(secret)),))
    probe = Probe(exec=Command(("/bin/sh", "-c", 'env > "$0"; echo "$1" >> "$0"', str(tmp_path / "out"), "$(A)"), "d"))
    monitor.watch(probe, process=process, identity=Identity("api", 4, 9))
    monitor.wait_for("ready")
    lines = (tmp_path / "out").read_text().splitlines()
    assert {"A=api/4!", "B=from a file", "SECRET=5", "ENTRYPOINT_GENERATION=9", "ENTRYPOINT_SLOT=4"} <= set(lines)
    assert lines[-1] == "api/4!"
    assert not any(line.startswith("NOTIFY_SOCKET") for line in lines)


def test_a_file_of_the_environment_that_is_gone_is_a_failure(monitor: Any, tmp_path: Path) -> None:
    process = Process(("w",), "w", env_from=(str(tmp_path / "gone.env"),))
    monitor.watch(Probe(exec=shell("exit 0"), failure_threshold=1), kind="live", process=process)
    assert "gone.env: no such file or directory" in monitor.wait_for("not_live")["reason"]


def test_exec_runs_where_and_as_its_worker(monitor: Any, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    os.chown(place, 65534, 65534)
    who = Credentials(65534, 65534, (4242,), "nobody", "/nonexistent")
    process = Process(("w",), "w", cwd=str(place), credentials=who, umask=0o027)
    script = "{ id -u; id -g; id -G; pwd; umask; echo $USER; } > out; readlink /proc/self/fd/0 >> out"
    monitor.watch(Probe(exec=shell(script)), process=process)
    monitor.wait_for("ready")
    out = (place / "out").read_text().split("\n")
    assert out[:7] == ["65534", "65534", "65534 4242", str(place), "0027", "nobody", "/dev/null"]


def test_exec_of_another_user_can_open_its_output_again(monitor: Any) -> None:
    process = Process(("w",), "w", credentials=Credentials(65534, 65534, (), "nobody", "/nonexistent"))
    probe = Probe(exec=shell("echo why > /dev/stderr; exit 3"), failure_threshold=1)
    monitor.watch(probe, kind="live", process=process)
    assert monitor.wait_for("not_live")["reason"] == "sh -c SCRIPT: exit code 3: why"


def test_exec_has_no_descriptor_of_the_monitor(monitor: Any, tmp_path: Path) -> None:
    monitor.watch(Probe(exec=shell(f"exec ls /proc/self/fd > {tmp_path}/out")))
    monitor.wait_for("ready")
    assert (tmp_path / "out").read_text().split() == ["0", "1", "2", "3"]  # 3: what ls reads


def test_exec_at_its_timeout_is_killed_with_all_its_processes(monitor: Any, tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $$ $! > {tmp_path}/pids; trap '' TERM; wait"
    monitor.watch(Probe(exec=shell(script), timeout=0.5, failure_threshold=1), kind="live")
    assert monitor.wait_for("not_live")["reason"] == "sh -c SCRIPT: timed out after 0.5s"
    wait_until_gone(int(pid) for pid in (tmp_path / "pids").read_text().split())


def test_what_a_probe_leaves_behind_is_killed(monitor: Any, tmp_path: Path) -> None:
    monitor.watch(Probe(exec=shell(f"sleep 1000 & echo $! > {tmp_path}/pids"), timeout=8))
    monitor.wait_for("ready", 5)  # although the sleep holds the pipe of its output open
    wait_until_gone(int(pid) for pid in (tmp_path / "pids").read_text().split())


def test_hanging_up_kills_the_commands_that_run(monitor: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    monitor.watch(Probe(exec=shell(f"echo $$ > {tmp_path}/fifo; sleep 1000"), timeout=100))
    pid = int((tmp_path / "fifo").read_text())
    assert monitor.hang_up() == 0
    wait_until_gone([pid])


def wait_until_gone(pids: Any) -> None:
    deadline = time.monotonic() + 10
    for pid in pids:
        while (stat := state(pid)) not in ("", "Z"):
            assert time.monotonic() < deadline, f"{pid} is {stat}"
            time.sleep(0.01)


def state(pid: int) -> str:
    try:
        match = re.search(r"State:\t(\w)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return ""
    assert match
    return match[1]


def test_failures_count_only_in_a_row(monitor: Any, tmp_path: Path) -> None:
    # Each run takes the first word off the list: fail, fail, pass, fail, fail, fail.
    plan = tmp_path / "plan"
    plan.write_text("1\n1\n0\n1\n1\n1\n")
    script = f"read code < {plan}; sed -i 1d {plan}; exit $code"
    monitor.watch(Probe(exec=shell(script), period=QUICK, timeout=5), kind="live")
    monitor.wait_for("not_live")
    assert plan.read_text() == ""
    assert [line["saw"] for line in monitor.lines] == ["failing", "failing"]  # once in each row


def test_a_live_probe_tells_of_each_new_reason_once(monitor: Any, site: Site) -> None:
    site.status = 500
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", period=QUICK, failure_threshold=99999), kind="live")
    assert "500" in monitor.wait_for("failing", kind="live")["reason"]
    seen = len(site.asked)
    until(lambda: len(site.asked) > seen + 2)
    site.status = 502
    assert "502" in monitor.wait_for("failing")["reason"]
    assert not monitor.lines


def test_a_ready_probe_fails_in_silence_up_to_its_threshold(monitor: Any, site: Site) -> None:
    site.status = 503
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", period=QUICK, failure_threshold=4))
    line = monitor.wait_for("failing")
    assert line["kind"] == "ready"
    assert "503" in line["reason"]
    assert len(site.asked) >= 4
    site.status = 200
    monitor.wait_for("ready")
    asked = len(site.asked)
    monitor.hears_nothing(0.4)
    assert len(site.asked) == asked


def test_the_first_probe_waits_for_the_initial_delay(monitor: Any, site: Site) -> None:
    began = time.monotonic()
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", initial_delay=0.7))
    monitor.wait_for("ready")
    assert site.asked[0][0] - began >= 0.7


def test_probes_follow_their_period(monitor: Any, site: Site) -> None:
    began = time.monotonic()  # on a busy machine the first one may be heard of late
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", period=0.3), kind="live")
    until(lambda: len(site.asked) == 4)
    assert site.asked[3][0] - began >= 0.8


def test_a_probe_is_asked_of_the_workers_own_address(monitor: Any, silent: int, site: Site) -> None:
    process = Process(("w",), "w", env=(("PORT", str(site.port)), ("TOKEN", "hunter2")))
    url = "http://127.0.0.1:$(PORT)/$(ENTRYPOINT_SLOT)?token=$(TOKEN)"
    site.status = 500
    monitor.watch(Probe(http=url, failure_threshold=1), kind="live", process=process, identity=Identity("web", 3, 1))
    reason = monitor.wait_for("not_live")["reason"]
    assert site.asked[0][1] == "/3?token=hunter2"
    assert reason.startswith("http://127.0.0.1:$(PORT)/3?token=$(TOKEN): ")  # what may be secret stays so


def test_a_hundred_slow_probes_do_not_delay_a_quick_one(monitor: Any, silent: int, site: Site) -> None:
    slow = Probe(http=f"http://127.0.0.1:{silent}/", timeout=5, failure_threshold=1)
    for serial in range(100, 200):
        monitor.watch(slow, serial=serial, kind="live")
    for serial in range(200, 250):
        monitor.watch(Probe(exec=shell("sleep 5"), timeout=5, failure_threshold=1), serial=serial, kind="live")
    began = time.monotonic()
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", period=QUICK, timeout=0.9), serial=1)
    monitor.wait_for("ready", serial=1)
    assert time.monotonic() - began < 3
    for serial in range(100, 200):
        line = monitor.wait_for("not_live", 15, serial=serial)
        assert line["reason"].endswith("timed out after 5s")


def test_that_the_monitor_is_out_of_descriptors_is_no_fault_of_the_worker(start: Any, silent: int) -> None:
    monitor = start("prlimit", "--nofile=16")
    for serial in range(30):
        probe = Probe(http=f"http://127.0.0.1:{silent}/", timeout=2, failure_threshold=1, period=QUICK)
        monitor.watch(probe, kind="live", serial=serial)
    assert monitor.wait_for("failing")["reason"].endswith("/: cannot ask: too many open files")
    time_out = monitor.wait_for("not_live")["reason"]
    assert time_out.endswith("timed out after 2s")
    assert not any("too many" in line["reason"] for line in monitor.lines if line["saw"] == "not_live")


def test_what_is_forgotten_is_not_asked_again(monitor: Any, site: Site) -> None:
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", period=QUICK), kind="live")
    until(lambda: len(site.asked) > 2)
    monitor.forget(kind="live")
    monitor.watch(Probe(exec=shell("exit 0")), serial=2)
    monitor.wait_for("ready", serial=2)  # so the Forget has been read
    asked = len(site.asked)
    monitor.hears_nothing(0.4)
    assert len(site.asked) == asked


def test_a_second_watch_replaces_the_first(monitor: Any, site: Site, silent: int) -> None:
    monitor.watch(Probe(http=f"http://127.0.0.1:{silent}/", timeout=100))
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/"))
    monitor.wait_for("ready")


def test_ready_and_live_are_watched_apart(monitor: Any, silent: int) -> None:
    port = closed_port()
    monitor.watch(Probe(tcp=f"127.0.0.1:{port}", failure_threshold=1, period=QUICK), kind="live")
    monitor.watch(Probe(tcp=f"127.0.0.1:{silent}"), kind="ready")
    monitor.wait_for("ready", serial=1)
    monitor.wait_for("not_live", serial=1)


def test_nothing_is_said_of_a_worker_that_is_gone(monitor: Any, run: Callable[..., Any]) -> None:
    worker = run(["true"])
    worker.wait()
    monitor.watch(Probe(tcp=f"127.0.0.1:{closed_port()}", failure_threshold=1), kind="live", pid=worker.pid)
    monitor.watch(None, serial=2, pid=worker.pid)
    monitor.watch(Probe(exec=shell("exit 0")), serial=3)
    monitor.wait_for("ready", serial=3)
    monitor.hears_nothing(0.3)


def test_a_flood_of_messages_is_survived(monitor: Any) -> None:
    probe = Probe(exec=shell("exit 0"), initial_delay=1000)
    for turn in range(20):
        for serial in range(200):
            monitor.watch(probe, serial=serial)
        for serial in range(200 - turn):
            monitor.forget(serial)
    monitor.watch(Probe(exec=shell("exit 0")), serial=999)
    monitor.wait_for("ready", 20, serial=999)


def test_a_master_that_does_not_read_holds_up_no_probe(monitor: Any, site: Site) -> None:
    monitor.channel.setblocking(True)
    port = closed_port()
    for serial in range(1000, 4000):  # more than the socket takes
        monitor.watch(Probe(tcp=f"127.0.0.1:{port}", failure_threshold=1, timeout=30), kind="live", serial=serial)
    monitor.watch(Probe(http=f"http://127.0.0.1:{site.port}/", period=QUICK, timeout=30), kind="live", serial=1)
    until(lambda: len(site.asked) > 5, 30)
    for serial in range(1000, 4000):
        monitor.wait_for("not_live", serial=serial)


def test_a_reason_is_short_and_on_one_line(monitor: Any) -> None:
    script = r"""printf '\342\202\254\001"\\\n%.0s' $(seq 300); exit 1"""
    monitor.watch(Probe(exec=shell(script), failure_threshold=1), kind="live")
    reason = monitor.wait_for("not_live")["reason"]
    assert len(reason) <= 256
    assert "€" in reason
    assert reason.isprintable()


def test_the_end_of_the_channel_ends_the_monitor(monitor: Any, silent: int) -> None:
    monitor.watch(Probe(http=f"http://127.0.0.1:{silent}/", timeout=100))
    monitor.watch(Probe(tcp=f"127.0.0.1:{silent}"), serial=2)
    monitor.wait_for("ready", serial=2)
    began = time.monotonic()
    assert monitor.hang_up() == 0
    assert time.monotonic() - began < 1


def test_a_term_ends_the_monitor(monitor: Any, silent: int) -> None:
    monitor.watch(Probe(tcp=f"127.0.0.1:{silent}"))
    monitor.wait_for("ready")
    monitor.process.terminate()
    assert monitor.process.wait(5) == 0


def test_an_interrupt_from_the_terminal_is_left_to_the_master(monitor: Any, silent: int) -> None:
    monitor.watch(Probe(tcp=f"127.0.0.1:{silent}"))
    monitor.wait_for("ready")
    monitor.process.send_signal(signal.SIGINT)
    monitor.process.send_signal(signal.SIGQUIT)
    script = "kill -INT $$; sleep 5"  # and what it starts is not left deaf to it
    monitor.watch(Probe(exec=shell(script), timeout=8, failure_threshold=1), kind="live")
    assert monitor.wait_for("not_live")["reason"] == "sh -c SCRIPT: killed by signal 2"


def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
