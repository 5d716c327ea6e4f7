"""Does an installed ctxpool work? Run it away from the checkout.

python smoke.py [native|pure]
"""

import sys
from importlib.metadata import files
from pathlib import Path

import numpy as np

import ctxpool

expected = sys.argv[1] if len(sys.argv) > 1 else "native"
assert ctxpool.backend == expected, f"{ctxpool.backend}, not {expected}"

with ctxpool.BlockPool(4096, 4) as pool:
    with pool.acquire() as block:
        block.view[:5] = b"hello"
        assert bytes(block.view[:5]) == b"hello"
    array = pool.empty((8, 8), "float32")
    array[:] = 1
    assert array.sum() == 64
    del array
    assert pool.stats().in_use == 0

window = ctxpool.TokenWindow(4)
window.extend(range(6))
assert window.view().tolist() == [2, 3, 4, 5]

cache: ctxpool.LRUCache[str, int] = ctxpool.LRUCache(2)
cache["a"], cache["b"] = 1, 2
assert cache["a"] == 1
cache["c"] = 3
assert sorted(cache) == ["a", "c"]

if ctxpool.backend == "native":
    with ctxpool.numpy_pool("1MiB") as arrays:
        assert arrays.owns(np.ones(1_000))

assert Path(ctxpool.get_include(), "ctxpool", "block_pool.h").is_file()
shipped = {str(path) for path in files("ctxpool") or ()}
for name in ("py.typed", "_native/block_pool.pxd", "include/ctxpool/lru_table.h"):
    assert f"ctxpool/{name}" in shipped, f"{name} is not in the wheel"
if hasattr(sys, "_is_gil_enabled"):
    import sysconfig

    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert free_threaded != sys._is_gil_enabled(), "an extension switched the GIL on"
print(f"smoke test passed: ctxpool {ctxpool.__version__}, {ctxpool.backend}")
