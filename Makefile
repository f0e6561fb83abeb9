PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/pip install --disable-pip-version-check --require-hashes
SERVING = $(VENV)/.installed-serving
INSTALLED = $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run test check openapi fuzz fix clients lock bench bench-smoke bench-scale \
	bench-attacks

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(SERVING): requirements-run.txt
	@$(PYTHON) -c 'import sys; sys.exit("Phresh needs Python 3.11 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@echo "Installing what serving needs into $(VENV), with its own PostgreSQL. Once only; it takes about a minute."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements-run.txt
	@touch $@

$(INSTALLED): requirements-dev.txt $(SERVING)
	@echo "Installing the tools for tests and checks into $(VENV). Once only; it takes about a minute."
	@$(PIP) -r requirements-dev.txt
	@touch $@

install: $(INSTALLED) ## Install everything into .venv, from the lock files

# exec: the server is make's own child, so that a signal to make reaches it.
run: $(SERVING) ## Serve the API on http://localhost:8000 (HOST and PORT move it)
	@exec $(BIN)/flask serve

test: $(INSTALLED) ## Run the tests in parallel, except the slow and the browser ones
	@exec $(BIN)/flask test --numprocesses auto --maxprocesses 4 --dist worksteal

check: $(INSTALLED) ## Check format, lint, types, Dockerfile, models against migrations; test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/flask db upgrade
	$(BIN)/flask db check
	$(MAKE) test

FUZZ_SECONDS ?= 600
FUZZ_SEED ?= $(shell date +%s)
fuzz: $(INSTALLED) ## Send requests generated from the document for 10 minutes, others each time
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) exec $(BIN)/flask test -s -m slow tests/contract/test_schemathesis.py

openapi: $(INSTALLED) ## Renew openapi.json, with its examples of responses
	@WRITE_EXAMPLES=1 $(BIN)/flask test -q -m slow tests/contract/test_examples.py
	$(BIN)/flask openapi write

fix: $(INSTALLED) ## Mend what the linter can, and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

NODE_INSTALLED = clients/node_modules/.package-lock.json
$(NODE_INSTALLED): clients/package.json clients/package-lock.json
	@npm ci --prefix clients --ignore-scripts --loglevel error
	@touch $@

PYTHON_CLIENT = clients/build/python/setup.py
$(PYTHON_CLIENT): openapi.json requirements-dev.txt | $(INSTALLED)
	@mkdir -p clients/build
	@PATH="$(abspath $(BIN)):$$PATH" openapi-python-client generate --path openapi.json --meta setup --overwrite --output-path clients/build/python
	@touch $@

TYPESCRIPT_CLIENT = clients/build/typescript/phresh.ts
$(TYPESCRIPT_CLIENT): openapi.json $(NODE_INSTALLED)
	@clients/node_modules/.bin/openapi-typescript openapi.json --root-types --root-types-no-schema-prefix --output $@

clients: $(PYTHON_CLIENT) $(TYPESCRIPT_CLIENT) ## Generate the Python and the TypeScript client from openapi.json (needs Node 20)

BENCH_INSTALLED = $(VENV)/.installed-bench
$(BENCH_INSTALLED): requirements-bench.txt $(INSTALLED)
	@$(PIP) --quiet -r requirements-bench.txt
	@touch $@

bench: $(BENCH_INSTALLED) ## Measure this API against its peers (18 minutes; needs wrk)
	@exec $(BIN)/python -m benchmarks.compare

bench-smoke: $(BENCH_INSTALLED) ## Check that the benchmark works (a minute; needs wrk)
	@exec $(BIN)/python -m benchmarks.compare --smoke

bench-scale: $(INSTALLED) ## Measure the pages of the list and of the feed at 10,000,000 rows (6 minutes, 5 GB)
	PYTHONPATH=. $(BIN)/python benchmarks/scale.py

bench-attacks: $(INSTALLED) ## Measure what others notice while clients attack the server (5 minutes)
	@exec $(BIN)/python -m benchmarks.attacks

COMPILE = $(BIN)/uv pip compile --quiet setup.cfg --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-config --upgrade
lock: $(INSTALLED) ## Renew the lock files from setup.cfg
	$(COMPILE) --output-file requirements.txt
	$(COMPILE) --extra embedded --constraint requirements.txt --output-file requirements-run.txt
	$(COMPILE) --extra embedded --extra test --extra dev --constraint requirements-run.txt --output-file requirements-dev.txt
	$(COMPILE) --extra embedded --extra bench --constraint requirements-dev.txt --output-file requirements-bench.txt
