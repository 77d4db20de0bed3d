# The main targets are `make demo` and `make test`. They need only Python 3.10 to 3.12, make and a package index.

VENV ?= .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
OLDER := .venv-mindspore-2.8
PYTEST := -m pytest -n 2 --dist loadfile --max-worker-restart 0
TEST_TOOLS := 'pytest>=8.2' 'pytest-timeout>=2.3' 'hypothesis>=6.100'
FIND_PYTHON := for python in $(PYTHON) python3.12 python3.11 python3.10 python3 python; do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' >/dev/null 2>&1; then \
	    command -v "$$python"; exit 0; fi; done; \
	echo "maam needs Python 3.10, 3.11 or 3.12 (MindSpore has no wheels for others), but none was found: install one, or pass its path: make PYTHON=/path/to/python" >&2; \
	exit 1
FIND_OLD_PYTHON := for python in $(PYTHON) python3.10 python3.11 python3 python; do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' >/dev/null 2>&1; then \
	    command -v "$$python"; exit 0; fi; done; \
	echo "make test-lowest needs Python 3.10 or 3.11, but neither was found: install one, or pass its path: make PYTHON=/path/to/python" >&2; \
	exit 1

.PHONY: demo test test-all test-lowest test-mindspore-2.8 fuzz lint types format docs notebooks dist clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed ## train on digits, then check the result in PyTorch, MindSpore and NumPy
	OMP_NUM_THREADS=1 $(BIN)/maam demo  # more threads do not speed up so small a model, and slow it down on a busy machine

test: lint types ## everything that CI runs
	$(BIN)/python $(PYTEST) -m "not slow"

test-all: lint types ## make test, the slow tests and fuzzing
	$(BIN)/python $(PYTEST)
	$(MAKE) fuzz

# These targets are not part of `make test`. Each installs a separate environment.
# TORCH=1 adds PyTorch and torchvision (5 GB) and their tests.
test-lowest: $(LOWEST)/.installed$(if $(TORCH),-torch) ## test with the oldest dependencies that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -m "not slow" tests/spec tests/reference tests/weights tests/data \
	  tests/cli tests/test_package.py $(if $(TORCH),tests/backend tests/torch)

test-mindspore-2.8: $(OLDER)/.installed ## make test with MindSpore 2.8 and NumPy 1, without ExecuTorch
	$(OLDER)/bin/python $(PYTEST) -m "not slow"

fuzz: $(VENV)/.installed-dev ## 500 random specs through all frameworks
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest --timeout 0 -n 2 --dist loadfile tests/parity/test_random_specs.py tests/spec/test_random_specs.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(VENV)/.installed-dev ## the wheel and the source distribution, in dist/
	$(BIN)/python -m build --no-isolation

docs: $(VENV)/.installed-dev ## the documentation as a site, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(VENV)/.installed-dev ## run the notebooks of docs/notebooks and save their outputs
	OMP_NUM_THREADS=1 $(BIN)/python tools/notebooks.py

$(BIN)/python:
	@python=$$($(FIND_PYTHON)) && echo "Creating $(VENV) with $$python" && "$$python" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing maam with PyTorch and MindSpore: a few minutes, about 6 GB"
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing maam with all extras and the development tools: a few minutes, about 6 GB"
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	@touch $@ $(VENV)/.installed

# The lowest allowed version of NumPy has wheels for Python 3.10 and 3.11 only.
$(LOWEST)/.installed$(if $(TORCH),-torch): pyproject.toml
	@python=$$($(FIND_OLD_PYTHON)) && "$$python" -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.$(if $(TORCH),[torch])'
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python $(TEST_TOOLS)
	@touch $@

$(OLDER)/.installed: pyproject.toml
	@python=$$($(FIND_PYTHON)) && "$$python" -m venv $(OLDER)
	$(OLDER)/bin/python -m pip install --quiet --upgrade pip
	$(OLDER)/bin/python -m pip install --quiet --editable '.[torch,mindspore,mindcv,train,tensorboard,deploy,timm,huggingface,dev]' \
	  'mindspore>=2.8,<2.9' 'numpy<2'
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(OLDER) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
