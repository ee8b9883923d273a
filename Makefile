# Everything runs in a virtual environment of its own: no set-up by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install test quick lint docs browser chaos demo figures figures-of-docs report-picture notebook shape-report cli-reference quality clean
install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site is built into build/site; any warning is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site

# Two processes of one thread each: most tests are too small for more threads. A file's tests stay together.
test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The loop while one works: what needs no model, no command line and no process of its own (tests/conftest.py chooses).
quick: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/pytest --quick --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Of `make test` the part that looks at report and app in Chromium, screenshots in build/; skipped where there is none
# (on Debian: apt-get install chromium chromium-driver).
browser: $(INSTALLED)
	$(BIN)/pytest -m browser

# All wrong inputs, kills and full disks that the tests know, and the table of docs/reliability.md: hours.
chaos: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest --chaos $(or $(SEED),1) --hypothesis-seed $(or $(SEED),1) tests/chaos

demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

# The pictures of the README and the docs that show found keypoints, from what ships: half a minute.
figures: $(INSTALLED)
	$(BIN)/python examples/figures.py docs/images

# The docs' picture of the report, from a finished `make demo`, as Chromium shows it.
report-picture:
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1280,1440 --virtual-time-budget=4000 \
		--screenshot=docs/images/report.png file://$(CURDIR)/build/demo/run/report.html

# Runs the notebook and keeps its outputs in it, from the shipped model: a minute and a half on two cores.
notebook: $(INSTALLED)
	$(BIN)/python examples/run_notebook.py examples/quickstart.ipynb

# docs/figures.json: the figures that the pages have. A quarter of an hour, on a machine that does nothing else; a test
# compares the cheap ones each time, and the pages with the file. FIGURES='--only drift' measures one of the slow ones.
figures-of-docs: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/figures_of_docs.py docs/figures.json $(FIGURES)

# docs/shape-report.md; a test compares it with what the command says now.
shape-report: $(INSTALLED)
	$(BIN)/keyorbit inspect --model zero123plus-v1.2 --markdown docs/shape-report.md > /dev/null

# docs/cli.md; a test compares it with what the commands say now.
cli-reference: $(INSTALLED)
	$(BIN)/python -m typer keyorbit.cli utils docs --name keyorbit --output docs/cli.md

# Baselines and ablations against the truth: hours; goes on where it was stopped. QUALITY='--seeds 0' makes it smaller.
quality: $(INSTALLED)
	$(BIN)/python benchmarks/quality.py --ablation --probe --json runs/quality.json --markdown runs/quality.md $(QUALITY)

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
