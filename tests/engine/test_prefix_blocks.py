"""PrefixBlockManager: who gets which block, what is found, and what is refused."""

import array
import gc
import os
import pickle
import signal
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ctxpool import errors
from ctxpool._prefix_support import key_of, start_of
from ctxpool.context import PrefixAllocation, PrefixEvent, PrefixGrowth

PRIME = 2**127 - 1


@pytest.fixture
def Manager(impl):
    return impl.PrefixBlockManager


@pytest.fixture
def manager(Manager):
    made = Manager(8, 4, events=100)
    yield made
    assert made._check() == 0


def blocks(manager, *tokens):
    return manager.allocate(*tokens).blocks.tolist()


# ---- Sharing ----


def test_allocate_shares_full_blocks(manager):
    first = manager.allocate(range(10))
    assert isinstance(first, PrefixAllocation)
    assert first.blocks.tolist() == [0, 1, 2]
    assert first.blocks.dtype == np.int32
    second = manager.allocate([*range(9), 77])
    assert (second.blocks.tolist(), second.cached_tokens) == ([0, 1, 3], 8)
    assert manager.blocks(second.sequence).tolist() == [0, 1, 3]
    assert manager.length(second.sequence) == 10
    assert manager.available == 4


def test_salt_keeps_apart(manager):
    manager.allocate(range(8), salt="tenant")
    assert manager.lookup(range(8)) == 0
    assert manager.lookup(range(8), salt="another") == 0
    assert manager.lookup(range(8), salt=b"tenant") == 8
    assert manager.lookup(range(8), salt="\ud800") == 0


def test_a_prefix_ends_at_the_first_miss(manager):
    manager.allocate([1, 2, 3, 4, 5, 6, 7, 8])
    assert manager.lookup([1, 2, 3, 4, 0, 6, 7, 8]) == 4
    assert manager.lookup([0, 2, 3, 4, 5, 6, 7, 8]) == 0
    assert manager.lookup([5, 6, 7, 8]) == 0
    assert manager.lookup([1, 2, 3]) == manager.lookup([]) == 0


def test_zeros_of_different_lengths_differ(Manager):
    for tokens in ([0] * 12, [-1] * 12):
        manager = Manager(8, 4)
        manager.allocate(tokens[:4])
        assert manager.lookup(tokens) == 4
        assert len(set(manager.hashes(tokens))) == 3


def test_append_fills_and_caches(manager):
    one = manager.allocate([1, 2, 3]).sequence
    same = manager.append(one, [])
    assert same == PrefixGrowth(same.blocks, None)
    assert len(same.blocks) == 0
    assert manager.lookup([1, 2, 3, 4]) == 0
    assert manager.append(one, [4]).blocks.tolist() == []
    assert manager.lookup([1, 2, 3, 4]) == 4
    assert manager.append(one, range(5, 14)).blocks.tolist() == [1, 2, 3]
    assert manager.lookup(range(1, 14)) == 12
    assert manager.length(one) == 13


def test_append_of_a_whole_prompt_is_that_of_allocate(Manager):
    one, other = Manager(100, 4), Manager(100, 4)
    tokens = list(range(203))
    one.allocate(tokens)
    sequence = other.allocate([]).sequence
    assert other.append(sequence, tokens).blocks.tolist() == list(range(51))
    assert one.lookup(tokens) == other.lookup(tokens) == 200


def test_a_second_equal_block_stays_private(manager):
    one = manager.allocate([1, 2, 3]).sequence
    other = manager.allocate([1, 2, 3]).sequence
    manager.append(one, [4])
    manager.append(other, [4])
    assert manager.stats().cached == 1
    manager.free(one)
    assert blocks(manager, [1, 2, 3, 4]) == [0]
    manager.free(other)  # the private one is taken first
    assert blocks(manager, [9]) == [1]


def test_fork_copies_on_write(manager):
    one = manager.allocate([1, 2, 3, 4, 5, 6]).sequence
    other = manager.fork(one)
    assert manager.blocks(other).tolist() == [0, 1]
    assert manager.stats().used == 2
    grown = manager.append(other, [7, 8, 9])
    assert (grown.blocks.tolist(), grown.copied_from) == ([2, 3], 1)
    again = manager.append(one, [0])
    assert (again.blocks.tolist(), again.copied_from) == ([], None)
    assert manager.lookup([1, 2, 3, 4, 5, 6, 7, 8]) == 8
    manager.free(one)
    assert manager.blocks(other).tolist() == [0, 2, 3]


