# `make run` and `make test` need nothing but Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: run test lint clean

run: $(VENV)/ready
	$(VENV)/bin/python jobs/run_pipeline.py $(ARGUMENTS)

test: $(VENV)/ready-for-tests
	$(VENV)/bin/python -m pytest

lint: $(VENV)/ready-for-tests
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

$(VENV)/ready: requirements.txt pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a few minutes the first time"
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --editable .
	touch $@

$(VENV)/ready-for-tests: $(VENV)/ready requirements-dev.txt
	$(PIP) install -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV)
