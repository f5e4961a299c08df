# Two environments in one folder: `make demo` needs the core alone, the other targets add everything.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test quick check clean

demo: $(VENV)/.core  ## segment a photo with the shipped model
	$(VENV)/bin/atrous segment docs/demo/street.jpg --out out

test: $(VENV)/.all  ## run the tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal -q

quick: $(VENV)/.all  ## run the tests that take no seconds each
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow"

check: $(VENV)/.all  ## lint, types, spelling, links
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell
	$(VENV)/bin/python tools/check_links.py

$(VENV)/.core: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.all: $(VENV)/.core
	$(PIP) -e ".[all]"
	touch $@

clean:
	rm -rf $(VENV) out
