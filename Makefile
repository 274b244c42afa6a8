# make train      a fresh machine to a trained tiny tokenizer: environment, sample shards, training
# make generate   from there to sampled videos: latents, a tiny generator, mp4 files
# make test       environment, the default CPU test suite: every guarantee once, within five minutes
# make test-slow  repetitions, more ranks and larger sizes
# make campaign   bad input of every kind, 2,000 cases of a new seed: a quarter of an hour
# make gpu        whether a GPU trains right, and how fast: eight minutes, nothing from a network;
#                 WHEELS=DIR has what the machine lacks. OUT (gpu_check) gets results.json and log.txt
# make check      lint, types, tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two test processes, each of which takes what the other has not begun.
PARALLEL := -n 2 --dist worksteal
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: train generate test test-slow campaign gpu lint types check clean

train: shards/quickstart
	deepspeed scripts/train.py --deepspeed ds_configs/zero3.json

generate: train
	test -d exports/quickstart || python scripts/export.py runs/quickstart exports/quickstart
	python scripts/encode.py --model exports/quickstart --shards shards/quickstart/train \
	    --output shards/quickstart_latents/train --windows 8
	deepspeed scripts/train.py --deepspeed ds_configs/zero3.json --config dit_quickstart
	test -d exports/dit_quickstart || python scripts/export.py runs/dit_quickstart \
	    exports/dit_quickstart
	python scripts/sample.py --model exports/dit_quickstart --num 16 --output samples/quickstart

shards/quickstart: | $(INSTALLED)
	python -m data_prep.quickstart

test: $(INSTALLED)
	python -m pytest $(PARALLEL)

test-slow: $(INSTALLED)
	python -m pytest -m slow $(PARALLEL)

campaign: $(INSTALLED)
	python -m tests.campaign.bad_input --count 2000 --seed $$(date +%s)

gpu:
	$(PYTHON) -m tests.gpu.check $(if $(WHEELS),--wheels $(WHEELS))

lint: $(INSTALLED)
	ruff check .
	ruff format --check .

types: $(INSTALLED)
	mypy

check: lint types test

# torch comes first: with it in place nothing else asks for another build of it.
$(INSTALLED): setup.cfg setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet -c constraints.txt setuptools wheel torch
	python -m pip install --quiet -c constraints.txt --no-build-isolation \
	    -e ".[train,quickstart,evaluation,generation,tensorboard,hf,dev]"
	touch $@

clean:
	rm -rf $(VENV) shards/quickstart runs/quickstart exports/quickstart \
	    shards/quickstart_latents runs/dit_quickstart exports/dit_quickstart samples/quickstart
