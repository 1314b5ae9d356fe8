# What a person runs in a checkout. `make` alone prints the list.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# One after the other: they share the machine's cores, the environment and the reader's eyes.
.NOTPARALLEL:
.PHONY: help setup demo picture run test lint types layers tests user-tests test-programs coverage bench bench-supervision bench-sandbox chaos format lock clean

bin := .venv/bin
# For example: make test PYTEST_ARGS='-k journal'
PYTEST_ARGS ?=
BENCH_ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv from the locked versions; quick when nothing changed
	@ops/setup.sh

demo: setup ## Run a real task while its workers are killed one by one
	@$(bin)/python ops/demo.py

picture: setup ## Draw docs/top.svg from the real `homeostat top`
	@$(bin)/python -m ops.picture

run: setup ## Run the supervisor in the foreground
	@$(bin)/homeostat run

test: lint ## Lint, then all tests, as this user, and as an ordinary one too when run by root
ifeq ($(strip $(PYTEST_ARGS)),)
	@$(bin)/python ops/suites.py --twice
else
	@$(MAKE) --no-print-directory tests user-tests
endif

lint: setup ## Format, lint, spelling, then types and layers
	@$(bin)/ruff format --check .
	@$(bin)/ruff check .
	@$(bin)/codespell
	@$(MAKE) --no-print-directory types layers

types: setup ## Check the types
	@$(bin)/mypy

layers: setup ## Check who imports whom
	@$(bin)/lint-imports --no-cache

# Without arguments in parts, several at a time; with arguments in one process, for a person who watches.
tests: setup ## Run the tests as this user
ifeq ($(strip $(PYTEST_ARGS)),)
	@$(bin)/python ops/suites.py
else
	@$(bin)/python -m pytest $(PYTEST_ARGS)
endif

user-tests: setup ## Run the tests as an ordinary user; for root
	@ops/test-as-user.sh $(PYTEST_ARGS)

test-programs: ## Install everyday programs that the tests use; for root
	@ops/test-programs.sh

coverage: setup ## Run the tests and show what they did not reach
	@$(bin)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

bench: setup ## Measure speed and memory
	@$(bin)/python -m tests.bench

# For example: make bench-supervision BENCH_ARGS=--install-peers (as root: runit, s6, Erlang by apt-get)
bench-supervision: setup ## Measure restarts, hangs and messages beside other supervisors
	@$(bin)/python -m tests.bench.supervision $(BENCH_ARGS)

# For example: make bench-sandbox BENCH_ARGS=--install-peers (as root: bubblewrap, firejail; codex and srt by npm)
bench-sandbox: setup ## Measure and attack the sandbox beside other sandboxes
	@$(bin)/python -m tests.bench.sandbox $(BENCH_ARGS)

chaos: setup ## Kill random workers for 200 rounds and count the effects
	@$(bin)/python -m tests.chaos

format: setup ## Rewrite the code in the project's format
	@$(bin)/ruff format .
	@$(bin)/ruff check --fix .

lock: ## Take newer versions into requirements/*.txt
	@ops/lock.sh

clean: ## Remove what tools left, .venv included
	@rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
