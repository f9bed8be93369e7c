# Needs Python 3.11 or newer and nothing else. PYTHON names another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := .venv-core
PIP := $(BIN)/python -m pip install --quiet

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One environment, filled in steps: each stamp is renewed when pyproject.toml changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "mlinfer needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>/dev/null || echo "no '$(PYTHON)'")." >&2; \
	  echo "Name another interpreter: make $(or $(MAKECMDGOALS),venv) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) --editable '.[test,dev]'
	touch $@

# What `pip install mlinfer` gives, and nothing more: the README's first example has to run there.
$(CORE)/.installed: pyproject.toml README.md $(shell find src -name __pycache__ -prune -o -type f -print) | $(BIN)/python
	$(BIN)/python -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet .
	touch $@

.PHONY: venv
venv: $(VENV)/.test ## set up .venv with mlinfer and what its tests need

.PHONY: demo
demo: $(VENV)/.core ## run the demo; installs the core dependencies only
	$(BIN)/mlinfer demo

.PHONY: test
test: $(VENV)/.test $(if $(ARGS),,$(CORE)/.installed) ## run every test and every example in a docstring (ARGS="-k name" picks)
	$(BIN)/python -m pytest $(ARGS)
	$(if $(ARGS),,$(CORE)/bin/python scripts/run_readme_example.py)

.PHONY: torture
torture: $(VENV)/.test ## kill, stop, race and cut pipelines thousands of times, and judge what they delivered (ARGS="--lane 'kill sqlite' --seed 1")
	PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## check style, types and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.dev ## rewrite the code the way lint wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.core ## measure throughput and latency
	$(BIN)/python benchmarks/run.py

.PHONY: bench-online
bench-online: $(VENV)/.test ## measure the server beside its peers; needs wrk (ARGS="--only mlinfer,fastapi")
	$(BIN)/python benchmarks/online.py $(ARGS)

.PHONY: clean
clean: ## remove everything that can be made again
	rm -rf $(VENV) $(CORE) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
