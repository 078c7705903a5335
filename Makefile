# Every target makes its own environment first: Python and make are all that a machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := runs/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser lint types check format overhead transitions soak clean

help:
	@echo "make demo      train a run that groks and one that does not, and show what is found"
	@echo "make test      the test suite"
	@echo "make test-browser  the TensorBoard tab in a real browser"
	@echo "make check     lint, types and tests"
	@echo "make overhead  measure what the monitor costs"
	@echo "make transitions  train the runs with known transitions that are not recorded yet, and score the detector"
	@echo "make soak      ten minutes of faults at random, fifty kills, 20,000 ticks"

$(VENV)/.base: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -e '.[lightning]'
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) -e '.[lightning,huggingface,analysis,alerts,scan]' --group test
	@touch $@

$(VENV)/.browser: $(VENV)/.test
	$(PIP) --group browser
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) --group lint
	@touch $@

demo: $(VENV)/.base
	$(BIN)/thermo-monitor demo --dir $(DEMO)

# One thread each: two workers with two threads of torch would get in each other's way.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# In the chromium of the system, which a root of Debian gets here; elsewhere install one first.
test-browser: $(VENV)/.browser
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	THERMO_BROWSER=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint
	$(BIN)/mypy

check: lint types test

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

overhead: $(VENV)/.base
	$(BIN)/python benchmarks/overhead.py

# Resumable: a run that is recorded is not trained again; remove the recordings to train them all.
transitions: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/transitions/generate.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/transitions.py \
		--json benchmarks/results/transitions.json --docs docs/transitions.md

soak: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.run --minutes 10
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.killed --kills 50
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.leaks --ticks 20000

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
