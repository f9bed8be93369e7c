# Needs Python 3.11 or newer and nothing else. PYTHON names another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := .venv-core
AUDIT := .venv-audit
PIP := $(BIN)/python -m pip install --quiet

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Tests start hundreds of programs: each would compile all of mlinfer anew.
unexport PYTHONDONTWRITEBYTECODE

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

# kserve asks for pandas before 3 and for psutil before 6, and brings Kubernetes: what its clients import, and nothing else,
# lies in a folder of its own, where one test looks for it.
$(VENV)/.kserve: | $(VENV)/.test
	$(PIP) --no-deps --upgrade --target $(VENV)/kserve 'kserve>=0.21' annotated-doc 'cloudevents<2' deprecation fastapi opentelemetry-api starlette
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) --editable '.[test,dev]'
	touch $@

# What `pip install mlinfer` gives, and nothing more: the README's first example has to run there. Python compiles the
# little that it needs; all of scikit-learn and SciPy would take longer than the rest.
$(CORE)/.installed: pyproject.toml README.md $(shell find src -name __pycache__ -prune -o -type f -print) | $(BIN)/python
	$(BIN)/python -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --no-compile .
	touch $@

.PHONY: venv
venv: $(VENV)/.test $(VENV)/.kserve ## set up .venv with mlinfer and what its tests need

.PHONY: demo
demo: $(VENV)/.core ## run the demo; installs the core dependencies only
	$(BIN)/mlinfer demo

.PHONY: test
test: $(VENV)/.test $(VENV)/.kserve $(if $(ARGS),,$(CORE)/.installed) ## run every test and every example in a docstring (ARGS="-k name" picks)
	$(BIN)/python -m pytest $(ARGS)
	$(if $(ARGS),,$(CORE)/bin/python scripts/run_readme_example.py)

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

# An environment of their own: what looks at the dependencies is none of them.
$(AUDIT)/.installed: | $(BIN)/python
	$(BIN)/python -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet 'pip-audit>=2.9' 'cyclonedx-bom>=7'
	touch $@

# Strictly, or it would pass over every package of which the service knows nothing, and find nothing at all.
.PHONY: audit
audit: $(VENV)/.dev $(AUDIT)/.installed ## compare what is installed with the advisories that PyPI knows; needs that service
	$(BIN)/python -m pip freeze --exclude-editable > $(AUDIT)/installed.txt
	@$(AUDIT)/bin/pip-audit --requirement $(AUDIT)/installed.txt --no-deps --disable-pip --strict --progress-spinner off || { \
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
bench: $(VENV)/.core ## measure throughput and latency
	$(BIN)/python benchmarks/run.py

.PHONY: bench-online
bench-online: $(VENV)/.test ## measure the server beside its peers; needs wrk (ARGS="--only mlinfer,fastapi")
	$(BIN)/python benchmarks/online.py $(ARGS)

.PHONY: clean
clean: ## remove everything that can be made again
	rm -rf $(VENV) $(CORE) $(AUDIT) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
