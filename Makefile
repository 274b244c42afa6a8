# make train   a fresh machine to a trained tiny tokenizer: environment, sample shards, training
# make test    environment, the default CPU test suite      make test-slow: the longer checks
# make check   lint, types, tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: train test test-slow lint types check clean

train: shards/quickstart
	deepspeed scripts/train.py --deepspeed ds_configs/zero3.json

shards/quickstart: | $(INSTALLED)
	python -m data_prep.quickstart

test: $(INSTALLED)
	python -m pytest

test-slow: $(INSTALLED)
	python -m pytest -m slow

lint: $(INSTALLED)
	ruff check .
	ruff format --check .

types: $(INSTALLED)
	mypy

check: lint types test

# torch comes first: with it in place nothing else asks for another build of it.
$(INSTALLED): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet -c constraints.txt setuptools wheel torch
	python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[quickstart,dev]"
	touch $@

clean:
	rm -rf $(VENV) shards/quickstart runs/quickstart