def test_fork_of_full_blocks_copies_nothing(manager):
    one = manager.allocate([1, 2, 3, 4]).sequence
    other = manager.fork(one)
    assert manager.append(other, [5]).copied_from is None
    assert manager.append(one, [6]).copied_from is None
    assert manager.blocks(manager.fork(manager.allocate([]).sequence)).size == 0


# ---- Eviction ----


def test_order_of_eviction(manager):
    one = manager.allocate(range(10)).sequence  # 0 1 2, of which 2 is not full
    other = manager.allocate(range(20, 28)).sequence  # 3 4
    manager.free(other)
    manager.free(one)
    # Never used and not cached first, newest first; then other's, from its end.
    taken = [blocks(manager, [900 + i])[0] for i in range(8)]
    assert taken == [2, 5, 6, 7, 4, 3, 1, 0]
    assert manager.stats().evictions == 4
    assert manager.lookup(range(10)) == 0


def test_touch_keeps(manager):
    for start in (0, 20):
        manager.free(manager.allocate(range(start, start + 8)).sequence)
    assert manager.touch(range(9)) == 8
    assert manager.touch(range(50, 60)) == 0
    taken = [blocks(manager, [900 + i])[0] for i in range(7)]
    assert taken == [4, 5, 6, 7, 3, 2, 1]
    assert manager.lookup(range(8)) == 4


def test_free_of_what_was_not_computed(manager):
    one = manager.allocate(range(12)).sequence
    manager.free(one, computed=7)
    assert manager.lookup(range(12)) == 4
    one = manager.allocate(range(12)).sequence
    manager.free(one, computed=10**12)
    assert manager.lookup(range(12)) == 12


def test_reset(manager):
    one = manager.allocate(range(10)).sequence
    assert manager.reset_prefix_cache() == 2
    assert manager.lookup(range(10)) == 0
    assert manager.blocks(one).tolist() == [0, 1, 2]
    assert manager.allocate(range(8)).blocks.tolist() == [3, 4]
    assert manager.drain_events()[2][0] == "cleared"


def test_exhaustion_changes_nothing(manager):
    one = manager.allocate(range(12)).sequence
    manager.free(one)
    held = manager.allocate(range(100, 116)).sequence
    before, events = manager.stats(), manager.drain_events()
    # Four are free, but three of them are those that it would share.
    with pytest.raises(
        errors.PoolExhaustedError, match="no room for 21 tokens: 4 of 8"
    ):
        manager.allocate([*range(12), *range(900, 909)])
    with pytest.raises(MemoryError):
        manager.append(held, range(17))
    with pytest.raises(errors.PoolExhaustedError):
        manager.acquire(5)
    with pytest.raises(errors.PoolExhaustedError):
        manager.allocate(range(1000))
    after = manager.stats()
    assert after.exhausted == before.exhausted + 4
    assert (after.used, after.cached) == (before.used, before.cached)
    assert events
    assert manager.drain_events() == []
    assert manager.length(held) == 16
    assert manager.lookup(range(12)) == 12
    manager.append(held, range(16))
    other = manager.fork(manager.allocate([]).sequence)
    with pytest.raises(errors.PoolExhaustedError):
        manager.append(other, [1])


def test_copy_on_write_needs_a_block_too(Manager):
    manager = Manager(1, 4)
    one = manager.allocate([1, 2]).sequence
    other = manager.fork(one)
    with pytest.raises(errors.PoolExhaustedError):
        manager.append(one, [3])
    manager.free(other)
    assert manager.append(one, [3]).blocks.size == 0


# ---- Blocks by number ----


def test_acquire_and_release(manager):
    taken = manager.acquire(3)
    assert taken.tolist() == [0, 1, 2]
    assert manager.acquire(0).tolist() == []
    assert manager.available == 5
    for wrong in ([0, 1, 0], [0, 3], [-1], [8], [2**40], [0, 10**50]):
        with pytest.raises(
            errors.BlockReleasedError, match=r"block \d|block -1|block 0x"
        ):
            manager.release(wrong)
    manager.allocate(range(4))
    with pytest.raises(errors.BlockReleasedError):
        manager.release([3])  # a sequence's
    assert manager.available == 4
    manager.release(taken[::-1])
    assert manager.available == 7
    manager.release(np.array([], np.int64))
    with pytest.raises(ValueError, match="n must be from 0"):
        manager.acquire(-1)
    with pytest.raises(TypeError):
        manager.release([1.5])


