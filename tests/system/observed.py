"""What a master shows over HTTP."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.system.conftest import children, poll

if TYPE_CHECKING:
    from tests.system.conftest import Master

OBSERVER = 'observer: {bind: "127.0.0.1:0"}\n'

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Reply(NamedTuple):
    status: int
    text: str


class Observed:
    """The observer of a master that has just been started."""

    def __init__(self, master: Master) -> None:
        self.master = master
        host, _, port = master.wait_for("observer_listens")["bind"].rpartition(":")
        self.address = host, int(port)

    def get(self, path: str, timeout: float = 10) -> Reply:
        """Ask on a connection of its own; raises what a client would see."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Reply(response.status, response.read().decode())
        finally:
            connection.close()

    def connect(self, data: bytes = b"") -> socket.socket:
        sock = socket.create_connection(self.address, timeout=10)
        sock.sendall(data)
        return sock

    def until(self, path: str, status: int) -> str:
        """Ask until that is the answer; its text."""
        last: list[Reply] = []

        def there() -> bool:
            last[:] = [self.get(path)]
            return last[0].status == status

        poll(there)
        return last[0].text

    def scrape(self) -> Samples:
        """Every sample by name and labels; each is there once."""
        status, text = self.get("/metrics")
        assert status == 200, text
        found: Samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name.removeprefix("entrypoint_"), frozenset(sample.labels.items())
                assert key not in found
                found[key] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """One sample; None when it is not there."""
        return self.scrape().get((name, frozenset(labels.items())))

    def wait_for(self, value: float | None, name: str, **labels: str) -> None:
        """Scrape until a sample has that value."""
        poll(lambda: self.value(name, **labels) == value)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status").text)
        return found

    def process(self, other_than: int = 0) -> int:
        """The pid of the observer, as soon as there is one."""
        found: list[int] = poll(lambda: [p for p in children(self.master.pid) if p != other_than and is_observer(p)])
        return found[0]


def is_observer(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().endswith(b"/entrypoint/__main__.py\0observer\0")
    except OSError:
        return False


def series(samples: Samples, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples of a name, by the values of these labels."""
    return {
        tuple(dict(found)[label] for label in labels): value
        for (sample, found), value in samples.items()
        if sample == name
    }
