# Needs Python 3.11 or newer and nothing else. PYTHON names another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := .venv-core
AUDIT := .venv-audit
LOWEST := .venv-lowest
# make test WHEELS= builds what has no wheel for a Python that is newer than the lock, from sources that are locked, too.
WHEELS := --only-binary :all:
LOCKED := -m pip install --quiet --require-hashes $(WHEELS)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Tests start hundreds of programs: each would compile all of mlinfer anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What runs tests and linters is what requirements/ says, byte by byte, and nothing is built for it.
%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "mlinfer needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>/dev/null || echo "no '$(PYTHON)'")." >&2; \
	  echo "Name another interpreter: make $(or $(MAKECMDGOALS),venv) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $*

$(VENV)/.test: requirements/test.txt pyproject.toml | $(BIN)/python
	$(BIN)/python $(LOCKED) --requirement $<
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# pyproject.toml says why this lies apart.
$(VENV)/.kserve: requirements/kserve.txt | $(BIN)/python
	$(BIN)/python $(LOCKED) --no-deps --upgrade --target $(VENV)/kserve --requirement $<
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.test
	$(BIN)/python $(LOCKED) --requirement $<
	touch $@

# What `pip install mlinfer` gives today, and nothing more: the demo and the README's first example have to run there. Python
# compiles the little that they need; all of scikit-learn and SciPy would take longer than the rest.
$(CORE)/.installed: pyproject.toml README.md $(shell find src -name __pycache__ -prune -o -type f -print) | $(CORE)/bin/python
	$(CORE)/bin/python -m pip install --quiet --no-compile .
	touch $@

$(AUDIT)/.installed: requirements/audit.txt | $(AUDIT)/bin/python
	$(AUDIT)/bin/python $(LOCKED) --requirement $<
	touch $@

.PHONY: venv
venv: $(VENV)/.test $(VENV)/.kserve ## set up .venv with mlinfer and what its tests need

.PHONY: demo
demo: $(CORE)/.installed ## run the demo; installs the core dependencies only
	$(CORE)/bin/mlinfer demo
	@command -v mlinfer >/dev/null || printf '\n   Here mlinfer is $(CORE)/bin/mlinfer; after `source $(CORE)/bin/activate` it is just mlinfer.\n'

.PHONY: test
test: $(VENV)/.test $(VENV)/.kserve $(if $(ARGS),,$(CORE)/.installed) ## run every test and every example in a docstring (ARGS="-k name" picks)
	$(BIN)/python -m pytest $(ARGS)
	$(if $(ARGS),,$(CORE)/bin/python scripts/run_readme_example.py)

.PHONY: search
search: $(VENV)/.test ## look for examples that break a test, at random and for longer than `make test` does (ARGS picks)
	$(BIN)/python -m pytest --hypothesis-profile=search --timeout=3600 -m hypothesis $(ARGS)

# A page is tested in the browser that people use. CHROMIUM names another one than the first that is found.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: test-browser
test-browser: $(VENV)/.dev ## test the console in headless Chromium, which is installed if it is missing and apt-get may
	@test -n "$(CHROMIUM)" || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y chromium >/dev/null; } || { \
	  echo "wanted Chromium, found none; install it, or name it: make test-browser CHROMIUM=/path/to/chromium" >&2; exit 1; }
	CHROMIUM="$${CHROMIUM:-$$(command -v $(or $(CHROMIUM),chromium))}" $(BIN)/python -m pytest --override-ini=addopts= --import-mode=importlib -q tests/browser $(ARGS)

.PHONY: torture
torture: $(VENV)/.test ## kill, stop, race and cut pipelines thousands of times, and judge what they delivered (ARGS="--lane 'kill sqlite' --seed 1")
	PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

# Markers let one file do for every Python from 3.11 on, and for every system. What is locked stays until ARGS=--upgrade.
LOCK := $(AUDIT)/bin/uv pip compile --quiet --python $(AUDIT)/bin/python --universal --python-version 3.11 --only-binary :all: \
  --generate-hashes --custom-compile-command 'make lock' $(ARGS)

.PHONY: lock
lock: $(AUDIT)/.installed ## lock what pyproject.toml has newly asked for in requirements/ (ARGS=--upgrade: the newest of everything)
	$(LOCK) --extra test --output-file requirements/test.txt pyproject.toml
	$(LOCK) --group dev --constraint requirements/test.txt --output-file requirements/dev.txt
	$(LOCK) --group kserve --no-deps --output-file requirements/kserve.txt
	$(LOCK) --group audit --output-file requirements/audit.txt

EXTRAS := pandas polars json metrics onnx images serve grpc postgres

# A SciPy of their time: of a newer one scikit-learn 1.7 asks for what is deprecated there, and in tests a warning is an error.
$(LOWEST)/.installed: pyproject.toml $(AUDIT)/.installed | $(LOWEST)/bin/python
	$(AUDIT)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --upgrade --no-deps --only-binary :all: \
	  $(addprefix --extra ,$(EXTRAS)) --output-file $(LOWEST)/lowest.txt pyproject.toml
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[test]' 'scipy<1.16'
	touch $@

.PHONY: lowest
lowest: $(LOWEST)/.installed ## run the tests on the lowest versions that pyproject.toml allows (with PYTHON=python3.11)
	$(LOWEST)/bin/python -m pytest $(ARGS)

# Strictly, or it would pass over every package of which the service knows nothing, and find nothing at all.
.PHONY: audit
audit: $(AUDIT)/.installed ## compare what is locked with the advisories that PyPI knows; needs that service
	@$(AUDIT)/bin/pip-audit $(addprefix --requirement ,$(wildcard requirements/*.txt)) --no-deps --disable-pip --strict --progress-spinner off || { \
	  echo "wanted every package audited and none with an advisory; see above. 'not found on PyPI': the service that knows" >&2; \
	  echo "the advisories is not reached from here (a mirror has none): run this where it is." >&2; exit 1; }

.PHONY: sbom
sbom: $(CORE)/.installed $(AUDIT)/.installed ## write dist/sbom.json: what `pip install mlinfer` brings, in CycloneDX
	mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file dist/sbom.json $(CORE)/bin/python

.PHONY: lint
lint: lint-style lint-types lint-users lint-floors ## check style, types and the floors (with -j2 on two cores at once)

.PHONY: lint-style
lint-style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: lint-types
lint-types: $(VENV)/.dev
	$(BIN)/mypy

.PHONY: lint-users
lint-users: $(VENV)/.dev
	$(BIN)/pyright

.PHONY: lint-floors
lint-floors: $(VENV)/.dev
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.dev ## rewrite the code the way lint wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.test ## measure throughput and latency
	$(BIN)/python benchmarks/run.py

.PHONY: bench-online
bench-online: $(VENV)/.test ## measure the server beside its peers; needs wrk (ARGS="--only mlinfer,fastapi")
	$(BIN)/python benchmarks/online.py $(ARGS)

.PHONY: clean
clean: ## remove everything that can be made again
	rm -rf $(VENV) $(CORE) $(AUDIT) $(LOWEST) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