# ---- Events and counts ----


def test_events(manager):
    assert manager.drain_events() == []
    one = manager.allocate(range(9)).sequence
    first, second = manager.hashes(range(9))
    start = manager.drain_events()
    assert all(isinstance(event, PrefixEvent) for event in start)
    assert [event[:3] for event in start] == [
        ("stored", 0, first),
        ("stored", 1, second),
    ]
    assert start[1].parent == first
    assert start[0].parent not in (first, second, bytes(16))
    manager.free(one)
    manager.acquire(8)
    removed = manager.drain_events()
    assert [event[:3] for event in removed] == [
        ("removed", 1, second),
        ("removed", 0, first),
    ]


def test_events_are_bounded(Manager):
    manager = Manager(100, 1, events=3)
    manager.allocate(range(5))
    assert (manager.stats().events, manager.stats().events_dropped) == (3, 2)
    assert [event.block for event in manager.drain_events()] == [2, 3, 4]
    assert manager.drain_events() == []
    manager.allocate(range(50, 52))
    assert [event.block for event in manager.drain_events()] == [5, 6]
    silent = Manager(4, 1)
    silent.allocate([1])
    assert silent.drain_events() == []
    assert silent.stats().events_dropped == 0


def test_stats(manager):
    assert manager.stats().hit_rate == 0.0
    one = manager.allocate(range(8))
    manager.allocate(range(8))
    manager.free(one.sequence)
    now = manager.stats()
    assert now.hit_rate == 0.5
    assert now.usage == 0.25
    assert now.as_dict() == {
        "num_blocks": 8,
        "block_size": 4,
        "used": 2,
        "peak": 2,
        "cached": 2,
        "sequences": 1,
        "queried_tokens": 16,
        "hit_tokens": 8,
        "evictions": 0,
        "exhausted": 0,
        "events": 2,
        "events_dropped": 0,
    }
    assert repr(manager) == (
        "<PrefixBlockManager num_blocks=8, block_size=4, used=2, cached=2>"
    )
    assert (manager.num_blocks, manager.block_size, manager.verify) == (8, 4, True)


# ---- Hashes ----


def test_the_hash_is_the_polynomial(Manager):
    tokens = [0, -1, 2**31 - 1, -(2**31), 7, 8]
    value, key = start_of("salt"), key_of("seed")
    for token in tokens:
        value = (value * key + token % 2**32 + 1) % PRIME
    (found,) = Manager(4, 6, seed="seed").hashes(tokens, salt="salt")
    assert found == value.to_bytes(16, "big")
    # For ever: these are what other processes, and versions, compare with.
    (fixed,) = Manager(1, 3).hashes([1, 2, 3])
    assert fixed.hex() == "4b932cff57508afc0007b8b420f16a42"


def test_seed(Manager):
    one, same, other = Manager(4, 2), Manager(9, 2, seed=""), Manager(4, 2, seed="x")
    assert one.hashes(range(8)) == same.hashes(range(8)) != other.hashes(range(8))
    assert Manager(4, 2, seed=b"x").hashes([1, 2]) == other.hashes([1, 2])


def test_verify_sees_through_a_collision(Manager):
    """Blocks of two tokens a, b with equal a * key + b: anyone can make them who has
    the key."""
    manager = Manager(64, 64, seed="known")
    lax = Manager(64, 64, seed="known", verify=False)
    one, other = colliding(key_of("known"), 64)
    assert one != other
    assert manager.hashes(one) == manager.hashes(other)
    for each, cached in ((manager, 0), (lax, 64)):
        each.allocate(one)
        assert each.lookup(one) == 64
        assert each.lookup(other) == cached
        assert each.allocate(other).cached_tokens == cached
        assert each.stats().cached == 1
        assert each._check() == 0


def colliding(key, n):
    """Two sequences of n tokens with one hash: the powers of the key are reduced by
    differences, as in Euclid's algorithm, until two of them agree."""
    powers = [pow(key, n - 1 - i, PRIME) for i in range(n)]
    vectors = []
    for i, power in enumerate(powers):
        unit = [0] * n
        unit[i] = 1
        vectors.append((power, unit))
    while True:
        vectors.sort(key=lambda pair: pair[0])
        (a, u), (b, v) = vectors[-1], vectors[-2]
        difference = [x - y for x, y in zip(u, v, strict=True)]
        if a == b:
            break
        vectors[-1] = (a - b, difference)
        assert max(map(abs, difference)) < 2**30
    base = [2**30] * n
    return base, [x + d for x, d in zip(base, difference, strict=True)]


