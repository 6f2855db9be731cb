# `make demo` and `make test` do all the set-up they need. `make help` lists the rest.
# PYTHON=python3.12 chooses the interpreter, ARGS="..." is handed to the program that a target runs.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,$(shell command -v $(name))))
BIN := .venv/bin
ARGS ?=
BENCH ?= $(shell grep -ls '__name__ == "__main__"' bench/*.py)
NO_PYTHON = echo "set-up failed: no Python found; install Python 3.11, 3.12 or 3.13" >&2; exit 1;
SET_UP = @$(or $(PYTHON),$(NO_PYTHON)) tools/setup_environment.py

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-slow coverage conformance lint ruff mypy pyright imports format bench bench-supervisors docs clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## many streams at once from one supervised model
	@$(BIN)/paddock demo $(ARGS)

test: setup-dev ## the test suite (ARGS="tests/text -k utf8" for a part of it)
	@$(BIN)/python -m pytest $(ARGS)

test-slow: setup-dev ## the soak tests
	@$(BIN)/python -m pytest -m slow $(ARGS)

coverage: setup-dev ## branch coverage of supervisors, which is to be whole
	@$(BIN)/python -m pytest tests/supervisors --cov --cov-report=term $(ARGS)

conformance: setup-dev ## the rows of OTP's conformance list and their results (ARGS="S G07" for a part)
	@$(BIN)/python tools/conformance.py $(ARGS)

lint: ruff mypy pyright imports ## linters, type checkers, import contracts

ruff: setup-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

mypy: setup-dev
	$(BIN)/mypy

pyright: setup-dev
	$(BIN)/pyright

imports: setup-dev
	$(BIN)/lint-imports

format: setup-dev ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup-dev ## run the benchmarks (BENCH=bench/one.py for one of them)
	@set -e; for script in $(BENCH); do echo "== $$script"; $(BIN)/python $$script $(ARGS); done

bench-supervisors: setup-dev ## supervisors beside pykka and, where it is installed, Erlang/OTP (ARGS=--quick)
	@$(BIN)/python bench/supervisors.py $(ARGS)

docs: ## build the documentation into ./site
	$(SET_UP) --extra docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

setup: ## only the set-up: what running Paddock needs
	$(SET_UP)

setup-dev: ## only the set-up: what tests and linters need
	$(SET_UP) --extra dev

clean: ## remove what was built; the environment stays
	rm -rf build dist site .setup.log .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src supervisors tests tools bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also remove the environment; compiled wheels stay in the user's cache
	rm -rf .venv
