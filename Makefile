# mmparity: `make` lists what there is. Everything runs in .venv, which `make setup` makes.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help parity test setup quick gate gate-live gate-recorded lint format types bench \
	bench-compare report fuzz hlmdiag docs wheel clean

BIN := .venv/bin
REPORT ?= parity-report
# Of `make report`: live takes ten times as long.
REFERENCE ?= recorded
BASE ?= HEAD~1
ROUNDS ?= 5
# More words for `parity gate` and `parity fuzz`.
GATE ?=
FUZZ ?=
# Tests of one file share their R process; more than four processes would only start more of these.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile
# One BLAS thread: R's default, sums in a fixed order, no contention on small machines.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

parity: setup ## set up, then compare mmcore with lme4 and HLMdiag: table, and an HTML report in parity-report/
	@$(BIN)/parity run --report $(REPORT)

test: setup ## set up, then the whole test suite (live R tests where R is)
	@alone=0; $(BIN)/python -m pytest -q -m alone $(PYTEST) || alone=$$?; \
	  if [ $$alone = 5 ]; then alone=0; fi; \
	  $(BIN)/python -m pytest -q $(PARALLEL) -m "not alone" $(PYTEST) && exit $$alone

setup: ## make .venv, install the package, R and its packages where allowed; quick when done
	@scripts/setup.sh

quick: setup ## tests without R and without the slow ones
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not live and not slow" $(PYTEST)

gate: setup ## the verdict by exit code: live R where it is, and the recorded references
	@if $(BIN)/python -c 'import sys; from parity.r.worker import r_available; sys.exit(not r_available())'; \
	then $(MAKE) --no-print-directory gate-live; else echo "gate: no live R here (see parity doctor)"; fi
	@$(MAKE) --no-print-directory gate-recorded

gate-live: ## the gate against live R
	@$(BIN)/parity gate --reference live $(GATE)

gate-recorded: ## the gate against the recorded references
	@$(BIN)/parity gate --reference recorded $(GATE)

lint: setup ## ruff: rules and layout
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## let ruff mend rules and layout
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup ## mypy
	@$(BIN)/mypy

bench: setup ## stages by size, then mmcore against lme4 and other engines, in turns, answers checked first; 15 minutes
	@$(BIN)/python -m pytest -q benchmarks --benchmark-only --benchmark-max-time=0.5 --benchmark-min-rounds=3 \
	  --benchmark-columns=min,median,iqr,rounds --benchmark-json=benchmarks/stages.json
	@$(BIN)/parity bench run --rounds $(ROUNDS) --engine all --digits --memory --scaling n --scaling q --scaling terms \
	  --json benchmarks/measured/fit.json --history

bench-compare: setup ## every stage of BASE (a git revision) and of this checkout in turns; fails on a regression
	@$(BIN)/parity bench compare $(BASE) --markdown bench-compare.md

report: setup ## compare all engines that are here and write the site: REPORT/index.html
	@$(BIN)/parity report $(REPORT) --reference $(REFERENCE)

fuzz: setup ## random models against live R
	@$(BIN)/parity fuzz $(FUZZ)

hlmdiag: ## try to install HLMdiag from CRAN (into .r-library)
	@scripts/setup.sh hlmdiag

docs: setup ## write the pages of docs/ that are tables of what the program holds
	@$(BIN)/python scripts/make_docs.py

wheel: setup ## build dist/*.whl
	@$(BIN)/python -m hatchling build -t wheel

clean: ## remove what the tools made; .venv, .r-library and R stay
	@rm -rf build dist $(REPORT) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .setup bench-compare.md benchmarks/stages.json
