"""A pickle made by either back end loads in the other."""

import os
import pickle
import subprocess
import sys

import pytest

import ctxpool

PROGRAM = """
import pickle, sys
import ctxpool
assert ctxpool.backend == sys.argv[1], ctxpool.backend
data = sys.stdin.buffer.read()
if data:
    window, cache, model, *more = pickle.loads(data)
    assert type(model) is ctxpool.MarkovModel
    assert [(c.policy, c.by_recency()) for c in more] == [
        ("s3fifo", [0, 4, 5]), ("sieve", [0, 4, 5]), ("lfu", [4, 5, 0]),
        ("tinylfu", [0, 1, 5]), ("adaptive", [3, 4, 5])], more
    assert type(window) is ctxpool.TokenWindow and type(cache) is ctxpool.LRUCache
else:
    window = ctxpool.TokenWindow(4, dtype="int64", overflow="compact", overlap=1)
    window.extend([1, 2, 3])
    cache = ctxpool.LRUCache(10, len)
    cache["a"], cache["b"] = "xx", "yyy"
    cache["a"]
    model = ctxpool.MarkovModel(2, 100, 5)
    model.train("abracadabra" * 9)
    policies = "s3fifo", "sieve", "lfu", "tinylfu", "adaptive"
    more = [ctxpool.Cache(3, policy) for policy in policies]
    for key in (0, 0, 0, 1, 2, 3, 4, 5):
        for each in more:
            each.setdefault(key, key)
for each in (model, *more):
    each.check()
assert model.predict(1, "br")[0][0] == "a", model.predict(3, "br")
assert len(model) == 13, len(model)
assert list(window) == [1, 2, 3] and window.position == 3, window
assert cache.by_recency() == ["b", "a"] and list(cache.items()) == [
    ("a", "xx"), ("b", "yyy")], cache
assert cache.currsize == 5 and type(cache.currsize) is int, cache.currsize
sys.stdout.buffer.write(b"PICKLE" + pickle.dumps((window, cache, model, *more)))
"""


def run(backend: str, data: bytes) -> bytes:
    env = {k: v for k, v in os.environ.items() if not k.startswith("CTXPOOL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend],
        input=data,
        env={**env, f"CTXPOOL_{backend.upper()}": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.partition(b"PICKLE")[2]


def test_each_loads_what_the_other_made() -> None:
    if ctxpool.backend == "pure":
        pytest.skip("no native extension in this installation")
    native, pure = run("native", b""), run("pure", b"")
    run("native", pure)
    run("pure", native)


def test_a_subclass_keeps_its_own_name() -> None:
    cache = pickle.loads(pickle.dumps(Sub(3)))
    assert type(cache) is Sub
    assert cache.maxsize == 3


class Sub(ctxpool.LRUCache):
    pass
