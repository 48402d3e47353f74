# Every target sets up what it needs: `make setup` makes .venv and is idempotent.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEMO_OUT ?= demo

.PHONY: setup demo test lint bench docs lock clean test-s3
.DEFAULT_GOAL := help

help:
	@echo "make demo | test | lint | bench | docs   (each makes .venv first; 'make setup' does only that)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.10-3.12 with venv found; install one or say make PYTHON=/path/to/python"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch comes first and through pip, so that a CPU build at hand is taken instead of gigabytes of CUDA libraries.
	@$(BIN)/python -c 'import importlib.metadata as m; v = m.version("torch").split("+")[0]; assert v == "2.13.0"' 2>/dev/null \
		|| $(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	@$(BIN)/pip install --quiet -c constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]' \
		|| $(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
	@echo "environment ready in $(VENV)"

demo: setup
	$(BIN)/headstart demo --out $(DEMO_OUT)

test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

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

clean:
	rm -rf build site demo .pytest_cache .ruff_cache .mypy_cache
