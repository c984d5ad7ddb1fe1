# `make demo` and `make test` do all their own set-up, in either order, again and again.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Everything that headrace keeps, caches included, lies in one folder of the user's.
export HEADRACE_STATE ?= $(or $(XDG_STATE_HOME),$(HOME)/.local/state)/headrace
export UV_CACHE_DIR ?= $(HEADRACE_STATE)/cache/uv
# Byte code goes there too, not into the checkout. Without any, imports of the large libraries take four times as long.
export PYTHONPYCACHEPREFIX ?= $(HEADRACE_STATE)/cache/pyc
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup check test test-containers demo clean

help:  ## say what the targets are
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## make .venv with everything for development

# The stamp is written last, so an interrupted set-up starts over instead of being taken for a finished one.
$(VENV)/.ready: pyproject.toml constraints.txt scripts/setup.py
	$(PYTHON) scripts/setup.py $(VENV)

check: setup  ## format, lint, types, room boundaries, unit tests (under a minute)
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/unit

test: setup  ## all tests, real servers and a real training included
	$(BIN)/python -m pytest

test-containers: setup  ## images, registry, TorchServe, PostgreSQL, S3 on real parts; INSTALL=1 installs them (Debian, root)
	HEADRACE_TEST_CONTAINERS=1 HEADRACE_TEST_INSTALL=$(INSTALL) $(BIN)/python -m pytest tests/containers -rs

demo: setup  ## the whole story on examples/digits
	$(BIN)/headrace demo

clean:  ## remove the virtual environment and build leftovers
	rm -rf $(VENV) build dist
