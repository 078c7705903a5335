# Every target makes its own environment first: Python and make are all that a machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := runs/demo
BENCHMARK := .venv-benchmark
OLDEST := .venv-oldest

.DEFAULT_GOAL := help
.PHONY: help demo benchmark test test-browser oldest lint types check format overhead peers soak study transitions clean

help:
	@echo "make demo      train a run that groks and one that does not, and show what is found"
	@echo "make test      the test suite"
	@echo "make test-browser  the TensorBoard tab in a real browser"
	@echo "make oldest    the test suite with the oldest versions that are supported; five gigabytes in .venv-oldest"
	@echo "make check     lint, types and tests"
	@echo "make overhead  measure what the monitor costs"
	@echo "make benchmark  an environment in .venv-benchmark, for benchmarks/fisher.py and the others that compare"
	@echo "make peers     measure what others cost that watch a training"
	@echo "make study     does the specific heat of attention peak before a model generalizes? on two cores"
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

# What the benchmarks compare with, apart from what the tests use. BackPACK asks for torchvision, no benchmark does, and one
# that does not fit the torch (as with a torch for CPUs) breaks `import lightning`: it goes, and the import is tried.
$(BENCHMARK)/.made: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(BENCHMARK)
	$(BENCHMARK)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BENCHMARK)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[lightning,huggingface,analysis]' --group benchmark
	$(BENCHMARK)/bin/python -m pip uninstall --quiet --yes torchvision
	$(BENCHMARK)/bin/python -c 'import backpack, curvlinops, lightning, physfdt, river, thermoclaw, transformers, wandb'
	@touch $@

benchmark: $(BENCHMARK)/.made

demo: $(VENV)/.base
	$(BIN)/thermo-monitor demo --dir $(DEMO)

# One thread each: two workers with two threads of torch would get in each other's way.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# In the chromium of the system, which a root of Debian gets here; elsewhere install one first.
test-browser: $(VENV)/.browser
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	THERMO_BROWSER=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

# Its torch comes with five gigabytes of CUDA, which takes minutes to install: CI leaves this out.
$(OLDEST)/.made: constraints-oldest.txt pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt \
		-e '.[lightning,huggingface,analysis,alerts,scan]' pytest pytest-xdist hypothesis
	@touch $@

# Warnings of old packages about newer ones are no errors.
oldest: $(OLDEST)/.made
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist worksteal -W default -rs

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

peers: $(BENCHMARK)/.made
	$(BENCHMARK)/bin/python benchmarks/peers.py
# Resumable: a run that is recorded is not trained again; remove the recordings to train them all.
transitions: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/transitions/generate.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/transitions.py \
		--json benchmarks/results/transitions.json --docs docs/transitions.md

soak: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.run --minutes 10
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.killed --kills 50
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.leaks --ticks 20000

# A cell of the grid that is there is not trained again: it goes on where it was stopped.
study: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python studies/specific_heat/run.py --figures docs/images

clean:
	rm -rf $(VENV) $(BENCHMARK) $(OLDEST) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
