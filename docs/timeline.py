"""Draws a real shutdown: `python docs/timeline.py docs/shutdown.svg`.

A master of its own runs with the configuration below and gets SIGTERM. What the picture shows was measured: when
requests were answered, when /readyz changed, when each worker was told to stop and when it was gone.
"""  # noqa: INP001 - a script, not a package

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).parent.parent
SLOW_STOP = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep({0}), sys.exit())); time.sleep(1000)"
DRAIN, GRACE = 5.0, 27.0  # seconds
STEP = 0.05  # seconds between two requests
BEFORE = 1.0  # seconds that are shown before SIGTERM
LEFT, WIDTH, ROW, TOP = 190, 700, 26, 40  # pixels
COLOURS = {"good": "#2da44e", "draining": "#d4a72c", "bad": "#cf222e", "none": "#8c959f"}

Band = tuple[float, float, str]  # seconds since SIGTERM, from and to, and a colour


class Lane(NamedTuple):
    """One row of the picture."""

    name: str
    bands: list[Band]
    note: str = ""


def config(port: int, observer: int) -> dict[str, Any]:
    """Two pools that depend on each other, and one that has its own delay."""

    def slow(seconds: float) -> list[str]:
        return [sys.executable, "-S", "-c", SLOW_STOP.format(seconds)]

    quick = {"when": "alive", "after": "0s"}
    return {
        "sockets": {"http": {"bind": f"127.0.0.1:{port}"}},
        "observer": {"bind": f"127.0.0.1:{observer}"},
        "control": {"enabled": False},
        "shutdown": {"drain_delay": f"{DRAIN}s", "grace_period": f"{GRACE}s"},
        "pools": {
            "cache": {"command": slow(0.7), "ready": quick, "stop": {"timeout": "5s"}},
            "web": {
                "command": [sys.executable, str(ROOT / "examples/web/server.py")],
                "workers": 2,
                "sockets": ["http"],
                "after": ["cache"],
                "ready": {"when": "accepting"},
                "stop": {"timeout": "15s"},
            },
            "jobs": {"command": slow(3.5), "ready": quick, "stop": {"timeout": "20s", "delay": "0s"}},
        },
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def status(port: int, path: str) -> int:
    """The status of the answer; 0 when there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def bands(seen: list[tuple[float, int]]) -> list[Band]:
    """What requests were answered with, equal ones joined."""
    found: list[Band] = []
    for (at, code), (end, _) in pairwise(seen):
        colour = "good" if code == 200 else "draining" if code else "none"
        begin = found.pop()[0] if found and found[-1][2] == colour else at
        found.append((begin, end, colour))
    return found


def measure() -> list[Lane]:
    """One shutdown. Raises RuntimeError when it does not end with 0."""
    port, observer = free_port(), free_port()
    watched: dict[str, tuple[int, list[tuple[float, int]]]] = {
        "/": (port, []),
        "/readyz": (observer, []),
        "/livez": (observer, []),
    }
    over = threading.Event()

    def watch(path: str, port: int, seen: list[tuple[float, int]]) -> None:
        while not over.is_set():
            seen.append((time.time(), status(port, path)))
            over.wait(STEP)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(json.dumps(config(port, observer)))  # JSON is YAML
        command = [str(Path(sys.executable).with_name("entrypoint")), "run", "-c", str(file)]
        master = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while status(observer, "/readyz") != 200:
            time.sleep(STEP)
        threads = [threading.Thread(target=watch, args=(path, *rest)) for path, rest in watched.items()]
        for thread in threads:
            thread.start()
        time.sleep(BEFORE)
        asked = time.time()
        master.send_signal(signal.SIGTERM)
        output = master.communicate(timeout=60)[0]
        ended = time.time()
        over.set()
        for thread in threads:
            thread.join()
    if master.returncode:
        raise RuntimeError(f"cannot draw a shutdown: the master ended with {master.returncode}:\n{output}")
    lanes = [
        Lane(name, [(begin - asked, end - asked, colour) for begin, end, colour in bands(watched[path][1])])
        for name, path in (("GET / of the web pool", "/"), ("/readyz", "/readyz"), ("/livez", "/livez"))
    ]
    return lanes + workers([json.loads(line) for line in output.splitlines() if line.startswith("{")], asked, ended)


def workers(log: list[dict[str, Any]], asked: float, ended: float) -> list[Lane]:
    """The lives of workers and of the master, from the log."""
    stopping: dict[str, float] = {}
    lanes: list[Lane] = []
    for line in log:
        at = datetime.fromisoformat(line["timestamp"]).timestamp() - asked
        name = f"{line.get('pool')}/{line.get('slot')}"
        if line["event"] == "worker_stopping":
            stopping[name] = at
        elif line["event"] == "worker_exited" and name in stopping:
            told = stopping[name]
            lanes.append(Lane(name, [(-BEFORE, told, "good"), (told, at, "draining")], f"{at - told:.1f} s to stop"))
    lanes.sort(key=lambda lane: lane.bands[-1][1])
    took = ended - asked
    return [*lanes, Lane("master", [(-BEFORE, took, "good")], f"exit 0 after {took:.1f} s of {GRACE:g} s")]


def draw(lanes: list[Lane]) -> str:
    """The picture."""
    longest = max(end for lane in lanes for _, end, _ in lane.bands) + 2.5
    scale = WIDTH / (longest + BEFORE)
    height = TOP + ROW * len(lanes) + 34

    def x(at: float) -> float:
        return LEFT + (max(at, -BEFORE) + BEFORE) * scale

    style = 'font-family="sans-serif" font-size="13"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH} {height}" {style}>',
        f'<rect width="{LEFT + WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for second in range(int(longest) + 1):
        out.append(f'<path d="M{x(second):.1f} {TOP - 8}V{height - 30}" stroke="#d0d7de"/>')
        out.append(f'<text x="{x(second):.1f}" y="{height - 12}" text-anchor="middle" fill="#57606a">{second} s</text>')
    for at, word in ((0.0, "SIGTERM"), (DRAIN, "drain delay over")):
        out.append(f'<path d="M{x(at):.1f} {TOP - 8}V{height - 30}" stroke="#24292f" stroke-dasharray="4 3"/>')
        out.append(f'<text x="{x(at):.1f}" y="{TOP - 14}" text-anchor="middle" fill="#24292f">{word}</text>')
    for number, lane in enumerate(lanes):
        y = TOP + ROW * number
        out.append(f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end" fill="#24292f">{escape(lane.name)}</text>')
        for begin, end, colour in lane.bands:
            size = f'width="{max(1.0, x(end) - x(begin)):.1f}" height="{ROW - 6}"'
            out.append(f'<rect x="{x(begin):.1f}" y="{y}" {size} fill="{COLOURS[colour]}"/>')
        if lane.note:
            end = x(lane.bands[-1][1]) + 6
            out.append(f'<text x="{end:.1f}" y="{y + 15}" fill="#57606a">{escape(lane.note)}</text>')
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(measure()))
