# Every target sets up what it needs first; nothing is done twice.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DONE := .venv/.done
PIP := $(BIN)/python -m pip install --no-compile -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
NATIVE := CMakeLists.txt setup.py pygan/ops/source_hash.py $(shell find csrc -type f)

.PHONY: setup reproduce quick smoke check test test-all bench lint clean

setup: $(DONE)/assets

$(DONE)/venv:
	$(PYTHON) -m venv .venv
	mkdir -p $(DONE)
	touch $@

# torch comes first, so that the package finds it and builds pygan._C against it.
$(DONE)/torch: constraints.txt | $(DONE)/venv
	$(PIP) torch
	touch $@

$(DONE)/package: pyproject.toml $(NATIVE) $(DONE)/torch
	$(PIP) -e '.[workflow,networks]'
	touch $@

$(DONE)/test: $(DONE)/package
	$(PIP) -e '.[workflow,networks,test]'
	touch $@

$(DONE)/assets: pygan/assets.py $(DONE)/package
	$(BIN)/pygan assets install
	touch $@

check: setup
	$(BIN)/pygan check config/config.yaml

reproduce: check
	$(BIN)/pygan plan config/config.yaml
	$(BIN)/snakemake --cores all reproduce

quick: setup
	$(BIN)/pygan check config/quick.yaml
	$(BIN)/pygan plan config/quick.yaml
	$(BIN)/snakemake --cores all reproduce --configfile config/quick.yaml

smoke: setup
	$(BIN)/pygan check config/smoke.yaml
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
	rm -rf build dist *.egg-info pygan/_C.*.so .venv .pytest_cache .ruff_cache .hypothesis
