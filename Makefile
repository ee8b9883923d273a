# Everything runs in a virtual environment of its own: no set-up by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install test lint demo figures shape-report clean
install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

# docs/images/object_views.png and object_rays.png.
figures: $(INSTALLED)
	$(BIN)/python examples/figures.py docs/images

# docs/shape-report.md; a test compares it with what the command says now.
shape-report: $(INSTALLED)
	$(BIN)/keyorbit inspect --model zero123plus-v1.2 --markdown docs/shape-report.md > /dev/null

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
