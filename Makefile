# meshd's targets. Each sets up all that it needs on a bare Debian 12, as root; what is there
# already is not touched, so that the second time costs a fraction of a second.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Some machines set it. Each process that starts would then compile all its modules anew, and say
# again what the compiler warns of in other people's.
unexport PYTHONDONTWRITEBYTECODE

# Not whatever python3 comes first on PATH: the users that the processes run as must reach it.
PYTHON := /usr/bin/python3
VENV   := .venv
BIN    := $(VENV)/bin
SETUP  := .ci/setup
STUBS  := build/stubs/descriptors
PROTOC := $(BIN)/python -m grpc_tools.protoc --descriptor_set_in=$(STUBS)
SLOWEST := --durations=40 --durations-min=5
# Which tests go together says tests/lanes.py. A test that hangs still ends the run.
LANES  := --numprocesses=3 --dist=loadscope --no-loadscope-reorder --max-worker-restart=0

.PHONY: help demo demo-once test kube test-kube vagrant-test check format protos fuzz bench wheel deb clean setup setup-demo setup-test setup-images setup-bench setup-check setup-deb setup-kube

help:
	@awk -F': |## ' '/^[a-z-]+:.*## /{printf "  make %-13s%s\n", $$1, $$3}' $(MAKEFILE_LIST)

demo: setup-demo ## a node with Bookinfo, the tutorial step by step; Ctrl-C ends it
	@.ci/reachable $(BIN)/python -m meshd.demo.tutorial

demo-once: setup-demo ## the same without staying; fails if a step did not give what it must
	@.ci/reachable $(BIN)/python -m meshd.demo.tutorial --once

test: setup-test ## the whole suite, root parts and real Envoy included
	@.ci/reachable $(BIN)/pytest $(LANES) $(SLOWEST) --unit-coverage 85 tests --ignore=tests/vagrant --ignore=tests/kube

kube: ## build the programs of a Kubernetes cluster for test-kube, once a machine; five minutes
	@.ci/kube build

test-kube: setup-kube ## the tests on a real Kubernetes cluster
	@.ci/reachable $(BIN)/pytest -q tests/kube

vagrant-test: setup-test deb ## vagrant up in emulated machines, which takes an hour; no part of test
	@.ci/reachable $(BIN)/pytest -o faulthandler_timeout=14400 tests/vagrant

check: setup-check ## format, lint, types, architecture
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/pyright
	@$(BIN)/pytest -q tests/test_architecture.py tests/test_types.py

format: setup-check ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

protos: setup-check ## write the modules of meshd/protos from the .proto files there
	@$(PROTOC) --proto_path=. --python_out=. --pyi_out=. meshd/protos/*.proto

fuzz: setup-check ## a million altered inputs at each door that others reach; hours
	@$(BIN)/python -m tests.fuzz

bench: setup-bench ## measure, write build/bench.json, print a table
	@.ci/reachable $(BIN)/python -m tests.bench

wheel: setup-check ## dist/*.whl
	@rm -rf build/lib build/bdist.*
	@.ci/step "building the wheel" $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

deb: setup-deb ## dist/*.deb for Debian 12, with Envoy and all Python packages in it
	@.ci/step "building the Debian package" etc/debian/build dist
	@ls dist/*.deb

clean: ## remove what the other targets made here
	@rm -rf build dist .venv *.egg-info .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(VENV)/installed
	@$(SETUP) packages run
	@$(SETUP) users

setup-demo: $(VENV)/installed
	@$(SETUP) packages run test
	@$(SETUP) users

setup-test: $(VENV)/installed-dev $(STUBS)
	@$(SETUP) packages run test deb
	@$(SETUP) containers
	@$(SETUP) users

setup-kube: setup-test kube

setup-images: # what hosts of the tests are made of; the tests build what is missing
	@$(SETUP) packages build run test deb
	@$(PYTHON) -m tests.host.images

setup-bench: $(VENV)/installed-dev
	@$(SETUP) packages build run bench
	@$(SETUP) server
	@$(SETUP) generator
	@$(SETUP) users

setup-check: $(VENV)/installed-dev $(STUBS)

setup-deb:
	@$(SETUP) packages build deb

$(VENV)/bin/python:
	@$(SETUP) packages build
	@.ci/step "making a virtual environment" $(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@$(SETUP) packages build
	@.ci/step "installing Python packages" $(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	@$(SETUP) packages build
	@.ci/step "installing Python packages and tools" $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/installed $@

$(STUBS): .ci/stubs $(VENV)/installed-dev
	@.ci/step "making types for Envoy's messages" $(BIN)/python .ci/stubs $(@D)
