# What one does with a checkout. `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt
# Of pip's many lines, those that say why it takes so long.
PIP_NEWS := awk '/^ *(Downloading|Building|ERROR|error)/ {sub(/^ */, "    "); print; fflush()} \
	/^Installing/ {print "    unpacking (a minute or two)"; fflush()}'

# The first Python that is new enough; `make PYTHON=/path/to/python demo` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

IMAGES ?=
PHOTOS ?=
N ?= 200
ARGS ?=
BENCH ?= page
# Tests wait for processes most of the time: three at a time keep two cores busy.
JOBS ?= 3

# For `make nemesis`: how long, which faults (none: others each time), and whether every test that takes minutes is run.
SECONDS ?= 600
SEED ?=
ALL ?=

.PHONY: help demo up test nemesis lint bench clean

help: ## Show this list
	@echo "Tagmill: bulk tagging and moderation of pictures. Needs Python >= 3.11 and a package index, nothing else."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(RUN_STAMP) ## Run the whole system on some pictures and stop (IMAGES=folder or PHOTOS=public, N=how many)
	@$(BIN)/tagmill demo --count $(N) $(if $(IMAGES),--images "$(IMAGES)") $(if $(filter-out public,$(PHOTOS)),$(error PHOTOS=public is all that PHOTOS can be; for photos of yours: IMAGES=folder))$(if $(PHOTOS),--public)

up: $(RUN_STAMP) ## Run the whole system until Ctrl-C (ARGS="--port 9000")
	@exec $(BIN)/tagmill up $(ARGS)

test: $(DEV_STAMP) ## Run the tests (ARGS="tests/db -k claim", JOBS=how many at a time)
	@# A test process that dies ends the run: xdist would wait for the files of the dead for ever.
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 $(ARGS)

nemesis: $(DEV_STAMP) ## Break a running system at random, judged after each round (SECONDS=600, SEED= of a run; ALL=1: every test of minutes)
	@NEMESIS_SECONDS=$(SECONDS) NEMESIS_SEED=$(SEED) $(BIN)/python -m pytest -m nemesis $(if $(ALL),tests,tests/faults/test_nemesis.py) $(ARGS)

lint: $(DEV_STAMP) ## Check style, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV_STAMP) ## Measure this machine: remakes docs/performance.md's tables; or BENCH=line, submit… (ARGS="--count 1000")
	@$(BIN)/python -m bench.$(BENCH) $(ARGS)

clean: ## Remove the environment and caches; keeps your data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "· installing Tagmill and its libraries into $(VENV) (torch is large: minutes, the first time)"
	@$(PIP_INSTALL) -e '.[embedded,cpu]' | $(PIP_NEWS)
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "· installing Tagmill, its libraries and the development tools into $(VENV) (minutes, the first time)"
	@$(PIP_INSTALL) -e '.[embedded,cpu,dev]' | $(PIP_NEWS)
	@touch $(RUN_STAMP) $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Tagmill needs Python 3.11 or newer: none found. Try: make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 1; }
	@echo "· making an environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "No environment could be made. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
