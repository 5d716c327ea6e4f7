#!/usr/bin/env bash
# The C tests and the Python tests under AddressSanitizer and
# UndefinedBehaviorSanitizer.
#   sanitize.sh PYTHON [pytest arguments...]
set -euo pipefail
cd "$(dirname "$0")/.."
python="$1"; shift
sanitizers=address,undefined
export CC=gcc UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

echo "--- the C tests"
# The leak check needs ptrace, which some containers forbid.
probe="$(mktemp -d)"; trap 'rm -rf "$probe"' EXIT
echo 'int main(void) { return 0; }' >"$probe/probe.c"
gcc -fsanitize=address "$probe/probe.c" -o "$probe/probe"
leaks=1
if ! ASAN_OPTIONS=detect_leaks=1 "$probe/probe" 2>/dev/null; then
  leaks=0; echo "LeakSanitizer does not work here: the C tests run without it"
fi
ASAN_OPTIONS="detect_leaks=$leaks" tools/ctest.sh build/csrc-sanitize \
  -DCTXPOOL_SANITIZE="$sanitizers"

echo "--- the Python tests"
# CPython keeps memory until it exits: no leak check. PYTHONMALLOC=malloc: every
# object is a block of its own, with red zones around it. The build tests run
# compilers, which are none of the sanitizer's business; nor is what is Python alone.
asan="$(gcc -print-file-name=libasan.so)" ubsan="$(gcc -print-file-name=libubsan.so)"
export INSTALL_ARGS="-Ccmake.build-type=Debug -Ccmake.define.CTXPOOL_SANITIZE=$sanitizers"
export RUN="env LD_PRELOAD=$asan:$ubsan PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1"
tools/suite.sh "$python" sanitize --ignore=tests/build --ignore=tests/context \
  --ignore=tests/cli \
  --ignore=tests/conformance/test_numpy_under_pool.py --timeout=600 \
  --hypothesis-profile=quick -k "not pure" "$@"
