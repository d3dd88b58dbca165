"""Every path, with a master that answers, refuses or is silent."""

from __future__ import annotations

import gzip
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from entrypoint.observer.link import GAP, LOST
from tests.observer.harness import Observer, StartObserver, listener, pool, read_all, snapshot, worker

ASKING = ("/livez", "/readyz", "/readyz?verbose", "/startupz", "/metrics", "/status")


def test_a_healthy_master_passes_every_probe(observer: Observer) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        reply = observer.get(path)
        assert (reply.status, reply.text) == (200, "ok\n")
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"


def test_what_the_master_says_against_readiness_is_the_answer(observer: Observer) -> None:
    observer.master.snapshot["ready"] = [False, "web: 0 of 2 ready"]
    observer.master.snapshot["startup"] = [False, "not all ready yet: web"]
    ready, startup = observer.get("/readyz"), observer.get("/startupz")
    assert (ready.status, ready.text) == (503, "web: 0 of 2 ready\n")
    assert (startup.status, startup.text) == (503, "not all ready yet: web\n")
    assert observer.get("/livez").status == 200


def test_a_draining_master_is_alive_but_not_ready(observer: Observer) -> None:
    observer.master.snapshot |= {"phase": "draining", "ready": [False, "stopping"]}
    assert observer.get("/livez").status == 200
    assert (observer.get("/readyz").status, observer.get("/readyz").text) == (503, "stopping\n")


def test_verbose_readiness_lists_the_pools(observer: Observer) -> None:
    observer.master.snapshot = snapshot(
        web=pool(worker("web", 0, os.getpid()), worker("web", 1, None)),
        api=pool(worker("api", 0, None)),
        tools=pool(worker("tools", 0, None), critical=False),
        jobs=pool(state="completed", desired=1),
    )
    observer.master.snapshot["ready"] = [False, "api: 0 of 1 ready"]
    reply = observer.get("/readyz?verbose")
    assert reply.status == 503
    assert reply.text.splitlines() == [
        "[+] web: 1 of 2 ready, 1 needed",
        "[-] api: 0 of 1 ready, 1 needed",
        "[ ] tools: 0 of 1 ready, not critical",
        "[+] jobs: completed",
        "api: 0 of 1 ready",
    ]


def test_the_status_is_the_masters_with_the_memory_that_the_observer_sees(observer: Observer) -> None:
    observer.master.snapshot = snapshot(web=pool(worker("web", 0, os.getpid()), worker("web", 1, None)))
    reply = observer.get("/status")
    assert reply.headers["content-type"].startswith("application/json")
    told = reply.json
    seen, unseen = told["pools"]["web"]["workers"]
    assert seen["resident_memory_bytes"] > 1 << 20
    assert unseen["resident_memory_bytes"] is None
    seen["resident_memory_bytes"] = None
    assert told == {k: v for k, v in observer.master.snapshot.items() if k != "time"}


@pytest.mark.parametrize("path", ASKING)
def test_a_silent_master_gives_a_503_that_says_so(observer: Observer, path: str) -> None:
    assert observer.get(path).status in (200, 503)  # it has been well before: nothing of that may be shown
    observer.master.silent.set()
    began = time.monotonic()
    reply = observer.get(path)
    assert (reply.status, reply.text) == (503, "cannot ask the master: no answer within 1 s\n")
    assert 0.9 < time.monotonic() - began < 10


def test_a_silent_master_delays_nobody_by_more_than_his_own_second(observer: Observer) -> None:
    observer.master.silent.set()
    with ThreadPoolExecutor(40) as pool:
        replies = [*pool.map(lambda _: observer.get("/metrics", timeout=10).status, range(40))]
    assert replies == [503] * 40
    assert observer.master.asked == ["snapshot"]  # it is not asked again before it has answered
    assert observer.get("/").status == 200


def test_a_late_answer_is_not_shown_to_later_requests(observer: Observer) -> None:
    master = observer.master
    master.silent.set()
    assert observer.get("/status").status == 503
    late = {"id": 1, "ok": True, "snapshot": {**master.snapshot, "version": "late"}}
    master.silent.clear()
    master.send(late)
    assert observer.get("/livez").status == 200  # by now it has been read
    assert observer.get("/status").json["version"] == "1.2.3"


