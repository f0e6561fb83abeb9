PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run test check fuzz fix lock bench bench-smoke bench-scale

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(INSTALLED): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Phresh needs Python 3.11 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

install: $(INSTALLED) ## Install everything into .venv, from the lock file

# exec: the server is make's own child, so that a signal to make reaches it.
run: $(INSTALLED) ## Serve the API on http://localhost:8000 (HOST and PORT move it)
	@exec $(BIN)/flask serve

test: $(INSTALLED) ## Run the tests, all but the slow and the browser ones
	@exec $(BIN)/flask test

check: $(INSTALLED) ## Check format, lint, types, Dockerfile, models against migrations, and test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/flask db upgrade
	$(BIN)/flask db check
	$(MAKE) test

FUZZ_SECONDS ?= 600
FUZZ_SEED ?= $(shell date +%s)
fuzz: $(INSTALLED) ## Send requests that are made of the document, for 10 minutes, other ones each time
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) exec $(BIN)/flask test -s -m slow tests/test_schemathesis.py

fix: $(INSTALLED) ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

BENCH_INSTALLED = $(VENV)/.installed-bench
$(BENCH_INSTALLED): requirements-bench.txt $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

bench: $(BENCH_INSTALLED) ## Measure this API against its peers (18 minutes; needs wrk)
	@exec $(BIN)/python -m benchmarks.compare

bench-smoke: $(BENCH_INSTALLED) ## See that this benchmark works (a minute; needs wrk)
	@exec $(BIN)/python -m benchmarks.compare --smoke

bench-scale: $(INSTALLED) ## Measure the pages of the list and of the feed at 10,000,000 rows (6 minutes, 5 GB)
	PYTHONPATH=. $(BIN)/python benchmarks/scale.py

COMPILE = $(BIN)/uv pip compile --quiet setup.cfg --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-config --upgrade
lock: $(INSTALLED) ## Renew both lock files from setup.cfg
	$(COMPILE) --output-file requirements.txt
	$(COMPILE) --extra embedded --extra test --extra dev --constraint requirements.txt --output-file requirements-dev.txt
	$(COMPILE) --extra embedded --extra bench --constraint requirements-dev.txt --output-file requirements-bench.txt
