"""The image itself: what it says about itself, what it adds to its base, and that its folder works elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import docker

    from tests.docker.conftest import Build, Run

MEGABYTE = 1_000_000

# An image with the C library and nothing else: no shell, no Python, no env.
BARE = r"""
ARG IMAGE
FROM ${IMAGE} AS full
USER root
RUN mkdir /bare && cp --parents --dereference \
    $(ldd /opt/entrypoint/libexec/* /opt/entrypoint/lib/python3.*/lib-dynload/*.so \
      | grep -oE '(^|\s)/(lib|lib64|usr/lib)/[^ ]+' | grep -v /opt/entrypoint | sort -u) /bare

FROM scratch
COPY --from=full /bare /
COPY --from=full /opt/entrypoint /opt/entrypoint
USER 10001
ENTRYPOINT ["/opt/entrypoint/bin/entrypoint", "run"]
"""


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


def test_the_folder_works_in_an_image_that_has_only_the_c_library(
    build: Build, image: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(BARE)
    bare = build(tmp_path, "entrypoint-test-bare", IMAGE=image)
    box = run("--", "/opt/entrypoint/libexec/env", of=bare, environment={"MARK": "passed on"})
    assert box.wait() == 0, box.output
    assert "MARK=passed on" in box.output


def test_the_environment_for_the_workers_cannot_reach_the_master(run: Run, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    trap.chmod(0o755)
    (trap / "sitecustomize.py").write_text("print('trapped')")
    (trap / "structlog.py").write_text("raise SystemExit('trapped')")
    box = run(
        "--",
        "sh",
        "-c",
        "echo $PYTHONPATH $PYTHONHOME; unset PYTHONHOME; python3 -c 0",
        environment={"PYTHONPATH": "/trap", "PYTHONHOME": "/nowhere"},
        volumes={str(trap): {"bind": "/trap", "mode": "ro"}},
    )
    assert box.wait() == 0, box.output
    assert box.output.splitlines() == ["/trap /nowhere", "trapped"]  # once: by the worker's own Python
