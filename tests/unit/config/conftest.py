"""A configuration as text -> what loading it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest

from entrypoint.config.load import ConfigError, Loaded, Request, load

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[..., Loaded]
Errors = Callable[..., list[str]]


@pytest.fixture
def config(tmp_path: Path) -> Load:
    """`config(text, environ={...}, sets=(...), ...)` loads it from a file."""

    def loaded(text: str | bytes, environ: Mapping[str, str] | None = None, **request: object) -> Loaded:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(Request(str(path), **request), environ or {})  # type: ignore[arg-type]  # keywords are the test's

    return loaded


@pytest.fixture
def errors(config: Load, tmp_path: Path) -> Errors:
    """The messages of a configuration that must be refused, without `cannot load ` and the directory."""

    def refused(text: str | bytes, environ: Mapping[str, str] | None = None, **request: object) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            config(text, environ, **request)
        assert raised.value.exit_code == 78
        for line in raised.value.errors:
            assert line.startswith("cannot load ")
            assert "\n" not in line
        return [line.removeprefix("cannot load ").replace(f"{tmp_path}/", "") for line in raised.value.errors]

    return refused
