# Everything there is to do here. `make help` lists it.

PY := .venv/bin/python
PYTEST := $(PY) -m pytest

PACKAGES := $(sort $(dir $(wildcard libs/*/pyproject.toml services/*/pyproject.toml services/connectors/*/pyproject.toml)))
CODE     := $(wildcard libs/*/aios_* services/*/aios_* services/connectors/*/aios_*)
# the environment to run AIOS, and with it what working on it takes; a newer lock brings either up to date in place
READY    := .venv/.ready
TOOLS    := .venv/.tools

IMAGE ?= aios:latest

.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint format bench bench-peers drill sim properties histories servers image chart cluster-test proto features reference lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TOOLS) ## the environment in .venv (the other targets make what they need of it by themselves)

demo: $(READY) ## the monthly report of a sample client: watch it, approve it, undo it
	@./aios demo

up: $(READY) ## serve on this machine until Ctrl-C
	@./aios serve

test: $(TOOLS) ## all tests, each crash point once among them
	@$(PYTEST) $(ARGS)

lint: $(TOOLS) ## format, style, types, import contracts, protos
	@$(PY) -m ruff format --check --quiet . || { echo "Not formatted; 'make format' does it." >&2; exit 1; }
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary $(CODE)
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/buf lint proto
	@.venv/bin/buf breaking proto --against proto/image.binpb
	@echo "lint: clean"

format: $(TOOLS) ## write every Python file in the one format
	@$(PY) -m ruff check --quiet --select I --fix . ; $(PY) -m ruff format --quiet .

bench: $(TOOLS) ## steps a second, latency, CPU, bytes and fsyncs a step, beside the floor
	@$(PY) -m tests.bench $(ARGS)

bench-peers: $(TOOLS) ## the same work by other engines, on requirements of their own; needs PostgreSQL, npm and Go
	@$(PY) -m tests.bench.peers

drill: $(TOOLS) ## kill every service and the bus at every named instant; fresh seeds for every planted defect
	@AIOS_DRILL=all $(PYTEST) tests/drill tests/sim -m drill $(ARGS)

SEEDS ?= 1000
sim: $(TOOLS) ## the whole of AIOS in virtual time under faults: SEEDS=n of them, on all cores
	@$(PY) -m aios_testing.sim --seeds $(SEEDS) $(ARGS)

TIMES ?= 100
properties: $(TOOLS) ## each property, TIMES=n times as often as `make test` tries it
	@AIOS_TEST_PROPERTIES=$(TIMES) $(PYTEST) tests -m hypothesis --timeout=0 $(ARGS)

COUNT ?= 10000
histories: $(TOOLS) ## random histories of random workflows: COUNT=n of them, on all cores
	@$(PY) -m tests.orchestrator.histories --count $(COUNT) $(ARGS)

servers: $(TOOLS) ## the real servers that tests use, and where each comes from
	@$(PY) -m aios_testing.servers

image: ## the container image, IMAGE=name on BASE_IMAGE=name
	docker build --network=host --file docker/Dockerfile --tag $(IMAGE) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) .

chart: $(TOOLS) ## lint the Helm chart, check its templates against Kubernetes and its values against their schema
	@$(PYTEST) tests/chart $(ARGS)

cluster-test: $(TOOLS) ## image and chart on a real Kubernetes: the report there, pods deleted in the middle (minutes)
	@$(PY) -m tests.cluster

proto: $(TOOLS) ## generate the Python code of the contracts
	@$(PY) -m aios_testing.generate libs/aios-proto

proto-accept: $(TOOLS)
	@.venv/bin/buf build proto --exclude-source-info -o proto/image.binpb

features: $(TOOLS) ## docs/features.md from the marks on the tests
	@$(PY) -m aios_testing.features docs/features.md

reference: $(TOOLS) ## docs/reference.md from the schemas of documents and the examples
	@$(PY) -m aios_testing.reference docs/reference.md

lock: ## choose versions anew; needs uv
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
	    --custom-compile-command "make lock" $(ARGS) requirements-dev.in -o requirements-dev.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
	    --custom-compile-command "make lock" -c requirements-dev.lock requirements.in -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
	    --custom-compile-command "make lock" $(ARGS) tests/bench/peers/requirements.in -o tests/bench/peers/requirements.lock

clean: ## remove the environment and what tools left behind; data directories stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock $(addsuffix pyproject.toml,$(PACKAGES)) .ci/setup
	@.ci/setup requirements.lock $(PACKAGES)
	@touch $@

$(TOOLS): $(READY) requirements-dev.lock
	@.ci/setup requirements-dev.lock
	@touch $@
