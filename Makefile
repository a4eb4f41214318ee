# `make test` on a fresh machine makes the virtual environment first; it is made again when pyproject.toml changes.
PYTHON3 ?= python3
VENV ?= .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# Tests run in one process for each core, each with one thread.
WORKERS ?= auto
PYTEST = $(PYTHON) -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: venv test test-all lint site package demo

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml
	$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --editable ".[dev]"
	touch $@

# Everything but the few tests that tests/long_tests.py names.
test: venv
	$(PYTEST) -m "not long"

test-all: venv
	$(PYTEST)

lint: venv
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

# The documentation, in build/site.
site: venv
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

# Wheel and source distribution, in dist.
package: venv
	rm -rf dist
	$(PYTHON) -m build --outdir dist .
	$(PYTHON) -m twine check --strict dist/*

demo: venv
	$(PYTHON) demo/run.py $(if $(DATA),--data $(DATA))
