# Set-up and checks. `make demo` and `make test` are all that a newcomer needs; both may be repeated.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: venv demo test test-all check docs format bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed. Name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The main job on the bundled data: four slices of two people, all methods with weights for 4x, one draw each.
# No large download: LPIPS appears where its weights are at hand.
demo: venv
	@echo "Four slices, one draw; dps with 20 steps instead of 100, multigrid_pnp with 15 iterations instead of 30. Demonstration weights rank nothing."
	MRBENCH_OFFLINE=1 $(BIN)/mrbench run --method nearest --method bilinear --method bicubic --method lanczos \
	  --method bspline --method zero_filled --method res_srdiff --method resshift --method sinsr --method i2sb \
	  --method scale_cascaded --method diffpir --method dps --set dps.steps=20 --method multigrid_pnp --set multigrid_pnp.iterations=15 \
	  --method msp_sr --method tm_ddpm --method pix2pix --method cyclegan --method spsr --method edsr --method swinir \
	  --dataset sample --scale 4 --subset 4

# Two processes; a file's tests stay in one of them.
test: venv
	$(BIN)/pytest -n 2 --dist loadfile

test-all: venv
	$(BIN)/pytest -n 2 --dist loadfile -m 'slow or not slow'

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation: site/index.html opens without a server. A warning is an error.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/sampling.py --no-compile --channels 128
	$(BIN)/python benchmarks/uncertainty.py
	$(BIN)/python benchmarks/statistics.py
	$(BIN)/python benchmarks/scaling.py

clean:
	rm -rf build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
