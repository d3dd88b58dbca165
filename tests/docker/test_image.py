"""The image itself: what it says about itself, what it adds to its base, and that its folder works elsewhere."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

if TYPE_CHECKING:
    import docker

    from tests.docker.conftest import Box, Build, Run

MEGABYTE = 1_000_000
FOLDER = "/opt/entrypoint"
SBOM = f"{FOLDER}/share/entrypoint.cdx.json"

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
    assert config["Healthcheck"]["Test"] == ["CMD", "entrypoint", "probe", "live"]


def test_the_labels_say_what_it_is_and_what_it_was_built_from(
    engine: docker.DockerClient, build: Build, base: str, root: Path
) -> None:
    made = build(root, "entrypoint-test-labels", BASE_IMAGE=base, VERSION="1.2.3", REVISION="abc")
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in engine.images.get(made).attrs["Config"]["Labels"].items()
    }
    assert labels == {
        "title": "entrypoint",
        "description": "A PID-1-safe master for pools of workers in containers",
        "authors": "The entrypoint authors",
        "licenses": "MIT",
        "version": "1.2.3",
        "revision": "abc",
        "base.name": base,
    }


@pytest.mark.parametrize("path", ["Dockerfile", "tests/e2e/Dockerfile"])
def test_the_linter_accepts_the_dockerfile(root: Path, path: str) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([linter, path], cwd=root, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


def test_the_image_adds_little_to_its_base(engine: docker.DockerClient, image: str, base: str) -> None:
    added = engine.images.get(image).attrs["Size"] - engine.images.get(base).attrs["Size"]
    assert added < 40 * MEGABYTE


def check_that_it_manages_workers(box: Box) -> None:
    """Everything that it starts beside the workers is there: what follows the file, what serves HTTP."""
    box.wait_for('"pool_ready"')
    entrypoint = f"{FOLDER}/bin/entrypoint"
    for words in (["probe", "ready"], ["scale", "web", "2"]):
        assert box.container.exec_run([entrypoint, *words]) == (0, b"")
    box.wait_for('"pool_resized"')
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9180/metrics').read().decode())"
    code, output = box.container.exec_run([f"{FOLDER}/libexec/python3", "-c", ask])
    assert code == 0, output
    assert b'entrypoint_pool_workers{pool="web",state="ready"} 2.0' in output
    assert box.stop()[0] == 0, box.output
    assert "Traceback" not in box.output


def test_the_folder_works_in_an_image_that_has_only_the_c_library(
    build: Build, image: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(BARE)
    bare = build(tmp_path, "entrypoint-test-bare", IMAGE=image)
    box = run("--", "/opt/entrypoint/libexec/env", of=bare, environment={"MARK": "passed on"})
    assert box.wait() == 0, box.output
    assert "MARK=passed on" in box.output
    command = [f"{FOLDER}/libexec/python3", "-S", "-c", "import time; time.sleep(1000)"]
    pools = {"web": {"command": command, "ready": {"after": "0s"}, "output": "json"}}
    check_that_it_manages_workers(run(of=bare, config=json.dumps({"pools": pools, "reload": {"watch": True}})))


def test_the_folder_works_in_an_image_without_python_as_the_readme_says(
    build: Build, image: str, base: str, run: Run, tmp_path: Path
) -> None:
    told = re.search(
        r"```dockerfile\nFROM \S+\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.DOTALL
    )
    assert told is not None
    plain = "RUN rm -rf /usr/bin/python3* /usr/lib/python3* && ! command -v python3"
    (tmp_path / "Dockerfile").write_text(f"FROM {image} AS entrypoint\nFROM {base}\n{plain}\n{told[1]}")
    (tmp_path / "config.yaml").write_text("pools: {web: {command: [sleep, '1000'], ready: {after: 0s}}}")
    check_that_it_manages_workers(run(of=build(tmp_path, "entrypoint-test-plain")))


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


def files(box: Box, path: str) -> dict[str, bytes]:
    """The files of a container below the path, by their path from there."""
    pieces, _ = box.container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        found = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive if member.isfile()}
    return {name: file.read() for name, file in found.items() if file is not None}


def places(components: list[dict[str, Any]]) -> list[str]:
    return sorted(place["location"] for one in components for place in one["evidence"]["occurrences"])


def test_the_bill_of_materials_tells_what_is_in_the_folder(run: Run, base: str) -> None:
    box = run("--", "true")
    assert box.wait() == 0
    folder = files(box, FOLDER)
    text = folder["share/entrypoint.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bom = json.loads(text)
    ours = bom["metadata"]["component"]
    assert ours["purl"] == f"pkg:pypi/entrypointd@{ours['version']}"
    packages = [ours, *(one for one in bom["components"] if one["purl"].startswith("pkg:pypi/"))]
    others = [one for one in bom["components"] if one not in packages]

    metadata = {name.rpartition("/")[0]: data for name, data in folder.items() if name.endswith(".dist-info/METADATA")}
    assert places(packages) == sorted(metadata)
    for one in packages:
        assert f"Version: {one['version']}" in metadata[places([one])[0]].decode().splitlines()
    natives = {name for name in folder if re.fullmatch(r"libexec/.*|lib/[^/]*\.so.*", name)}
    (library,) = {name.split("/")[1] for name in folder if name.startswith("lib/python3.")}
    assert places(others) == sorted(natives | {f"lib/{library}"})

    (python,) = (one for one in others if "libexec/python3" in places([one]))
    box = run("-c", "import platform; print(platform.python_version())", entrypoint=f"{FOLDER}/libexec/python3")
    assert box.wait() == 0
    assert python["cpe"] == f"cpe:2.3:a:python:python:{box.output.strip()}:*:*:*:*:*:*:*"
    debian = [one for one in others if one["purl"].startswith("pkg:deb/")]
    show = ["--show", "-f", r"${Package} ${Version}\n", *(one["name"] for one in debian)]
    box = run(*show, of=base, entrypoint="dpkg-query")
    assert box.wait() == 0, box.output
    assert box.output.splitlines() == [f"{one['name']} {one['version']}" for one in debian]
    assert {f"share/licenses/{one['name']}" for one in debian} <= set(folder)


def test_the_bill_of_materials_lists_what_no_package_is_known_of(run: Run, root: Path) -> None:
    box = run(
        *("/image/sbom", FOLDER),
        entrypoint="/usr/bin/python3",
        environment={"PATH": "/nowhere"},
        user="0",
        volumes={str(root / "image"): {"bind": "/image", "mode": "ro"}},
    )
    assert box.wait() == 0, box.output
    text = files(box, SBOM)[""].decode()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    names = {one["name"]: one.get("purl", "none") for one in json.loads(text)["components"]}
    assert names["libz.so.1"] == names["env"] == "none"
    assert names["cpython"].startswith("pkg:generic/cpython@3.")
