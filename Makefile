# Every target sets up what it needs in .venv of this checkout, from constraints.txt; nothing else has to be installed.
#
#   make demo     train three models on real digits through every part, and show what was stored
#   make test     the whole suite, real nats-server included
#   make check    lint, format, types, import layers, tidiness
#   make bench    the figures of the README, as tables
#   make bench-peers  wandb, mlflow and others beside us, into tests/benchmarks/RESULTS.md: ONLY=trackio,headrace COLUMNS=read RUNS=3
#   make soak     minutes of faults, then a verdict: SECONDS=600 SEED=any LOSSY=1 REMOTE=1
#   make up       nats-server, agent and collector for this checkout, until Ctrl-C
#   make pins     write constraints.txt anew from what .venv holds

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# make's default shell may have no HOME and no locale (a bare container): pip and rich then still work
export LC_ALL ?= C.UTF-8
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

PEERS := .venv-peers
PEERS_PINS := tests/benchmarks/peers/constraints.txt
PEERS_READY := $(PEERS)/.ready

.PHONY: demo test check bench bench-peers soak up pins

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/python deploy/demo/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n 3

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/test_tidy.py

bench: $(READY)
	$(BIN)/python -m tests.benchmarks

# The peers have an environment and pins of their own: nothing of theirs is a dependency of ours.
$(PEERS_READY): tests/benchmarks/peers/requirements.txt $(PEERS_PINS)
	rm -rf $(PEERS)
	$(PYTHON) -m venv $(PEERS)
	PIP_CONSTRAINT=$(PEERS_PINS) PIP_BUILD_CONSTRAINT=$(PEERS_PINS) \
	  $(PEERS)/bin/python -m pip install --quiet --requirement tests/benchmarks/peers/requirements.txt
	@touch $@

bench-peers: $(READY) $(PEERS_READY)
	$(BIN)/python -m tests.benchmarks.peers $(if $(ONLY),--only $(ONLY)) $(if $(COLUMNS),--columns $(COLUMNS)) \
	  $(if $(RUNS),--runs $(RUNS)) $(if $(ONLY)$(COLUMNS),,--write tests/benchmarks)

soak: $(READY)
	$(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(LOSSY),--lossy) \
	  $(if $(REMOTE),--remote)

up: $(READY)
	$(BIN)/headrace up --home .up

pins: $(READY)
	$(BIN)/python -m pip freeze --exclude-editable > constraints.new
	mv constraints.new constraints.txt
	@touch $(READY)
