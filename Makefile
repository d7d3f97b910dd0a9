# make check: everything a commit has to pass. `make lint` without the tests.
PY ?= .venv/bin/python

.PHONY: check lint test format bench

check: lint test

lint:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(dir $(PY))lint-imports --no-cache

test:
	./test

format:
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench:
	bench/run
