# make run      set up and run one solution: on the GPU if there is one, else on the CPU
# make test     set up, lint and run every test that this machine can run
# make lint     ruff and mypy
# make clean    remove what the above made (records in traces/runs are kept)

PYTHON ?= python3
RUN_FLAGS ?= --solution triton_v2
PYTEST_FLAGS ?=
PY := .venv/bin/python
INPUTS := pyproject.toml constraints.txt scripts/setup.sh

.PHONY: run test lint clean

run: .venv/.ready-to-run
	@$(PY) -m moeprof run $(RUN_FLAGS)

test: lint
	@# tests that measure wait for each other, hence a worker more than cores (8 min 18 s on two of
	@# them, 10 min 8 s without); threads of torch beside them only get in each other's way
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) \
	  --dist worksteal $(PYTEST_FLAGS)

lint: .venv/.ready-to-test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

clean:
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready-to-run: $(INPUTS)
	@bash scripts/setup.sh $(PYTHON) run
	@touch $@

.venv/.ready-to-test: $(INPUTS)
	@bash scripts/setup.sh $(PYTHON) dev
	@touch $@ .venv/.ready-to-run
