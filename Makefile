# One command per job; every target sets up what it needs. See `make help`.
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
TORCH ?= torch==2.13.0
JOBS ?= logical
PACKAGES := controllers simulator backend kernels traces reports

# Public arrival traces and prompts, for tests and benchmarks; without them those tests skip visibly.
ifeq ($(strip $(ENTROPIC_DATA)),)
ifneq ($(wildcard $(ROOT)../shared/data/.),)
export ENTROPIC_DATA := $(abspath $(ROOT)../shared/data)
endif
endif

.PHONY: all help setup demo test check fix prove bench gpu report size
.DELETE_ON_ERROR:

all: check test

help:
	@echo "setup   virtual environment, dependencies, model"
	@echo "demo    the main job on recorded and live input"
	@echo "test    default test suite"
	@echo "check   format, lint, import layers, types"
	@echo "fix     format and apply safe lint fixes"
	@echo "prove   a million lanes in closed loop, long property search, slow tests"
	@echo "bench   measure speed"
	@echo "gpu     measure and validate on a CUDA device"
	@echo "report  tables and figures"
	@echo "size    lines by folder"

# torch first and pinned, so that its wheel is the one this platform's index or find-links serves.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: python must be >= 3.11; got `$(PYTHON) -V` (set PYTHON=...)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -e '.[backend,eval,dev]' -c constraints.txt
	touch $@

setup: $(STAMP)
	$(BIN)/python -m backend.models fetch

demo: setup
	$(BIN)/entropic demo

test: setup
	$(BIN)/python -m pytest -q -n $(JOBS) --maxprocesses 8 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --pythonpath $(BIN)/python

fix: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

prove: setup
	$(BIN)/entropic prove
	HYPOTHESIS_PROFILE=prove $(BIN)/python -m pytest -q -m 'not gpu and not bench'

bench: setup
	$(BIN)/entropic bench all --quick
	$(BIN)/python -m pytest -q -m bench

# A machine with its own torch and Triton runs `python -m reports.gpu` without a set-up.
gpu: setup
	$(BIN)/python -m reports.gpu $(if $(STAGES),--stages $(STAGES)) $(if $(OUT),--out "$(OUT)")

report: setup
	$(BIN)/entropic report

size:
	@for folder in $(PACKAGES) tests; do \
		printf '%7d  %s\n' "`find $$folder -name '*.py' -exec cat {} + | wc -l`" $$folder; done
	@printf '%7d  total\n' "`find $(PACKAGES) tests entropic.py -name '*.py' -exec cat {} + | wc -l`"
