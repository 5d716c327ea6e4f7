#!/usr/bin/env bash
# The tests on a free-threaded CPython 3.13, then the thread tests once more.
# --require-no-gil: an extension that switched the GIL on is a failure.
#   free-threaded.sh [pytest arguments...]
set -euo pipefail
cd "$(dirname "$0")/.."
python="$(tools/free-threaded-python.sh)"
# Hostile probes of the pure twins run where Python is quicker: they can corrupt nothing.
# This very installation is the test of how it is built.
tools/suite.sh "$python" cp313t --require-no-gil --hypothesis-profile=quick \
  -k "not (hostile and pure)" --ignore=tests/build \
  --ignore=tests/conformance/test_numpy_under_pool.py "$@"
echo "--- thread tests"
.venv-cp313t/bin/python -m pytest --require-native --require-no-gil -q \
  -p no:cacheprovider -k "thread or threads" "$@"
