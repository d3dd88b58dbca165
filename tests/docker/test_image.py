"""The image itself: what it says about itself, what it is made of, and that its folder works elsewhere."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest
from conftest import Run, build  # type: ignore[import-not-found] # conftest of this folder

MEGABYTE = 1_000_000


def test_the_image_is_described_and_runs_as_nobody_in_particular(engine: docker.DockerClient, image: str) -> None:
    config = engine.images.get(image).attrs["Config"]
    assert config["Entrypoint"] == ["entrypoint", "run"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == "entrypoint"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"


def test_the_image_adds_little_to_its_base(engine: docker.DockerClient, image: str, base: str) -> None:
    added = engine.images.get(image).attrs["Size"] - engine.images.get(base).attrs["Size"]
    assert added < 40 * MEGABYTE