def test_a_question_that_was_lost_is_asked_again(observer: Observer) -> None:
    observer.master.silent.set()
    assert observer.get("/livez").status == 503
    observer.master.silent.clear()  # the first question will never be answered
    deadline = time.monotonic() + LOST + 20
    while observer.get("/livez").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert observer.master.asked == ["ping", "ping"]


def test_a_master_that_refuses_gives_its_reason(observer: Observer) -> None:
    observer.master.answer = lambda ask: {"id": ask["id"], "ok": False, "error": "not now"}
    reply = observer.get("/status")
    assert (reply.status, reply.text) == (503, "cannot ask the master: not now\n")


@pytest.mark.parametrize("path", ["/", *ASKING])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_only_get_and_head_are_allowed(shared: Observer, path: str, method: str) -> None:
    reply = shared.get(path, method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", *ASKING, "/none"])
def test_head_is_get_without_a_body(shared: Observer, path: str) -> None:
    get, head = shared.get(path), shared.get(path, "HEAD")
    assert head.status == get.status
    assert head.body == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    if path not in ("/metrics", "/status"):  # figures change
        assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/metrics/", "//metrics", "/../metrics", "/METRICS", "/%6detrics", "/x?y"]
)
def test_other_paths_are_not_found(shared: Observer, path: str) -> None:
    assert shared.get(path).status == 404


@pytest.mark.parametrize("path", ["/", *ASKING, "/none"])
def test_every_answer_has_the_headers_that_keep_browsers_safe(shared: Observer, path: str) -> None:
    headers = shared.get(path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/metrics", "/status"])
def test_what_is_long_is_compressed_for_those_who_take_it(shared: Observer, path: str) -> None:
    packed = shared.get(path, Accept_Encoding="br, GZIP;q=0.5")
    assert packed.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["vary"]
    assert len(gzip.decompress(packed.body)) > 2 * len(packed.body)
    for refusal in ("gzip;q=0", "gzip; q=0.00", "identity", ""):
        assert "content-encoding" not in shared.get(path, Accept_Encoding=refusal).headers


def test_a_flood_shares_one_snapshot(observer: Observer) -> None:
    observer.get("/livez")
    observer.master.asked.clear()
    with ThreadPoolExecutor(50) as pool:
        replies = [*pool.map(lambda _: observer.get("/metrics").status, range(400))]
    assert replies == [200] * 400
    assert len(observer.master.asked) <= 100  # a tenth of a second or more apart


def test_a_flood_from_one_client_does_not_keep_the_master_busy(observer: Observer) -> None:
    observer.get("/livez")
    began = time.monotonic()
    for path in ("/livez", "/metrics", "/status") * 10:
        assert observer.get(path).status == 200
    most = 2 * (time.monotonic() - began) / GAP + 2  # of either kind
    assert len(observer.master.asked) - 1 <= most
    assert len(observer.master.asked) == 31  # and nothing is answered from memory


def test_answers_in_another_order_reach_those_who_asked(observer: Observer) -> None:
    held: list[dict[str, Any]] = []

    def turn(ask: dict[str, Any]) -> dict[str, Any]:
        """Answer the first question after the second."""
        if not held:
            held.append(ask)
            return {"id": 0, "ok": True}  # to nobody
        observer.master.send(observer.master.tell(ask))
        return observer.master.tell(held[0])

    observer.master.answer = turn
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(observer.get, ("/livez", "/status"))
    assert (first.status, first.text) == (200, "ok\n")
    assert second.json["version"] == "1.2.3"


def test_two_listening_sockets_are_both_served(start: StartObserver) -> None:
    first, second = listener(), listener()
    observer = start(first, second)
    assert observer.get("/livez").status == 200
    with socket.create_connection(second.getsockname(), 20) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_a_unix_socket_is_served(start: StartObserver, short_path: str) -> None:
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(short_path)
    unix.listen()
    observer = start(listener(), unix)
    observer.get("/livez")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(short_path)
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200")