# ---- What tokens may be ----


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4"]
)
def test_arrays(manager, dtype):
    expected = manager.hashes(list(range(10)))
    tokens = np.arange(10).astype(dtype)
    assert manager.hashes(tokens) == expected
    assert manager.hashes(np.repeat(tokens, 2)[::2]) == expected
    frozen = tokens.copy()
    frozen.flags.writeable = False
    assert manager.hashes(frozen) == expected


def test_other_sequences(manager, impl):
    expected = manager.hashes(range(10))
    window = impl.TokenWindow(10)
    window.extend(range(10))
    others = [
        tuple(range(10)),
        array.array("i", range(10)),
        array.array("q", range(10)),
    ]
    others += [bytes(range(10)), iter(range(10)), window, window.view()]
    others += [memoryview(array.array("i", range(10))), np.arange(10, dtype=object)]
    others += [list(np.arange(10)), dict.fromkeys(range(10))]
    for tokens in others:
        assert manager.hashes(tokens) == expected, tokens


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ([2**31], errors.TokenRangeError),
        ([-(2**31) - 1], errors.TokenRangeError),
        ([10**5000], errors.TokenRangeError),
        (np.array([2**31]), errors.TokenRangeError),
        (np.array([2**32 - 1], np.uint32), errors.TokenRangeError),
        (np.array([2**64 - 1], np.uint64), errors.TokenRangeError),
        ([1, "a"], TypeError),
        ("text", TypeError),
        ([1.0], TypeError),
        (np.array([1.0]), TypeError),
        (np.array([True]), TypeError),
        (np.zeros((2, 2), int), ValueError),
        (np.array(5), TypeError),
        (5, TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_token(manager, tokens, error):
    sequence = manager.allocate([1]).sequence
    for call in (
        manager.lookup,
        manager.touch,
        manager.hashes,
        manager.allocate,
        lambda tokens: manager.append(sequence, tokens),
    ):
        with pytest.raises(error):
            call(tokens)
    assert manager.length(sequence) == 1


def test_tokens_that_act(manager):
    class Token:
        def __init__(self, act):
            self.act = act

        def __index__(self):
            self.act()
            return 3

    def broken():
        raise ZeroDivisionError

    items = [1, Token(lambda: items.clear()), 2]
    assert manager.hashes([*items, 4]) == manager.hashes([1, 3, 2, 4])
    items = [1, Token(lambda: items.clear()), 2, 4]
    assert manager.hashes(items) == manager.hashes([1, 3, 2, 4])
    sequence = manager.allocate([1]).sequence
    with pytest.raises(ZeroDivisionError):
        manager.append(sequence, [1, Token(broken)])
    # What it appends to is gone by then.
    with pytest.raises(errors.UnknownSequenceError):
        manager.append(sequence, [Token(lambda: manager.free(sequence))])
    with pytest.raises(errors.PoolExhaustedError):
        manager.allocate([Token(lambda: manager.acquire(manager.available))])


# ---- What is refused ----


def test_arguments(Manager):
    for wrong in (0, -1, 2**30 + 1, 10**30):
        with pytest.raises(ValueError, match="num_blocks must be from 1"):
            Manager(wrong)
    with pytest.raises(ValueError, match="block_size must be from 1"):
        Manager(1, 0)
    with pytest.raises(TypeError, match=r"not 1\.5"):
        Manager(1.5)
    with pytest.raises(ValueError, match="events must be from 0"):
        Manager(1, events=-1)
    for wrong in (None, 1, bytearray(b"x")):
        with pytest.raises(TypeError, match="seed must be bytes or str"):
            Manager(1, seed=wrong)
        with pytest.raises(TypeError, match="salt must be bytes or str"):
            Manager(1).lookup([], salt=wrong)
    with pytest.raises(MemoryError, match="no memory for"):
        Manager(2**30, 2**20)
    with pytest.raises(MemoryError):
        Manager(1, events=2**60)


def test_handles(manager):
    one = manager.allocate([1]).sequence
    manager.free(one)
    assert manager.allocate([1]).sequence != one
    calls = [manager.free, manager.fork, manager.blocks, manager.length]
    calls.append(lambda sequence: manager.append(sequence, [1]))
    for call in calls:
        for wrong in (one, 5, -1, 2**62, 2**63, 10**5000):
            with pytest.raises(
                errors.UnknownSequenceError, match="there is no sequence"
            ):
                call(wrong)
        with pytest.raises(LookupError):
            call(77)
        with pytest.raises(TypeError, match="named by an integer, not 'x'"):
            call("x")
    with pytest.raises(ValueError, match="computed must be from 0"):
        manager.free(one, computed=-1)


def test_pickling_and_init(Manager):
    manager = Manager(1)
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(manager)
    with pytest.raises(RuntimeError, match="called before"):
        manager.__init__(1)


def test_uninitialised(impl, Manager):
    if impl.backend == "pure":
        pytest.skip("an AttributeError each")
    manager = Manager.__new__(Manager)
    calls = [manager.lookup, manager.touch, manager.hashes, manager.allocate]
    calls += [manager.acquire, manager.release]
    for call in calls:
        with pytest.raises((RuntimeError, TypeError)):
            call([])
    for call in (manager.free, manager.fork, manager.blocks, manager.length):
        with pytest.raises((RuntimeError, LookupError)):
            call(0)
    with pytest.raises(RuntimeError):
        manager.drain_events()
    with pytest.raises(RuntimeError):
        manager.reset_prefix_cache()
    assert manager.available == manager.stats().used == 0
    del manager


def test_subclass(Manager):
    class Named(Manager):
        def __init__(self, name, *args):
            super().__init__(*args)
            self.name = name

    named = Named("x", 4, 2)
    named.me = named
    seen = weakref.ref(named)
    assert "<Named num_blocks=4" in repr(named)
    del named
    gc.collect()
    assert seen() is None


def test_no_object_per_block(Manager, impl):
    if impl.backend == "pure":
        pytest.skip("the pure twin has lists")
    manager = Manager(100_000, 16)
    manager.allocate(range(100_000))
    assert not gc.get_referents(manager) or gc.get_referents(manager) == [Manager]
    assert sys.getrefcount(manager) == 2


def test_results_are_the_callers_own(manager):
    made = manager.allocate(range(8))
    made.blocks[:] = 7
    assert manager.blocks(made.sequence).tolist() == [0, 1]
    shown = manager.blocks(made.sequence)
    shown[:] = 7
    manager.free(made.sequence)
    assert manager._check() == 0


# ---- Threads and forks ----


def busy(manager, seed, rounds=300):
    """Each with beginnings that the others have too."""
    held = []
    for i in range(rounds):
        tokens = [*range(8 * (i % 3)), seed, i]
        try:
            held.append(manager.allocate(tokens).sequence)
            held.append(manager.fork(held[-1]))
            manager.append(held[-1], [1, 2, 3])
            assert manager.blocks(held[-1]).size
        except errors.PoolExhaustedError:
            pass
        manager.touch(tokens)
        manager.release(manager.acquire(0))
        while len(held) > i % 5:
            manager.free(held.pop())
        if i % 50 == 0:
            manager.drain_events(), manager.stats(), manager.lookup(tokens)
    for sequence in held:
        manager.free(sequence)


def test_threads(Manager):
    manager = Manager(40, 4, events=20)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(busy, manager, 1000 + i) for i in range(4)]:
                done.result(60)
    finally:
        sys.setswitchinterval(interval)
    assert manager._check() == 0
    assert manager.available == 40
    assert manager.stats().sequences == 0


def test_one_sequence_is_freed_once(Manager):
    manager = Manager(40, 4)
    for _ in range(30):
        sequence, freed = manager.allocate(range(100)).sequence, []
        barrier = threading.Barrier(4)

        def free(sequence=sequence, freed=freed, barrier=barrier):
            barrier.wait(60)
            try:
                manager.free(sequence)
            except errors.UnknownSequenceError:
                return
            freed.append(sequence)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(free) for _ in range(4)]:
                done.result(60)
        assert len(freed) == 1
    assert manager._check() == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_signal_handlers_use_it(Manager):
    manager, answers = Manager(40, 4), []
    tokens = list(range(100))

    def handler(*args):
        try:
            answers.append(manager.touch(tokens))
        except RuntimeError:
            answers.append(None)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        for _ in range(10_000):
            manager.free(manager.allocate(tokens).sequence)
            if len(answers) > 50:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(answers) <= {0, 100, None}
    assert manager._check() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_while_threads_work(Manager):
    manager = Manager(40, 4)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            busy(manager, 7, 20)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.alarm(30)
                    made = manager.allocate([5] * 9)
                    manager.free(made.sequence)
                    code = 0 if manager._check() == 0 else 2
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        thread.join(60)
    assert manager._check() == 0
