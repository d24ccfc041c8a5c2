# Every target sets itself up: the first call makes .venv from pyproject.toml and constraints.txt, later calls reuse it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Two test processes on two cores: more threads than cores cost tenfold.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test web test-ui slow bench faults lint format clean

demo: .venv/ready
	OMP_NUM_THREADS=2 $(BIN)/lamella demo -o demo_out

test: lint
	$(BIN)/pytest -n 2 --dist loadfile

# The viewer's third-party scripts; an installation does it by itself where Node.js is.
web:
	$(PYTHON) hatch_build.py

# In headless Chromium; installs Debian's package where it may.
test-ui: .venv/ready web
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium) || true
	cd web && npm ci --ignore-scripts --no-audit --no-fund
	$(BIN)/pytest -m ui tests/ui

# Minutes each: the digits case of collapse, thousands of damaged files.
slow: .venv/ready
	$(BIN)/pytest -m slow

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks hatch_build.py
	$(BIN)/ruff format --check src tests benchmarks hatch_build.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Damaged files, dying workers, killed runs, full disks: what was tried, how often, what happened.
faults: .venv/ready
	$(BIN)/python -m tests.faults.jobs_report
	$(BIN)/python -m tests.faults.files_report

format: .venv/ready
	$(BIN)/ruff check --fix src tests benchmarks hatch_build.py
	$(BIN)/ruff format src tests benchmarks hatch_build.py

bench: .venv/ready
	@for file in benchmarks/*.py; do OMP_NUM_THREADS=2 $(BIN)/python $$file || exit 1; done

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf .venv demo_out .pytest_cache .mypy_cache .ruff_cache
