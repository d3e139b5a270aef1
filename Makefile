# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
INSTALLED := .venv/.installed
# Each worker imports Airflow and builds its API for tasks, which takes longer than what a third would save.
PYTEST := $(PY) -m pytest -q -n 2 --dist worksteal
# No target touches ~/airflow.
export AIRFLOW_HOME := $(CURDIR)/.airflow
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED)  ## Set up .venv with the pinned development environment
	@echo "Ready: .venv"

$(INSTALLED): pyproject.toml constraints/airflow-3.3.2.txt tools/install.sh tools/find_python.sh
	@tools/install.sh

.PHONY: demo
demo: $(INSTALLED)  ## Run the whole pipeline in a real Airflow against the sandbox
	@$(PY) -m tools.demo

.PHONY: demo-ui
demo-ui: $(INSTALLED)  ## Start a live Airflow with the sandbox and runs to look at
	@$(PY) -m tools.demo_ui

.PHONY: test
test: $(INSTALLED)  ## Run the unit and integration tests
	@$(PYTEST)

.PHONY: test-unit
test-unit: $(INSTALLED)  ## Run the unit tests alone
	@$(PYTEST) tests/unit

.PHONY: test-browser
test-browser: $(INSTALLED)  ## Test the gallery in a live Airflow with Chromium
	@tools/install_chromium.sh
	@$(PY) -m pytest -q tests/browser

.PHONY: screenshots
screenshots: $(INSTALLED)  ## Take the screenshots of the documentation
	@tools/install_chromium.sh
	@LUMA_SCREENSHOTS=docs/images $(PY) -m pytest -q tests/browser -k TestScreenshots

.PHONY: test-system
test-system: $(INSTALLED)  ## Run the tests that start and crash a live Airflow
	@$(PY) -m pytest -q tests/system

.PHONY: lint
lint: $(INSTALLED)  ## Check style and format of Python, shell scripts and workflows
	@ruff check --quiet . && ruff format --quiet --check .
	@shellcheck .ci/run tools/*.sh && actionlint && echo "Style and format: fine"

.PHONY: house
house: $(INSTALLED)  ## Check the rules of CONTRIBUTING.md: names, docstrings, sizes, duplicates
	@$(PY) tools/check_house.py && echo "House rules: fine"

.PHONY: types
types: $(INSTALLED) types-js  ## Check all types
	@mypy

# npx keeps TypeScript in npm's own cache, so nothing is left here.
.PHONY: types-js
types-js:  ## Check the types of the gallery's scripts
	@tools/check_node.sh npx
	@npx --yes --package typescript@5.9.3 tsc --project tsconfig.json && echo "Types of the gallery: fine"

.PHONY: test-js
test-js:  ## Run the unit tests of the gallery's scripts
	@tools/check_node.sh node
	@node --test tests/js/*.test.mjs

.PHONY: build
build: $(INSTALLED)  ## Build wheel and sdist into dist/ and check their contents
	@rm -rf dist
	@uv build --quiet --build-constraint constraints/airflow-3.3.2.txt --out-dir dist .
	@$(PY) tools/check_dist.py dist

.PHONY: docs
docs: $(INSTALLED)  ## Build the documentation into docs/_build/html
	@$(PY) -m sphinx -E -W --keep-going -q -b html docs docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

.PHONY: release-check
release-check: $(INSTALLED)  ## Carry out the release checklist up to the upload
	@tools/release_check.sh

.PHONY: constraints
constraints: $(INSTALLED)  ## Pin the newest dependencies
	@tools/compile_constraints.sh

.PHONY: clean
clean:  ## Remove everything that the other targets create
	@rm -rf .venv .airflow .coverage* demo-videos .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist docs/_build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
