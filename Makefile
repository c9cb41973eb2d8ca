# llm-tiny: `make` lists the targets. Each target runs a command that can also be typed.

PYTHON  ?= python3
VENV    ?= .venv
CONFIG  ?= configs/tiny.yaml
SWEEP   ?= configs/sweep.yaml
RUN     ?= runs/$(basename $(notdir $(CONFIG)))
ARGS    ?=
MINUTES ?=
CORPUS  ?=
NANOGPT ?=
PIPARGS ?=
EXTRAS  ?=
N       ?=
TO      ?= hf
BUDGET   = $(if $(MINUTES),--train.max_minutes "$(MINUTES)")
OUT     ?= exported/$(notdir $(RUN))$(filter-out -hf,-$(TO))

# `make VENV= PYTHON=python3 ...` uses that Python and installs nothing.
ifeq ($(strip $(VENV)),)
PY         := $(PYTHON)
READY      := check-python
READY_TEST := check-python
else
PY         := $(VENV)/bin/python
READY      := $(VENV)/.stamp
READY_TEST := $(VENV)/.stamp-test
endif

# Another torch than that of constraints.txt: a version, or `keep` for the one that is there. The choice
# is stored in the environment, for later calls of make.
CHOSEN := $(if $(strip $(VENV)),$(shell cat "$(VENV)/.torch" 2>/dev/null))
TORCH  ?= $(CHOSEN)
CONSTRAINTS = $(if $(TORCH),$(VENV)/constraints.txt,constraints.txt)

# Tests run in two processes, for two cores. The tests of a file run in one process, as they share fixtures.
PARALLEL = -n 2 --dist loadfile --max-worker-restart 0

# A test that runs longer than this many seconds fails and prints the stack of each thread.
TIMEOUT_S = -o faulthandler_exit_on_timeout=true -o faulthandler_timeout

PIP_INSTALL = $(PY) -m pip install --disable-pip-version-check $(PIPARGS) -c "$(CONSTRAINTS)"

# Targets run one after the other even with -j, because they share the cores and the virtual environment.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: install train test test-all torture format lint sample eval sweep plot export doctor bench gpu-check exercise clean help \
        check-python check-config check-sweep

# A missing or old Python prints one line instead of pip's page of errors.
define CHECK_PYTHON
@version=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=; \
major=$${version%%.*}; minor=$${version#*.}; \
if [ -z "$$version" ]; then \
	echo 'error: cannot run "$(PYTHON)": install Python 3.10 or newer, or name one: make PYTHON=python3.11 ...' >&2; \
	exit 2; \
elif [ "$$major" -lt 3 ] || { [ "$$major" -eq 3 ] && [ "$$minor" -lt 10 ]; }; then \
	echo "error: $(PYTHON) is Python $$version; 3.10 or newer is needed: make PYTHON=python3.11 ..." >&2; \
	exit 2; \
fi
endef

define MAKE_VENV
@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	echo 'error: $(PYTHON) has no venv or no ensurepip: apt install python3-venv (Debian, Ubuntu)' >&2; exit 2; }
@"$(PY)" -m pip --version >/dev/null 2>&1 || \
	"$(PYTHON)" -m venv $(if $(filter keep,$(TORCH)),--system-site-packages) "$(VENV)" || { \
	echo 'error: cannot make an environment in $(VENV): remove that folder and try again' >&2; exit 2; }
endef

# A new environment shares the packages of $(PYTHON) if its torch is kept.
define CHECK_TORCH
@python="$(PY)"; "$$python" -c "" 2>/dev/null || python="$(PYTHON)"; "$$python" scripts/constraints.py "$(TORCH)" >/dev/null
endef

# The stamp is written last: after a failed install the next make tries again.
$(VENV)/.stamp: requirements.txt constraints.txt $(if $(filter-out $(CHOSEN),$(TORCH))$(filter-out $(TORCH),$(CHOSEN)),FORCE)
	$(CHECK_PYTHON)
	$(if $(TORCH),$(CHECK_TORCH))
	$(MAKE_VENV)
	@rm -f $@
	$(if $(TORCH),@"$(PY)" scripts/constraints.py "$(TORCH)" > "$(CONSTRAINTS)")
	$(PIP_INSTALL) -r requirements.txt
	@$(if $(TORCH),echo "$(TORCH)" >,rm -f) "$(VENV)/.torch"
	@touch $@

$(VENV)/.stamp-test: requirements-test.txt $(VENV)/.stamp
	$(PIP_INSTALL) -r requirements-test.txt
	@touch $@

FORCE:

check-python:
	$(CHECK_PYTHON)

check-config:
	@test -f "$(CONFIG)" || { echo 'error: CONFIG=$(CONFIG): no such file; there are: $(wildcard configs/*.yaml)' >&2; exit 2; }

check-sweep:
	@test -f "$(SWEEP)" || { echo 'error: SWEEP=$(SWEEP): no such file; there are: $(wildcard configs/*.yaml)' >&2; exit 2; }

