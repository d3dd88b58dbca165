"""Chromium, driven over its DevTools protocol through a pipe: no driver, no port, nothing to keep in step with it.

https://chromedevtools.github.io/devtools-protocol/ has the methods.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

from tests.system.conftest import readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Message = dict[str, Any]

CEILING = 30.0  # seconds for whatever is waited for: a browser is slow on a busy machine
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it runs as root in containers
    "--disable-dev-shm-usage",  # which is small there
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
# What a page does in a hundredth of a second matters to nobody here.
WAIT = """new Promise((done) => {
  const look = () => {
    const found = (() => { try { return %s; } catch { return null; } })();
    if (found) done(found); else setTimeout(look, 10);
  };
  look();
})"""


class Browser:
    """A browser of its own profile, without a window."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError when it is not installed."""
        command = shutil.which("chromium")
        if command is None:
            raise FileNotFoundError("cannot find chromium: `scripts/setup-test-machine` installs it")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the browser
        # It reads from descriptor 3 and writes to 4.
        move = ("sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >&2', "sh")
        self.process = subprocess.Popen(
            [*move, command, *FLAGS, f"--user-data-dir={folder}"],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "TZ": "UTC"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._rest = b""
        self._answers: dict[int, Message] = {}
        self._number = 0
        self.tabs: dict[str, Tab] = {}  # by session

    def call(self, method: str, session: str = "", **params: Any) -> Message:
        """Have something done; its result."""
        self._number += 1
        number = self._number
        request: Message = {"id": number, "method": method, "params": params}
        if session:
            request["sessionId"] = session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self._in, data) :]
        self.until(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"cannot {method}: {answer['error']['message']}")
        result: Message = answer["result"]
        return result

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Listen until it is so."""
        deadline = time.monotonic() + CEILING
        while not condition():
            self._read(deadline, what)

    def _read(self, deadline: float, what: str) -> None:
        if not readable([self._out], deadline):
            raise TimeoutError(f"no end of {what} within {CEILING:g} s")
        piece = os.read(self._out, 1 << 20)
        if not piece:
            self._errors.seek(0)
            raise EOFError(f"chromium has ended:\n{self._errors.read().decode(errors='replace')}")
        *messages, self._rest = (self._rest + piece).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            elif (tab := self.tabs.get(message.get("sessionId", ""))) is not None:
                tab.hear(message["method"], message["params"])

    def close(self) -> None:
        """End it, and whatever it started."""
        try:
            self.call("Browser.close")
            self.process.wait(CEILING)
        finally:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout, self._errors):
                assert stream is not None
                stream.close()


class Tab:
    """A page, and everything that it asks for and complains about."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.requests: list[str] = []  # URLs
        self.complaints: list[str] = []  # errors, warnings, and what the policy has forbidden
        self.loaded = False
        self._target: str = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session: str = attached["sessionId"]
        browser.tabs[self._session] = self
        for domain in ("Page", "Runtime", "Network", "Log", "Audits", "Accessibility"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._browser.tabs[self._session]
        self._browser.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **params: Any) -> Message:
        return self._browser.call(method, self._session, **params)

    def hear(self, event: str, params: Message) -> None:
        """Take in what happens."""
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Log.entryAdded" and params["entry"]["source"] != "network":  # an answer of 503 is no mistake
            self.complaints.append(params["entry"]["text"])
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(params["args"]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Audits.issueAdded" and params["issue"]["code"] == "ContentSecurityPolicyIssue":
            self.complaints.append(json.dumps(params["issue"]["details"]))

    def show(self, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Be a screen of that size for somebody who likes it light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        """Go there, and wait until it has been loaded."""
        self.loaded = False
        error = self.call("Page.navigate", url=url).get("errorText")
        assert not error, f"cannot open {url}: {error}"
        self._browser.until(lambda: self.loaded, url)

    def evaluate(self, expression: str) -> Any:
        """What JavaScript makes of it; waits for promises."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> Any:
        """Wait until it is true in the page; what it is then."""
        try:
            return self.evaluate(WAIT % condition)
        except TimeoutError:
            shown = self.evaluate("document.body.innerText")
            raise AssertionError(f"never true: {condition}\nThe page says:\n{shown}") from None

    def picture(self) -> bytes:
        """The page as a PNG, also what is below the edge of the screen, but no endless strip."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 1400), "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip, optimizeForSpeed=True)
        return base64.b64decode(shot["data"])

    def tree(self) -> list[tuple[str, str, Message]]:
        """What assistive technology is told: role, name and properties of everything, in order."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (
                node["role"]["value"],
                node.get("name", {}).get("value", ""),
                {one["name"]: one["value"].get("value") for one in node.get("properties", [])},
            )
            for node in nodes
            if not node["ignored"]
        ]
