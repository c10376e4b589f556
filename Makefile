# Each target works in a fresh clone; CI runs `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# What a node needs, and nothing else; a complete .venv has it, too.
NODE   := $(or $(wildcard $(STAMP)),$(VENV)/.runtime)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
EPOCH  := $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)
# Usual in containers; with it each command compiles all modules again.
export PYTHONDONTWRITEBYTECODE :=
# One test may take longer than the limit of pyproject.toml.
LONG   := -o faulthandler_timeout=0

.DEFAULT_GOAL := help
.PHONY: help setup run dist bench-full bench-check profile test durations mutants storm deaths probe soak fleet fuzz lint format bench bench-async simulate docs reference transcript lock engines clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv with the locked dependencies and Hearth itself

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable . --editable fdk
	@$(BIN)/python -m compileall -q src
	@touch $@

# The build backend stays outside of the environment that it installs into.
$(VENV)/.runtime: deploy/requirements.lock deploy/build.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --require-hashes -r deploy/requirements.lock
	@$(PIP_INSTALL) --require-hashes --upgrade --target $(VENV)/build -r deploy/build.lock
	@PYTHONPATH=$(CURDIR)/$(VENV)/build $(PIP_INSTALL) --no-deps --no-build-isolation --editable . --editable fdk
	@$(BIN)/python -m compileall -q src
	@touch $@

run: $(NODE) ## Start a node, deploy and call the sample function, keep serving
	@$(BIN)/python tools/run_sample.py

engines: setup ## Install and start the engines that the tests need (root; idempotent)
	@tools/engines.sh

test: setup engines ## Run every test, long files first; WORKERS=5
	@$(BIN)/python -m pytest -n $(or $(WORKERS),5) --dist loadfile $(ARGS)

durations: setup engines ## Run every test and store how long each file took, for the order of `make test`
	@$(BIN)/python -m pytest -n $(or $(WORKERS),5) --dist loadfile --store-durations $(ARGS)

mutants: setup engines ## Change the code in each way that a test should miss; ARGS="agent.slots --guards"; an hour
	@$(BIN)/python -m tests.mutants $(ARGS)

storm: setup engines ## 10,000 calls of hostile functions and clients, as root, as a user, with Docker; FORMATS=http-stream
	@HEARTH_STORM_CALLS=10000 $(if $(FORMATS),HEARTH_STORM_FORMATS="$(FORMATS)") $(BIN)/python -m pytest $(LONG) tests/e2e/test_storm.py -s $(ARGS)

deaths: setup ## Kill a node 80 times in the midst of 5,000 calls; no answered one may lack its record; minutes long
	@HEARTH_KILLED_CALLS=5000 $(BIN)/python -m pytest $(LONG) tests/e2e/test_recording.py -s $(ARGS)

probe: setup engines ## 10,000 async calls on each queue while server, stores and functions are killed; minutes long
	@HEARTH_PROBE_CALLS=10000 $(BIN)/python -m pytest $(LONG) tests/e2e/test_async_prober.py -s $(ARGS)

soak: setup engines ## An hour of load; memory and descriptors must stay flat
	@HEARTH_SOAK_ROUNDS=400 $(BIN)/python -m pytest $(LONG) tests/e2e/test_soak.py -s $(ARGS)

fleet: setup engines ## Ten rounds of faults and deaths in a fleet under load; ROUNDS=10, PARTITION_S=10
	@HEARTH_FLEET_ROUNDS=$(or $(ROUNDS),10) HEARTH_PARTITION_S=$(or $(PARTITION_S),10) $(BIN)/python -m pytest $(LONG) tests/e2e/test_fleet_faults.py -s $(ARGS)

lint: setup ## ruff, mypy --strict, import-linter, language of texts, known flaws of dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/prose.py
	@$(BIN)/python tools/audit.py requirements.lock

fuzz: setup ## Feed what reads bytes from outside with what breaks it; FUZZ_SECONDS=60 for each reader
	@$(BIN)/python -m fuzz --seconds $(or $(FUZZ_SECONDS),60)

format: setup ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: setup ## Measure calls, cold starts, the node's start and its API beside their limits; needs wrk
	@$(BIN)/python -m bench $(ARGS)

bench-check: setup ## Fail if warm calls became slower since a commit; AGAINST=HEAD~1
	@$(BIN)/python -m bench.check $(or $(AGAINST),HEAD~1)

profile: setup ## Show where the processor time of a warm call goes, and write a flame graph; needs wrk and py-spy
	@$(BIN)/python -m bench.call_profile $(ARGS)

bench-full: setup ## The same with more loads and rounds, and curves over routes and containers; half an hour
	@$(BIN)/python -m bench --full $(ARGS)

bench-async: setup ## Measure async calls on each queue against sync calls; ARGS=--million for a long backlog
	@$(BIN)/python -m bench.async_calls $(ARGS)

simulate: setup ## A thousand functions on a full node, in virtual time; compares orders of waiting
	@$(BIN)/python -m bench.simulation $(ARGS)

# The site loads nothing from other servers, so it has the script of its diagrams beside it (from npm, MIT).
MERMAID := tools/theme/assets/mermaid.min.js

$(MERMAID):
	@mkdir -p $(@D)
	@cd $(@D) && tar -xzf "$$(npm pack --silent mermaid@11.17.2)" --strip-components 2 package/dist/mermaid.min.js; rm -f mermaid-*.tgz
	@echo "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

docs: setup $(MERMAID) ## Build the documentation into site/; it needs no network to be read
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: setup ## Write docs/cli.md, docs/api.md, docs/errors.md and docs/schemas from the code
	@$(BIN)/python tools/command_reference.py
	@$(BIN)/python tools/api_reference.py
	@$(BIN)/python tools/error_reference.py
	@$(BIN)/python tools/schema_reference.py

dist: setup ## Build wheels and source archives of hearth-faas and hearth-fdk into dist/; equal commits, equal bytes
	@SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/python -m hatchling build -d dist
	@cd fdk && SOURCE_DATE_EPOCH=$(EPOCH) ../$(BIN)/python -m hatchling build -d ../dist

transcript: setup ## Play the four first commands for real; writes docs/transcript.md
	@$(BIN)/python tools/transcript.py

LOCK := $(BIN)/uv pip compile --quiet --no-emit-package hearth-fdk --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11

lock: ## Renew requirements.lock from pyproject.toml, those of the image from it, those of Fn's kits (npm)
	@$(LOCK) --extra dev -o requirements.lock pyproject.toml
	@$(LOCK) -c requirements.lock -o deploy/requirements.lock pyproject.toml
	@printf '%s\n' 'hatchling>=1.25,<2' 'editables>=0.5' | $(LOCK) -c requirements.lock -o deploy/build.lock -
	@echo 'fdk' | $(LOCK) -o tests/functions/kits/python/newest.lock -
	@echo 'fdk==0.1.47' | $(LOCK) -o tests/functions/kits/python/oldest.lock -
	@npm install --silent --package-lock-only --omit-lockfile-registry-resolved --prefix tests/functions/kits/node

clean: ## Remove what the other targets built
	rm -rf $(VENV) site dist .pytest_cache .mypy_cache .ruff_cache
