# `make test` on a fresh machine makes the virtual environment first; it is made again when pyproject.toml changes.
PYTHON3 ?= python3
VENV ?= .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: venv test lint demo

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --editable ".[dev]"
	touch $@

test: venv
	$(PYTHON) -m pytest

lint: venv
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

demo: venv
	$(PYTHON) demo/run.py $(if $(DATA),--data $(DATA))