install: $(READY) ## make the virtual environment and install the requirements, and EXTRAS="NAME ..."
	$(if $(strip $(EXTRAS)),$(if $(strip $(VENV)),$(PIP_INSTALL) $(EXTRAS)))

train: check-config $(READY) ## train a model (in MINUTES=4) or resume it, then plot the loss and print a sample
	$(PY) train.py --config "$(CONFIG)" --run_dir "$(RUN)" $$(test ! -f "$(RUN)/run.json" || echo --resume) $(BUDGET) $(ARGS)
	$(PY) sample.py --run "$(RUN)" --seed 1
	@echo "loss plot: $(RUN)/loss.png"

sample: $(READY) ## sample a text from RUN; ARGS='--prompt "Once" --temperature 0.8'
	$(PY) sample.py --run "$(RUN)" $(ARGS)

eval: $(READY) ## evaluate RUN on its validation data; ARGS="--coherence 100" samples stories and parses them
	$(PY) -m scripts.eval --run "$(RUN)" $(ARGS)

plot: $(READY) ## plot the loss of RUN
	$(PY) -m scripts.plot --run "$(RUN)" $(ARGS)

sweep: check-sweep $(READY) ## train every point of the grid in SWEEP; a killed sweep is resumed
	$(PY) -m scripts.sweep --config "$(SWEEP)" $(ARGS)

# The default config's models can't be exported.
export: CONFIG = configs/text.yaml
export: $(READY) ## write the model of RUN (here runs/text) to OUT: TO=hf for transformers, gguf for llama.cpp
	$(PY) -m scripts.export --run "$(RUN)" --to "$(TO)" --out "$(OUT)" $(ARGS)

doctor: $(READY) ## check this machine: versions, threads, memory, disk, locks, numbers, speed
	$(PY) -m scripts.doctor $(ARGS)

bench: check-config $(READY) ## measure tokens per second and memory of training CONFIG
	$(PY) -m scripts.bench train --config "$(CONFIG)" $(ARGS)

gpu-check: $(READY) ## run tests and benchmarks on a GPU, write gpu-check.json: CORPUS=FILE [NANOGPT=PATH]
	@test -n "$(CORPUS)" || { echo 'error: gpu-check needs a text: make gpu-check CORPUS=FILE [NANOGPT=PATH]' >&2; exit 2; }
	$(PY) -m scripts.bench.gpu_check --corpus "$(CORPUS)" $(if $(NANOGPT),--nanogpt "$(NANOGPT)") $(ARGS)

torture: $(READY_TEST) ## try to lose data for MINUTES: kills, full disks, damaged files, fuzzing, races
	$(PY) -m scripts.torture --minutes "$(or $(MINUTES),5)" $(ARGS)

exercise: $(READY) ## write exercises/exN.py, or judge it: N=3, see docs/exercises.md
	@$(PY) -m tests.exercises.judges $(N)

test: $(READY_TEST) ## run the fast tests with coverage; ARGS="--no-cov tests/tok" runs some of them
	$(PY) -m pytest -m "not slow" $(PARALLEL) $(TIMEOUT_S)=300 --cov --cov-report=term-missing $(ARGS)

test-all: $(READY_TEST) ## run all tests, including the slow ones
	$(PY) -m pytest $(PARALLEL) $(TIMEOUT_S)=1200 --cov --cov-report=term-missing $(ARGS)

lint: $(READY_TEST) ## check style and types: ruff, black, mypy
	$(PY) -m ruff check .
	$(PY) -m black --check --quiet . || { $(PY) -m black --check . ; exit 1; }
	$(PY) -m mypy --no-error-summary

format: $(READY_TEST) ## format every file: black, and ruff's fixes
	$(PY) -m ruff check --fix .
	$(PY) -m black .

clean: ## remove caches and prepared data; runs/ and the virtual environment stay
	rm -rf artifacts .pytest_cache .ruff_cache .mypy_cache .hypothesis htmlcov .coverage .coverage.*
	find . -path ./.git -prune -o -name '.venv*' -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

help: ## list the targets
	@echo "usage: make TARGET [NAME=VALUE ...]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  CONFIG=$(CONFIG)  RUN=$(RUN)  SWEEP=$(SWEEP)"
	@echo "  MINUTES=  of training, in place of the config's number of steps; of torture"
	@echo "  ARGS=     more flags for the command, such as ARGS=\"--train.max_steps 50\""
	@echo "  PYTHON=$(PYTHON)  VENV=$(VENV) (empty: use PYTHON, install nothing)"
	@echo "  TO=$(TO)  OUT=$(OUT)"
	@echo "  TORCH=    keep (the torch that PYTHON or VENV has), or a version; empty: the tested one"
	@echo "  PIPARGS=  more flags for pip; EXTRAS= libraries to install in addition to requirements.txt"
