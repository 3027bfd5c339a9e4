# Everything runs in .venv, which the first target that needs it makes; only Python >= 3.11 has to
# be on the machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup dev demo docs evidence evidence-pages test test-slow test-slurm test-slurm-short test-gpu soak mutation bench-check coverage lint type clean

setup: .venv/installed
dev: .venv/installed-dev

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	touch $@

demo: setup
	$(BIN)/python -m mimsuite demo

# The documentation as a site, in build/site.
docs: dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Tables of learning, row by row, at low priority; `make evidence HOURS=2` goes on where it was, and
# CORES=2 makes two rows at once.
HOURS ?= 1
CORES ?= 1
evidence: dev
	$(BIN)/python tools/evidence.py --hours $(HOURS) --cores $(CORES)

evidence-pages: dev
	$(BIN)/python tools/evidence.py --pages

# One thread a worker: the tests are many small ones.
test: dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not slurm"

test-slow: dev
	$(BIN)/python -m pytest -m "slow"

# On a real SLURM of two nodes, which is brought up on this machine and taken down again (root on
# Debian; installs what is missing).
test-slurm: dev
	$(BIN)/python -m pytest -m slurm tests/slurm

test-slurm-short: dev
	$(BIN)/python -m pytest -m slurm tests/slurm/test_slurm_short.py

# All that must be true on a CUDA device, of which some needs two; says what it left out, and why.
test-gpu: dev
	$(BIN)/python -m pytest tests/gpu -rs -s
	$(BIN)/python tools/gpu_report.py --out build/gpu

# Kills training at random moments; a shorter one is in `make test`.
soak: dev
	$(BIN)/python tools/soak.py --kills 100
	$(BIN)/python tools/soak.py --kills 20 --ranks 2

# Changes of one place that no test notices; `python tools/mutation.py --table` shows those so far.
mutation: dev
	$(BIN)/python -m pip install --quiet --editable '.[mutation]'
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutation.py --each 10

bench-check: dev
	$(BIN)/python tools/bench_cli.py --check
	$(BIN)/python tools/bench_mae.py --check
	$(BIN)/python tools/bench_trainer.py --check

# Lines of the package that tests reach, in child processes too, as a table and in build/coverage.
# `make coverage TESTS=tests/cli` for a part, `MARKS="not gpu and not slurm"` with the slow ones.
TESTS ?= tests
MARKS ?= not slow and not gpu and not slurm
coverage: dev
	rm -rf build/coverage && mkdir -p build/coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run -m pytest -n 2 -m "$(MARKS)" $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet --directory build/coverage/html
	$(BIN)/python -m coverage report --sort=cover

lint: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: dev
	$(BIN)/mypy

clean:
	rm -rf .venv build dist runs
