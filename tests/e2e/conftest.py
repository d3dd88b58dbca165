"""The cluster that E2E_KUBECONFIG names. `make e2e KUBECONFIG=FILE` sets it, so that no other test run touches one.

| variable | meaning |
| --- | --- |
| E2E_KUBECONFIG | the kubeconfig; without it the tests of the cluster are skipped |
| E2E_IMAGE | the image of tests/e2e/Dockerfile, as the cluster's nodes know it (entrypoint-e2e:test) |
| E2E_LOAD | a command that brings it there, such as `kind load docker-image {image}`; none: it is pulled |
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.release import RELEASE, Release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A namespace of its own, with the strictest standard that Kubernetes knows for pods."""
    kubeconfig = os.environ.get("E2E_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("no cluster: E2E_KUBECONFIG is not set; use `make e2e KUBECONFIG=FILE`")
    cluster = Cluster(kubeconfig, f"entrypoint-e2e-{secrets.token_hex(3)}")
    cluster.kubectl("create", "namespace", cluster.namespace)
    try:
        standard = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        cluster.kubectl("label", "namespace", cluster.namespace, *standard)
        yield cluster
    finally:
        cluster.kubectl("delete", "namespace", cluster.namespace)


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> str:
    """The image, which the cluster has or can pull."""
    name = os.environ.get("E2E_IMAGE", "entrypoint-e2e:test")
    if load := os.environ.get("E2E_LOAD"):
        subprocess.run([word.format(image=name) for word in shlex.split(load)], check=True)
    return name


@pytest.fixture
def draft(cluster: Cluster, root: Path, image: str) -> Iterator[Release]:
    """A release that is not installed yet."""
    yield Release(cluster, root / "helm/entrypoint", image)
    cluster.helm("uninstall", "--wait", "--ignore-not-found", RELEASE)


@pytest.fixture
def release(draft: Release) -> Release:
    draft.apply()
    return draft
