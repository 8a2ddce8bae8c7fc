# One command each. Everything runs in .venv, made by uv where that is on the PATH, else by pip.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test soak ui bench docs lint check audit

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: $(INSTALLED) ## sample usage through the whole pipeline: invoices, and the laws they keep
	@$(BIN)/metering demo

test: $(INSTALLED) ## the whole test suite, on a PostgreSQL of its own
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

soak: $(INSTALLED) ## random histories, and kills at random moments: an hour
	@$(BIN)/python -m tests.soak histories kills server-kills

ui: $(INSTALLED) ## Dagster's web page and daemon on the home's database
	@$(BIN)/metering ui

bench: $(INSTALLED) ## speed, as ratios within one run
	@$(BIN)/python -m benchmarks

docs: $(INSTALLED) ## the pages as a site, build/docs/index.html; a broken link fails
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/docs

lint: check ## every linter
	@PYTHONWARNINGS=ignore $(BIN)/sqlfluff lint --processes 0 dbt_project/models dbt_project/tests
	@PYTHONWARNINGS=ignore $(BIN)/sqlfluff lint --processes 0 --templater placeholder metering_pipeline

check: $(INSTALLED) ## the linters that take seconds
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

audit: ## known vulnerabilities of the pinned packages, asked of an advisory service: needs uv and the internet
	@uv tool run pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off || \
		{ echo "Not audited, or not clean: see above. The advisories are asked of pypi.org; a mirror of packages has none."; exit 1; }

install: $(INSTALLED) ## the environment, anew when the requirements have changed

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing the packages into .venv (once) ..."
	@if command -v uv > /dev/null; then \
		uv venv --quiet --allow-existing --python "$(PYTHON)" .venv && \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e . --group dev; \
	else \
		export PYTHONWARNINGS=ignore; \
		"$(PYTHON)" -m venv .venv && \
		$(BIN)/python -m pip install --quiet --upgrade pip && \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group dev; \
	fi
	@touch $@
