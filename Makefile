# Every target sets up what it needs first; nothing is done twice.
#   make setup                      the environment in .venv
#   make setup PYTHON=python3.13    with another Python (3.11 or newer)
#   make setup TORCH_INDEX=URL      with torch and torchvision from the package index at URL, for example without CUDA
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
DONE := $(VENV)/.done
PIP := $(BIN)/python -m pip install --no-compile -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
NATIVE := CMakeLists.txt setup.py pygan/ops/source_hash.py $(shell find csrc -type f)

.PHONY: setup reproduce quick smoke check test test-all bench lint clean

setup: $(DONE)/assets

$(DONE)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: pygan needs Python 3.11 or newer, got $(PYTHON) ($$($(PYTHON) --version 2>&1)):" \
	    "install one and run \`make setup PYTHON=python3.11\`" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(DONE)
	touch $@

# torch comes first, so that the package finds it and builds pygan._C against it.
# From an index of its own torchvision comes with it, because both have to be of one kind; later calls keep them.
$(DONE)/torch: constraints.txt | $(DONE)/venv
	$(PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)' torch torchvision,torch)
	touch $@

$(DONE)/package: pyproject.toml $(NATIVE) $(DONE)/torch
	$(PIP) -e '.[workflow,networks]'
	touch $@

$(DONE)/test: $(DONE)/package
	$(PIP) 'pip>=25.1' # the first that knows dependency groups
	$(PIP) -e '.[workflow,networks]' --group test
	touch $@

$(DONE)/assets: pygan/assets.py $(DONE)/package
	$(BIN)/pygan assets install
	touch $@

check: setup
	$(BIN)/pygan check config/config.yaml

# Planning and Snakemake both check the study first.
reproduce: setup
	$(BIN)/pygan plan config/config.yaml
	$(BIN)/snakemake --cores all reproduce

quick: setup
	$(BIN)/pygan plan config/quick.yaml
	$(BIN)/snakemake --cores all reproduce --configfile config/quick.yaml

smoke: setup
	$(BIN)/snakemake --cores all reproduce --configfile config/smoke.yaml

test: setup $(DONE)/test
	$(PYTEST) -m "not slow"

test-all: setup $(DONE)/test
	$(PYTEST)

bench: setup $(DONE)/test
	$(BIN)/python bench/data.py
	$(BIN)/python bench/ops.py
	$(BIN)/python bench/train.py
	$(BIN)/python bench/readme.py
	$(BIN)/python bench/roofline.py

lint: setup $(DONE)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check workflow
	@# Rules have no conda environment: they run in the one that Snakemake runs in.
	! $(BIN)/snakemake --lint 2>&1 | grep '^ *\* ' | grep -v 'Specify a conda environment'

clean:
	rm -rf build dist *.egg-info pygan/_C.*.so $(VENV) .pytest_cache .ruff_cache .hypothesis
