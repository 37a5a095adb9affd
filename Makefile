# Everything a developer or a new user needs; every target sets itself up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEMO := $(VENV)/.ready-demo
OUT ?= out
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geococa needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# what the main job needs; the demo does not wait for the developers' tools
$(DEMO): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[ml,report]'
	@touch $@

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@ $(DEMO)

setup: $(STAMP)  ## make .venv with everything in it

demo: $(DEMO)  ## run the main job on sample_tiles/ and leave a report to open
	$(BIN)/geococa demo --archive sample_tiles --out $(OUT)/demo

test: $(STAMP)  ## run all tests (slow proofs apart)
	$(BIN)/python -m pytest -n 2 --dist loadfile

proof: $(STAMP)  ## run the slow proofs too
	$(BIN)/python -m pytest -n 2 --dist loadfile --slow

test-nojit: $(STAMP)  ## the kernels as plain Python, for coverage and readable tracebacks
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest tests/kernels -n 2 --dist loadfile

test-bounds: $(STAMP)  ## the kernels with array bounds checked
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/numba-bounds $(BIN)/python -m pytest tests/kernels -n 2 --dist loadfile

check: $(STAMP)  ## lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## time every stage beside its peers
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	for script in benchmarks/bench_*.py; do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done
	$(BIN)/python benchmarks/tables.py

docs: $(STAMP)  ## build the documentation in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

samples: $(STAMP)  ## make sample_tiles/ again
	$(BIN)/geococa simulate sample_tiles --overwrite

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

.PHONY: help setup demo test proof test-nojit test-bounds check format bench docs samples clean
