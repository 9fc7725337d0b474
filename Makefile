# Everything a developer types. `make help` lists it.
#
# The first target that needs Python makes .venv with the machine's own Python (3.11 or newer) and installs what uv.lock
# names; after that nothing needs the network. PYTHON=/path/to/python3 chooses another interpreter.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

export UV_PROJECT_ENVIRONMENT := $(CURDIR)/$(VENV)

.PHONY: help dev demo test unit fault bench bench-quick lint types arch check clean helm-check

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(INSTALLED) ## Kafka, Postgres, every service and a demo account on this machine; Ctrl-C stops them
	@exec $(PY) -m millrace_devstack dev --with-parent

demo: $(INSTALLED) ## Send real input through a running `make dev` and show what happened
	@exec $(PY) -m millrace_cli demo

test: $(INSTALLED) ## Every test (the faults in their short form)
	@$(PY) -m pytest

unit: $(INSTALLED) ## The tests that need no server
	@$(PY) -m pytest tests/unit tests/property

fault: $(INSTALLED) ## Every fault in full, hours long; writes its table to docs/failures.md
	@MILLRACE_FAULT=full $(PY) -m pytest tests/fault tests/property/test_simulation.py -s

bench: $(INSTALLED) ## Ours beside the bare limit, written to .millrace/bench.json
	@exec $(PY) -m tests.bench

bench-quick: $(INSTALLED) ## The same in a few minutes, for a first look
	@exec $(PY) -m tests.bench --quick

lint: $(INSTALLED) ## ruff: rules and format
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(INSTALLED) ## mypy, strict
	@$(VENV)/bin/mypy

arch: $(INSTALLED) ## import-linter: the layers of ARCHITECTURE.md
	@$(VENV)/bin/lint-imports

check: lint types arch test ## What CI runs

helm-check: $(INSTALLED) ## Render the chart in every profile with Helm 4 and check it against the Kubernetes schemas
	@exec $(PY) -m tests.support.helm

clean: ## Drop the development data (.millrace) and every tool's cache; not .venv
	@if [ -x $(PY) ] && [ -e .millrace ]; then $(PY) -m millrace_devstack stopped; fi
	@rm -rf .millrace .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# One tool installs the other: pip brings the pinned uv, uv brings what the lock file names.
$(INSTALLED): uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml) | $(VENV)/bin/uv
	@$(VENV)/bin/uv sync --quiet --frozen --all-packages --inexact --compile-bytecode
	@touch $@

$(VENV)/bin/uv:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer (Debian: apt install python3 python3-venv), or say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Millrace needs Python 3.11 or newer and $(PYTHON) is $$($(PYTHON) --version); say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); echo "this Python has no ensurepip: install the package python$$v-venv (Debian, Ubuntu: apt install python$$v-venv)"; exit 1; }
	@echo "making $(VENV) and installing what uv.lock names; this happens once"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
