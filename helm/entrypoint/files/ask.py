"""Asks an observer whether all is well: `ask.py HOST PORT SECONDS`. Exits with 0 once it is, with 1 if not in time."""

import http.client
import sys
import time

host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
wanted = {"/readyz": "ok", "/metrics": "entrypoint_build_info"}
deadline = time.monotonic() + seconds


def answer(path: str) -> tuple[int, str]:
    """The status, 0 without an answer, and the text."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


for path, word in wanted.items():
    while True:
        status, text = answer(path)
        if status == 200 and word in text:
            print(f"{path} of {host}:{port} is as it should be")
            break
        if time.monotonic() > deadline:
            sys.exit(f"cannot get {path} of {host}:{port}: {status} {text.strip()[:500]}")
        time.sleep(1)
