# The commands of this project. Each one does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := torch,tensorflow,examples,dev
READY := $(VENV)/.headrace-ready

# The first of these that is a Python 3.10 to 3.12; `make setup PYTHON=...` overrides it.
PYTHON ?= $(shell for each in python3.11 python3.12 python3.10 python3; do \
	if $$each -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; \
	then echo $$each; break; fi; done)

.PHONY: help setup java demo demo-tensorflow demo-sql test long lint unit flink faults faults-long chaos kinds fuzz bench
help: ## Say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 22

setup: $(READY) ## Create .venv with everything, pinned by constraints.txt

$(READY): pyproject.toml constraints.txt hatch_build.py
	@if [ -z "$(PYTHON)" ] && [ ! -x $(BIN)/python ]; then \
		echo "Headrace needs Python 3.10, 3.11 or 3.12; none was found." \
			"Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@if ! command -v java >/dev/null; then \
		echo "Headrace needs a Java 17 JDK; no java was found." \
			"Install one, for example: apt-get install openjdk-17-jdk-headless" >&2; exit 1; fi
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

java: setup ## Compile java/ into src/headrace/_jars/headrace.jar, if it has changed
	@$(BIN)/python hatch_build.py

demo: java ## Train a delay model on real flights that Flink SQL joins with weather and planes
	$(BIN)/python -m examples.flight_delays

demo-tensorflow: java ## The same in TensorFlow, with a parameter server, an evaluator and TensorBoard
	$(BIN)/python -m examples.flight_delays --framework tensorflow --out out/flight_delays_tensorflow

demo-sql: java ## Score November and December in SQL, with the models of both demos; plot them by hour
	[ -e out/flight_delays/model.pt2 ] || $(BIN)/python -m examples.flight_delays
	[ -e out/flight_delays_tensorflow/model.keras ] || \
		$(BIN)/python -m examples.flight_delays --framework tensorflow --out out/flight_delays_tensorflow
	$(BIN)/python -m examples.flight_delays.score
	$(BIN)/python -m examples.flight_delays.score --framework tensorflow --out out/flight_delays_tensorflow
	$(BIN)/python -m examples.flight_delays.plot_by_hour out/flight_delays out/flight_delays_tensorflow

# Two files at a time, for two cores. Those that take long come first.
test: java lint ## Everything that CI runs: lint, then all tests
	@# Each job starts processes of Python: where the environment forbids them to keep what they compile.
	$(BIN)/python -m compileall -q src tests
	$(BIN)/python -m pytest --durations=30 -n 2 --dist loadfile --no-loadscope-reorder -m "not long" \
		tests/flink tests/faults tests/unit tests/conventions

long: java ## What CI leaves out, in half an hour: longer variants, the smallest runs of most benchmarks
	$(BIN)/python -m pytest --durations=30 -n 2 --dist loadfile --no-loadscope-reorder -m long tests

lint: setup ## ruff, mypy and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

unit: java ## Tests without Flink
	$(BIN)/python -m pytest tests/unit tests/conventions

flink: java ## Tests on Flink's mini-cluster
	$(BIN)/python -m pytest tests/flink

faults: java ## Tests that kill things
	$(BIN)/python -m pytest tests/faults

faults-long: java ## 200 random kills with a printed seed; SEED=n and COUNT=n repeat a run
	$(BIN)/python -m tests.faults.long $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

chaos: java ## 104 random kills of jobs that count and train: results must be exact; SEED=n repeats a run
	$(BIN)/python -m tests.faults.chaos $(if $(SEED),--seed $(SEED))

kinds: java ## Kills and freezes of all kinds on a real cluster, and how long they cost; SEED=n repeats a run
	$(BIN)/python -m tests.faults.kinds $(if $(SEED),--seed $(SEED))

fuzz: java ## Nonsense on every protocol, for many minutes: fifty times what `make unit` sends, at random
	$(BIN)/python -m pytest --hypothesis-profile=long $(wildcard tests/unit/*/test_fuzz_*.py)

bench: java ## Measure; see benchmarks/README.md
	$(BIN)/python -m benchmarks
