# make run     play connect four against itself for ten minutes, archive every game, leave a strong player
# make test    lint, types, import order and the quick tests; at most ten minutes
# make test-all  the slow tests too
# make bench   what the parts cost on this machine
# Needs Python 3.11 to 3.13 with pip, and make. Everything is installed into .venv; name another Python by PYTHON=….

PYTHON ?= python3
VENV := .venv/bin
# Files come in the order of their names, whole runs (tests/e2e) early: of those that are left for last one core waits.
# Kernels and tests share the machine's cores; more workers than cores only wait for each other.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 4 ? n : 4 )))

.PHONY: help run test test-all lint bench install install-dev golden requirements clean

help:
	@sed -n 's/^# //p' Makefile

install:
	@$(PYTHON) .ci/bootstrap.py factory

install-dev:
	@$(PYTHON) .ci/bootstrap.py factory dev

run: install
	@$(VENV)/python -m selfplay.search.warm
	@$(VENV)/selfplay run connect_four

test: lint
	$(VENV)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What a run reaches in a given time is measured last, with nothing beside it.
test-all: lint
	$(VENV)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "slow or not slow" --ignore tests/e2e/test_strength.py
	$(VENV)/pytest -q -m "slow or not slow" tests/e2e/test_strength.py

lint: install-dev
	$(VENV)/ruff check .
	$(VENV)/lint-imports
	$(VENV)/mypy

bench: install-dev
	$(VENV)/selfplay bench search --game connect_four --net 64x5 --simulations 64 --seconds 20
	$(VENV)/python tests/benchmarks/bench_inference.py
	$(VENV)/python tests/benchmarks/bench_learner.py --net 32x4

# After a change of the pins in constraints.txt; needs uv.
requirements:
	@$(PYTHON) .ci/renew_requirements.py

golden: install-dev
	$(VENV)/pytest -q --force-regen tests/golden tests/unit/test_search_reference.py

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
