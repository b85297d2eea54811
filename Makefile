# Every target works on a fresh machine: what needs the virtual environment makes it.
PYTHON ?= python3
BIN := .venv/bin
# One thread per test process: two processes on two cores would otherwise fight over them.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
DEMO ?=

.PHONY: setup demo test test-slow check format bench clean

setup: .venv/.done

.venv/.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

demo: setup
	$(BIN)/mxa demo $(DEMO)

test: setup
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Tables on the screen, JSON in benchmarks/results/ (which git ignores).
BENCHMARKS := phantom loading block step memory upkeep inference runtimes serve distillation epoch bootstrap

bench: setup
	for script in $(BENCHMARKS); do \
		$(BIN)/python benchmarks/$$script.py --json benchmarks/results/$$script.json || exit 1; done
	$(BIN)/python benchmarks/loading.py --images 96 --large --json benchmarks/results/loading-large.json

clean:
	rm -rf .venv build dist runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
