# Every target sets up what it needs: `make setup` makes .venv and is idempotent.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
CONSTRAINTS := $(if $(filter %3.10,$(PYTHON)),constraints-3.10.txt,constraints.txt)
DEMO_OUT ?= demo

.PHONY: setup demo test lint bench docs lock clean test-s3
.DEFAULT_GOAL := help

help:
	@echo "make demo | test | lint | bench | docs   (each makes .venv first; 'make setup' does only that)"

setup: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "no Python 3.10-3.12 with venv found; install one or say make PYTHON=/path/to/python"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch comes first and through pip, so that a CPU build at hand is taken instead of gigabytes of CUDA libraries.
	@$(BIN)/python -c 'import importlib.metadata as m; v = m.version("torch").split("+")[0]; assert v == "2.13.0"' 2>/dev/null \
		|| $(BIN)/pip install --quiet -c $(CONSTRAINTS) torch==2.13.0
	@$(BIN)/pip install --quiet -c $(CONSTRAINTS) uv
	@# Compiled now, because the demo and the tests start many processes, and each would compile what it imports.
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c $(CONSTRAINTS) -e '.[dev]' \
		|| $(BIN)/pip install --quiet -c $(CONSTRAINTS) -e '.[dev]'
	@touch $(STAMP)
	@echo "environment ready in $(VENV)"

demo: setup
	$(BIN)/headstart demo --out $(DEMO_OUT)

# In two processes; tests/conftest.py shares the tests among them. PYTEST_ARGS="-n 0 ..." runs them in one.
test: setup
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

# Against a real object store: Debian's OpenStack Swift with its S3 API, started on the loopback.
test-s3: setup
	tests/support/swift.sh $$(mktemp -d) $(BIN)/python -m pytest tests/cluster/test_storage.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

docs: setup
	$(BIN)/mkdocs build --strict --quiet

lock: setup
	{ echo "# Versions that are tested together; made by 'make lock'. torch is installed first, so that a CPU build at hand is kept."; \
	  { $(BIN)/uv pip freeze --python $(BIN)/python | grep -v -e '^-e' -e ' @ ' -e '^torch=='; echo torch==2.13.0; } | sort -f; } > constraints.txt.new
	mv constraints.txt.new constraints.txt
	{ echo "# As constraints.txt, for Python 3.10, which some of the newest versions no longer support; made by 'make lock'."; \
	  printf 'torch==2.13.0\nmediapipe==0.10.21\nnumpy==1.26.4\n' | $(BIN)/uv pip compile --quiet --python-version 3.10 -c - pyproject.toml --extra dev \
	    --no-annotate --no-header | grep -v -E '^(nvidia-|triton|cuda-)'; } > constraints-3.10.txt.new
	mv constraints-3.10.txt.new constraints-3.10.txt

clean:
	rm -rf build site demo .pytest_cache .ruff_cache .mypy_cache
