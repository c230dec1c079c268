# The one door: people, hooks and CI call the same targets. `make help` lists them.
#
# Each target does the set-up it needs and nothing twice: .venv is made once, packages are installed when their lock
# changed, the core is built when a Rust source changed. Stamps for that live in .venv, so `make clean` forgets them.
# Needed on the machine: make, a C linker, Python >= 3.11 with venv, Rust (cargo) >= 1.87. Nothing here wants root.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that is new enough; `make PYTHON=...` overrules.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
RUST_SOURCES := $(shell find crates -name target -prune -o \( -name '*.rs' -o -name Cargo.toml \) -print) Cargo.toml
# Two builds at once in one tree (make up here, make test there) would take each other's files away.
ONE_AT_A_TIME := $(if $(shell command -v flock),flock $(VENV))
PYTHON_CODE := src tests $(wildcard tools benchmarks)

# What a target passes on: make up ARGS='--shards 8', make test-python PYTEST_ARGS='-k scan', make fuzz FUZZ_SECONDS=60
ARGS ?=
PYTEST_ARGS ?=
CARGO_ARGS ?=
FUZZ_SECONDS ?= 10
MINUTES ?= 2

# --------------------------------------------------------------------------------------------------- build and run

.PHONY: build
build: $(VENV)/.core  ## set everything up and leave .venv/bin/shoal; quick when nothing changed
	@:

.PHONY: up
up: build  ## start four embedded shards and the proxy on 127.0.0.1:6380 (ARGS='--shards 8 ...'); Ctrl-C stops
	@$(BIN)/shoal up $(ARGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: Python >= 3.11 is missing (Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) lacks venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock $(VENV)/bin/python
	@echo "installing $(words $(shell grep '==' requirements.lock | cut -d= -f1)) packages into $(VENV)"
	@$(PIP) --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "installing what tests and lint need into $(VENV)"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# An old redis-py for the smoke tests; in a folder of its own, because .venv holds the newest.
.cache/redis53/.installed: requirements-oldest-client.lock $(VENV)/.installed
	@rm -rf $(@D)
	@$(PIP) --require-hashes --target $(@D) -r requirements-oldest-client.lock
	@touch $@

$(VENV)/.core: $(RUST_SOURCES) Cargo.lock pyproject.toml $(VENV)/.installed
	@command -v cargo >/dev/null || { echo "make: cargo is missing: install Rust >= 1.87, for instance with rustup" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "make: cc is missing: Rust links with it (Debian: apt-get install gcc libc6-dev)" >&2; exit 1; }
	@echo "building the core (a minute or two from nothing)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_NO_INDEX=1 $(ONE_AT_A_TIME) $(BIN)/maturin develop --release --locked >$(VENV)/build.log 2>&1 || \
		{ cat $(VENV)/build.log >&2; exit 1; }
	@touch $@

# -------------------------------------------------------------------------------------------------- test and lint

.PHONY: test
test:  ## run every test, Rust and Python; the end lists what was skipped and what would bring it
	@$(MAKE) --no-print-directory --keep-going test-rust test-python

.PHONY: test-rust
test-rust:  ## run the core's own tests
	cargo test --workspace --locked --quiet --no-fail-fast $(CARGO_ARGS)

.PHONY: test-python
test-python: build $(VENV)/.installed-dev .cache/redis53/.installed  ## run the Python and system tests (PYTEST_ARGS='-k scan')
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-clients
test-clients: build $(VENV)/.installed-dev  ## run the smoke tests of ioredis, node-redis, go-redis and Jedis
	$(BIN)/python -m pytest -m other_clients tests/clients $(PYTEST_ARGS)

.PHONY: test-redispy
test-redispy: build $(VENV)/.installed-dev  ## run redis-py's own tests on one Redis and through shoal (ARGS='--record')
	@PYTHONPATH=tests:. $(BIN)/python -m redispy $(ARGS)

.PHONY: test-differential
test-differential: build $(VENV)/.installed-dev  ## compare random programs on one server and through shoal (ARGS='--seed 7')
	@PYTHONPATH=tests:. $(BIN)/python -m differential $(ARGS)

.PHONY: test-apps
test-apps: build $(VENV)/.installed-dev  ## run applications (Celery, RQ, BullMQ, ...) through shoal (ARGS='-k celery --plain')
	@PYTHONPATH=tests:. $(BIN)/python -m apps $(ARGS)

.PHONY: test-consistency
test-consistency: build $(VENV)/.installed-dev  ## check histories of many clients for MINUTES (2), see CONTRIBUTING.md (ARGS)
	@PYTHONPATH=tests:. $(BIN)/python -m consistency --minutes $(MINUTES) $(ARGS)

.PHONY: lint
lint:  ## check style and types, Python and Rust
	@$(MAKE) --no-print-directory --keep-going lint-python lint-rust

.PHONY: lint-python
lint-python: build $(VENV)/.installed-dev  ## check with ruff, mypy --strict and stubtest
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/mypy $(PYTHON_CODE)
	$(BIN)/python -m mypy.stubtest --allowlist tests/stubtest-allowlist.txt shoal._core

.PHONY: lint-rust
lint-rust: $(VENV)/bin/python  ## check with rustfmt and clippy
	cargo fmt --all --check
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

.PHONY: format
format: $(VENV)/.installed-dev  ## rewrite Python and Rust sources as lint wants them
	$(BIN)/ruff check --fix-only --quiet $(PYTHON_CODE)
	$(BIN)/ruff format $(PYTHON_CODE)
	cargo fmt --all

.PHONY: fuzz
fuzz:  ## run every fuzz target for FUZZ_SECONDS each (10)
	tools/fuzz.sh $(FUZZ_SECONDS)

# ------------------------------------------------------------------------------------------- derive and measure

.PHONY: commands
commands: build $(VENV)/.installed-dev  ## derive the command table from what real servers say of themselves
	$(BIN)/python tools/commands.py $(ARGS)

.PHONY: reference
reference: build $(VENV)/.installed-dev  ## derive the tables of docs/reference.md from the code
	$(BIN)/python tools/reference.py $(ARGS)

.PHONY: bench
bench: build $(VENV)/.installed-dev  ## measure CPU per request against other proxies, side by side (ARGS)
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-features
bench-features: build $(VENV)/.installed-dev  ## measure messages, transactions and waits beside one Redis (ARGS)
	$(BIN)/python -m benchmarks.features $(ARGS)

.PHONY: lock
lock: $(VENV)/bin/python  ## derive requirements*.lock from pyproject.toml (UPGRADE=1: newest versions)
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip --disable-pip-version-check --quiet install pip-tools
	.cache/lock/bin/python tools/lock.py

.PHONY: clean
clean:  ## remove everything that was built or installed; data under ./shoal-data stays
	rm -rf $(VENV) .cache target crates/core/fuzz/target .pytest_cache .mypy_cache .ruff_cache
	rm -rf tests/clients/node/node_modules tests/clients/java/target src/shoal/_core*.so
	find src tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile
