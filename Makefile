# `make run` and `make test` need Python 3.11 or newer and nothing else: each does its own set-up, once.
# Settings pass through the environment: `VOICEFORGE_PORT=9000 make run`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check lint bench lock settings page clean

PYTHON ?= $(firstword $(shell command -v python3 python3.14 python3.13 python3.12 python3.11))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
MODEL := $(or $(VOICEFORGE_MODEL),default)

# Stamps: what they stand for is up to date while they are newer than what it was made from.
MADE := $(VENV)/.made
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
MODELS := $(VENV)/.models-$(subst /,_,$(MODEL))
WEB := web/node_modules/.package-lock.json

help:  ## Show this.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(BASE) $(MODELS)  ## Set up what is missing, and start the server.
	@exec $(BIN)/voiceforge serve

test: $(DEV)  ## Set up what tests need, and run them all.
	@bash tests/tools.sh
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory $(WEB); \
	else echo "Node is not installed here: the tests of the page's own build are not run."; fi
	@$(BIN)/python -m pytest

check: $(DEV)  ## Style, types, layers, and that what is made from sources is up to date.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit/test_page_is_built.py tests/unit/test_settings.py tests/unit/test_locks.py

bench: $(DEV) $(MODELS)  ## Measure everything that needs no network, shortly (about 8 minutes).
	@broken=; for name in accuracy latency noise invention calibration silent overload memory; do \
		$(BIN)/voiceforge bench $$name --short || broken="$$broken $$name"; \
	done; \
	if [ -n "$$broken" ]; then echo "Not as promised:$$broken" >&2; exit 1; fi

lock: $(DEV)  ## Write all locks anew, with the newest versions that fit.
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --group build pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --group dev --constraint requirements.lock pyproject.toml \
		--output-file requirements-dev.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --group build --extra postgres --extra celery --extra telemetry \
		--constraint requirements.lock pyproject.toml --output-file requirements-deploy.lock

settings: $(BASE)  ## Write docs/settings.md from mediaserver/settings/.
	$(BIN)/voiceforge settings --output docs/settings.md

page: $(WEB)  ## Build the page into signaling/static (needs Node).
	cd web && npm run build

clean:  ## Remove everything that was set up or built here; fetched models stay.
	rm -rf $(VENV) web/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@if [ -z "$(PYTHON)" ]; then \
		echo "VoiceForge needs Python 3.11 or newer. On Debian: apt-get install python3 python3-venv" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "VoiceForge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version)." \
			"Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its module ensurepip is missing." \
			"On Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(BASE): requirements.lock pyproject.toml | $(MADE)
	@echo "Installing what is in requirements.lock (once; a minute or two)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.lock $(BASE)
	@echo "Installing what is in requirements-dev.lock (once; a minute or two)"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(MODELS): | $(BASE)
	@$(BIN)/voiceforge models fetch
	@touch $@

$(WEB): web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	@touch $@
