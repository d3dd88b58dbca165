"""A background worker: ticks once a second until it is asked to stop."""

from __future__ import annotations

import itertools
import os
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
name = os.environ.get("ENTRYPOINT_WORKER", "ticker")
for count in itertools.count(1):
    print(f"{name}: tick {count}", flush=True)
    if signal.sigtimedwait({signal.SIGTERM}, 1):
        break
print(f"{name}: asked to stop after {count} ticks", flush=True)
