# Two environments in one folder: `make demo` needs the core alone, the other targets add everything.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check clean

demo: $(VENV)/.core  ## segment a photo with the shipped model
	$(VENV)/bin/atrous segment docs/demo/street.jpg --out out

test: $(VENV)/.all  ## run the tests
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal -q

check: $(VENV)/.all  ## lint and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/.core: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.all: $(VENV)/.core
	$(PIP) -e ".[all]"
	touch $@

clean:
	rm -rf $(VENV) out
