"""Who takes part: our caches, what the standard library has, and the peers.

Peers come with ``pip install "ctxpool[bench-cache]"``; whichever is absent is named
with a reason and left out. Each is called as its documentation shows.
"""

import functools
import importlib
import importlib.util
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from operations import engine

__all__ = ["Contender", "absent", "contenders", "modules", "policies", "primitives"]

# Nine reads and a store, of ten keys at once: the loop costs each a tenth.
TEN = [f"k{i}" for i in range(10)]
MIXED = (
    f"{', '.join(TEN)} = x; "
    + "".join(f"cache.get({key}); " for key in TEN[:9])
    + "cache[k9] = 2"
)

# What a loop does with the key x, by operation.
MAPPING = {
    "hit c[k]": "cache[x]",
    "hit get": "cache.get(x)",
    "equal-copy key": "cache.get(x)",
    "miss get": "cache.get(x)",
    "overwrite": "cache[x] = 2",
    "zipf 90/10": MIXED,
    "insert + evict": "cache[x] = 2",
    "zipf read-through": "if cache.get(x) is None: cache[x] = 1",
}
SETTER = {
    operation: re.sub(r"cache\[(\w+)\] = (\d)", r"cache.set(\1, \2)", text)
    for operation, text in MAPPING.items()
    if operation != "hit c[k]"
}
MEMO = dict.fromkeys(
    ("hit get", "equal-copy key", "insert + evict", "zipf read-through"), "cache(x)"
)
# A dict that takes one and drops the oldest, which costs it no search: see Ring.pairs.
BOUND_BY_HAND = MAPPING | {"insert + evict": "cache[x[0]] = 2; del cache[x[1]]"}


@dataclass(frozen=True)
class Contender:
    name: str
    make: Callable[[int], Any]
    statements: dict[str, str] = field(default_factory=lambda: MAPPING)
    largest: int = 1_000_000
    side: str = "peer"  # or "ours", or "floor"

    def filled(self, keys: list[Any]) -> Any:
        """A cache that holds them all, made by storing one after the other."""
        cache = self.make(len(keys))
        store = self.statements.get("overwrite") or self.statements["insert + evict"]
        names: dict[str, Any] = {}
        exec(f"def fill(cache, keys):\n for x in keys:\n  {store}", names)
        names["fill"](cache, keys)
        return cache


class Recipe(OrderedDict[Any, Any]):
    """The recipe of the collections documentation."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        super().__init__()

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        self.move_to_end(key)
        return value

    def get(self, key: Any, default: Any = None) -> Any:
        # Not self.get, which is this.
        return self[key] if key in self else default  # noqa: SIM401

    def __setitem__(self, key: Any, value: Any) -> None:
        if key in self:
            self.move_to_end(key)
        super().__setitem__(key, value)
        if len(self) > self.maxsize:
            del self[next(iter(self))]


def memo(maxsize: int) -> Any:
    @functools.lru_cache(maxsize)
    def cache(k: Any) -> int:
        return 1

    return cache


def zict_lru(maxsize: int) -> Any:
    zict = modules()["zict"]
    return zict.LRU(maxsize, {})


# --- what is installed ------------------------------------------------------------

# Module: distribution.
DISTRIBUTIONS = {
    "cachetools": "cachetools",
    "cachebox": "cachebox",
    "lru": "lru-dict",
    "moka_py": "moka-py",
    "theine": "theine",
    "zict": "zict",
    "async_lru": "async-lru",
    "aiocache": "aiocache",
    "wrapt": "wrapt",
    "lazy_object_proxy": "lazy-object-proxy",
}


def without_gil() -> bool:
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is not None and not enabled()


def switches_the_gil_on(module: str) -> bool:
    """Found out in another process: there is no way back from it in this one."""
    script = f"import {module}, sys; sys.exit(sys._is_gil_enabled())"
    return bool(subprocess.run([sys.executable, "-c", script]).returncode)


@functools.cache
def _found() -> tuple[dict[str, Any], dict[str, str]]:
    modules: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, distribution in DISTRIBUTIONS.items():
        if importlib.util.find_spec(name) is None:
            reasons[distribution] = "not installed"
        elif without_gil() and switches_the_gil_on(name):
            reasons[distribution] = "switches the GIL on"
        else:
            try:
                modules[name] = importlib.import_module(name)
            except ImportError as error:
                reasons[distribution] = f"cannot be imported: {error}"
    return modules, reasons


def modules() -> dict[str, Any]:
    """The peers' modules that are there, by name."""
    return _found()[0]


def absent() -> dict[str, str]:
    """Why the others are not, by distribution."""
    return _found()[1]


# --- the lists --------------------------------------------------------------------


def policies() -> tuple[str, ...]:
    """Those of this build's ``ctxpool.Cache``."""
    from ctxpool._cache_support import POLICIES

    return tuple(POLICIES)


def ours(backend: str = "native", name: str = "LRUCache") -> Contender:
    return Contender(name, lambda n: engine(backend)["LRUCache"](n), side="ours")


def with_policy(policy: str) -> Contender:
    return Contender(
        f"Cache {policy}", lambda n: engine("native")["Cache"](n, policy), side="ours"
    )


def dictionary() -> Contender:
    return Contender("dict", lambda n: {}, BOUND_BY_HAND, side="floor")


def peers() -> list[Contender]:
    """The bounded ones that are installed; functools always is."""
    found = modules()
    known: dict[str, Callable[[Any], Contender]] = {
        "cachebox": lambda m: Contender("cachebox", m.LRUCache),
        "lru": lambda m: Contender("lru-dict", m.LRU),
        "cachetools": lambda m: Contender("cachetools", m.LRUCache),
        "moka_py": lambda m: Contender(
            "moka-py", lambda n: m.Moka(n, policy="lru"), SETTER, 1_000
        ),
        "theine": lambda m: Contender(
            "theine",
            m.Cache,
            SETTER | {"zipf read-through": "if not cache.get(x)[1]: cache.set(x, 1)"},
            1_000,
        ),
        "zict": lambda m: Contender("zict", zict_lru, largest=1_000),
    }
    return [
        Contender("functools", memo, MEMO),
        *(make(found[name]) for name, make in known.items() if name in found),
    ]


def contenders() -> list[Contender]:
    """The floor, then the peers, then ours."""
    return [
        dictionary(),
        *peers(),
        ours(),
        *(with_policy(policy) for policy in policies()),
    ]


def primitives() -> list[Contender]:
    """LRUCache on both back ends, and what people write without a dependency."""
    return [
        *(ours(backend, backend) for backend in ("native", "pure")),
        dictionary(),
        Contender("OrderedDict", Recipe),
        *(peer for peer in peers() if peer.name in ("cachetools", "functools")),
    ]
