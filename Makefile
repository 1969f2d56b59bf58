# Two commands matter: `make demo` and `make test`. PYTHON=python3.12 chooses another Python, VENV=DIR another place.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
# pip compiles on one core what it installs; this is on all of them. A package may carry files that are no Python.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs packages clean

help:
	@echo 'make demo    environment in $(VENV), install, then the main job: python train.py (2 minutes after installing)'
	@echo 'make test    everything the tests need, then lint and the whole test suite'
	@echo 'make lint    ruff and pyright only'
	@echo 'make docs    the pages of docs/ as a site, in site/'
	@echo 'make clean   remove $(VENV) and caches; runs/ and data/ stay'

demo: $(VENV)/.installed
	$(BIN)/python train.py

# What the system lacks and what Python lacks is fetched side by side.
test:
	@$(MAKE) --no-print-directory --jobs=2 packages lint
	@# Hundreds of processes import our package; where PYTHONDONTWRITEBYTECODE is set, each would compile it.
	@$(BIN)/python -m compileall -qq src
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.installed
	$(PIP) install --editable '.[docs]'
	@touch $@

# torch and torchvision come from one resolution: builds that do not match each other fail only when imported.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV); torch is large, this takes some minutes'
	$(PIP) install --no-compile --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV); torch is large, this takes some minutes'
	$(PIP) install --no-compile --editable '.[test]'
	@# Without what it depends on, some of which wants a NumPy of the past: the tests use one file of it.
	$(PIP) install --no-compile --no-deps 'k-diffusion==0.1.1.post1'
	@$(COMPILE)
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@# Half an environment would be taken for a whole one the next time.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A machine where we may not install packages still runs all tests that do without them.
packages:
	@.ci/packages

clean:
	rm -rf $(VENV) site build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
