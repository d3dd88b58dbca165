"""The same masters as the system tests have."""

from __future__ import annotations

from tests.system.conftest import _adopt_orphans, script, start  # noqa: F401 - fixtures
