# Everything prepares itself: `make demo` and `make test` need Python 3.11 or newer with venv, and nothing else.
#
#   PYTHON=python3.12     the Python that .venv is made with (only when it is made)
#   TORCH_INDEX=URL       where torch itself comes from, e.g. https://download.pytorch.org/whl/cpu for the
#                         build without CUDA; remembered until another one is named
#   ARGS="…"              further arguments for `demo`, `test`, `bench` and `lock`

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Fails unless .venv is a whole environment of its own: without its pyvenv.cfg its python is the system's.
WHOLE := $(BIN)/python -c 'import pip, sys; sys.exit(sys.prefix == sys.base_prefix)'
READY := $(VENV)/.ready
UNFINISHED := $(VENV)/.unfinished

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs golden bench lock clean again

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## prepare .venv: the locked versions, and this folder's program in it
	@echo "$(VENV) is ready: $(BIN)/rein --help"

# .ready names the folder that .venv was made for: a folder that was moved is set up anew, as is another torch.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
$(READY): again
endif
ifneq ($(TORCH_INDEX),)
ifneq ($(shell cat $(VENV)/.torch-index 2>/dev/null),$(TORCH_INDEX))
$(READY): again
endif
endif
again:

# A set-up that was cut short leaves .unfinished behind, and starts over; downloads are kept by pip.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>&1) || found=missing; \
	  echo "Rein needs Python 3.11 or newer, but $(PYTHON) is $$found."; \
	  echo "  Install a newer Python, or name one: make setup PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) comes without venv, which .venv is made with."; \
	  echo "  On Debian and Ubuntu: apt install python3-venv"; exit 1; } >&2
	@if [ -e $(READY) ] && [ "$$(cat $(READY))" != "$(CURDIR)" ]; then touch $(UNFINISHED); fi; rm -f $(READY)
	@if [ -e $(UNFINISHED) ] || ! $(WHOLE) 2>/dev/null; then \
	  mkdir -p $(VENV) && touch $(UNFINISHED) && \
	  find $(VENV) -mindepth 1 -maxdepth 1 ! -path $(UNFINISHED) -exec rm -rf {} + && \
	  $(PYTHON) -m venv $(VENV); fi
	@$(WHOLE) && touch $(UNFINISHED)
	@if [ -n "$(TORCH_INDEX)" ]; then \
	  $(PIP) install --force-reinstall --no-deps --index-url "$(TORCH_INDEX)" \
	    "$$(grep '^torch==' requirements.lock)"; fi
	$(PIP) install -c requirements.lock -e '.[dev]'
	@if [ -n "$(TORCH_INDEX)" ]; then echo "$(TORCH_INDEX)" > $(VENV)/.torch-index; fi
	@rm -f $(UNFINISHED) && echo "$(CURDIR)" > $(READY)

demo: $(READY) ## text on this machine → a GPT that writes, with a report; ARGS="--minutes 3"
	$(BIN)/rein demo $(ARGS)

test: $(READY) ## all tests of the default selection; ARGS="tests/test_cli.py -k version"
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src/rein docs/generate.py

docs: $(READY) ## write docs/reference/ anew from the program
	$(BIN)/python docs/generate.py

golden: $(READY) ## freeze settings, tables and routes anew (tests/golden/): a change users will notice
	$(BIN)/python tests/golden/test_flags.py
	$(BIN)/python tests/golden/test_label_surfaces.py

bench: $(READY) ## the benchmarks there are; ARGS="name" runs benchmarks/name.py
	@if [ -n "$(ARGS)" ]; then \
	  set -- $(ARGS); name=$$1; shift; $(BIN)/python "benchmarks/$$name.py" "$$@"; \
	else \
	  for file in benchmarks/*.py; do [ ! -e "$$file" ] || \
	    printf '  make bench ARGS=%-12s %s\n' "$$(basename "$$file" .py)" "$$(sed -n '1s/^"""//p' "$$file")"; done; \
	fi

# Resolved for every supported Python on Linux and macOS at once. numpy 2.5 needs Python 3.12.
lock: ## resolve requirements.lock anew; ARGS=--upgrade takes newer versions
	$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip install --quiet uv
	printf 'torch==2.13.0\nnumpy<2.5\n' > build/lock/pins.txt
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev $(ARGS) \
	  --constraint build/lock/pins.txt --no-header --no-annotate pyproject.toml -o requirements.lock
	printf '%s\n' '# Exact versions of everything, for every supported Python on Linux and macOS.' \
	  '# Used as constraints: what a machine does not need (CUDA, say) is pinned here but not installed.' \
	  '# Written by `make lock`.' | cat - requirements.lock > build/lock/new && mv build/lock/new requirements.lock

clean: ## remove caches and build outputs; .venv, runs/ and data/ stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
