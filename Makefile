# A fresh machine needs Python (3.10 or newer, with venv) and make; everything else is installed into .venv.
#
#   make demo         steer small models by feedback, beside plain ones: a verdict and a report (minutes)
#   make test         the fast tests
#   make test-slow    larger runs and fault injection
#   make lint         formatting, lints, types
#   make bench        speed and memory beside peers
#   make docs         write the generated pages of docs/
#   make clean        remove .venv and caches; runs stay

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input
INSTALLED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint bench docs clean check-python

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.core
	$(VENV)/bin/foretrain demo

# One thread a worker: two workers with two threads each would only wait for one another.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m slow --numprocesses $(WORKERS)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

bench: $(VENV)/.dev
	@set -e; for file in benchmarks/[a-z]*.py; do \
	  echo "== $$file"; $(VENV)/bin/python -m benchmarks.$$(basename $$file .py); done

docs: $(VENV)/.core
	$(VENV)/bin/python -m foretrain.reference --write docs

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Both stamps are made once and again when what is installed changes. The demo needs no test tools.
$(VENV)/.core: $(INSTALLED) | check-python
	$(call install,.)

$(VENV)/.dev: $(INSTALLED) | check-python
	$(call install,.[dev])
	@touch $(VENV)/.core

define install
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -qq --constraint constraints.txt --editable '$(1)'
	@touch $@
endef

check-python:
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "There is no '$(PYTHON)' here: install Python 3.10 or newer (Debian: apt install python3 python3-venv), or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "'$(PYTHON)' is older than Python 3.10: install a newer one, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make virtual environments: install them first (Debian: apt install python3-venv)" >&2; exit 1; }
