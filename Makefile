PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE_IMAGE ?= python:3.13-slim-bookworm
IMAGE ?= entrypoint
E2E_IMAGE ?= entrypoint-e2e:test
SOURCES := pyproject.toml README.md scripts/entrypoint $(shell find entrypoint -type f -not -name '*.pyc')

.PHONY: help run test unit lint bench image e2e clean

help:
	@echo 'make run     start the example of config.yaml (Ctrl-C stops it)'
	@echo 'make test    set the machine up and run every test'
	@echo 'make unit    only the tests without processes'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   measure against other masters'
	@echo 'make image   build the container image (BASE_IMAGE=$(BASE_IMAGE))'
	@echo 'make e2e     the chart on a cluster: make e2e KUBECONFIG=FILE, after make image'

run: $(VENV)/.wheel
	exec $(BIN)/entrypoint run -c config.yaml

test:
	scripts/setup-test-machine
	$(MAKE) --no-print-directory lint
	scripts/install-helm $(BIN)
	$(BIN)/pytest -n 4 --dist loadgroup

unit: $(VENV)/.wheel $(VENV)/.test
	$(BIN)/pytest -n auto tests/unit

lint: $(VENV)/.wheel $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.wheel $(VENV)/.bench
	scripts/install-packages catatonit dumb-init gcc libc6-dev runit s6 tini
	$(BIN)/python -m bench

image:
	docker build --build-arg BASE_IMAGE=$(BASE_IMAGE) \
	    --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' entrypoint/__init__.py) \
	    --build-arg REVISION=$$(git rev-parse HEAD) \
	    --label org.opencontainers.image.created=$$(git log -1 --format=%cI) --tag $(IMAGE) .

# On a cluster that a kubeconfig names. E2E_LOAD brings the image to its nodes: kind load docker-image {image}
e2e: $(VENV)/.wheel $(VENV)/.test
	@test -n "$(KUBECONFIG)" || { echo "e2e: cannot find a cluster: make e2e KUBECONFIG=FILE [E2E_LOAD='kind load docker-image {image}']" >&2; exit 2; }
	scripts/install-helm $(BIN)
	docker build --build-arg IMAGE=$(IMAGE) --tag $(E2E_IMAGE) tests/e2e
	E2E_KUBECONFIG="$(KUBECONFIG)" E2E_IMAGE="$(E2E_IMAGE)" E2E_LOAD="$(E2E_LOAD)" $(BIN)/pytest tests/e2e

clean:
	rm -rf $(VENV) dist

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || scripts/install-packages python3-venv
	$(PYTHON) -m venv $(VENV)

# What runs and is tested is the installed wheel, never the source tree.
$(VENV)/.wheel: $(SOURCES) | $(BIN)/python
	rm -rf dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/pip uninstall --quiet --yes entrypointd 2>/dev/null
	$(BIN)/pip install --quiet dist/*.whl
	@touch $@

# Extras: test, lint, bench.
$(VENV)/.%: pyproject.toml | $(VENV)/.wheel
	$(BIN)/pip install --quiet "$$(echo dist/*.whl)[$*]"
	@touch $@
