import array
import collections
import copy
import ctypes
import doctest
import enum
import inspect
import pickle
import sys
import weakref

import numpy as np
import pytest

from ctxpool.errors import TokenRangeError
from ctxpool.stats import TokenWindowStats

INTEGERS = [f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)]

# One of each layout: sliding, compacting, with the sink apart and in the buffer.
SHAPES = {
    "slide": {},
    "slack 1": {"slack": 1},
    "compact": {"overflow": "compact", "overlap": 3},
    "slide sink": {"sink": 2},
    "compact sink": {"overflow": "compact", "overlap": 3, "sink": 2},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request):
    return request.param


def filled(impl, tokens, capacity=8, **options):
    window = impl.TokenWindow(capacity, **options)
    window.extend(tokens)
    return window


# ---- construction ----


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"capacity": 0}, ValueError, "capacity must be at least 1, not 0"),
        ({"capacity": -3}, ValueError, "capacity must be at least 1, not -3"),
        ({"capacity": 1.5}, TypeError, "capacity must be an integer, not 1.5"),
        ({"capacity": "8"}, TypeError, "capacity must be an integer, not '8'"),
        ({"sink": -1}, ValueError, "sink must be at least 0, not -1"),
        ({"sink": 8}, ValueError, r"sink 8 \+ overlap 0 must be less than capacity 8"),
        ({"overlap": 2}, ValueError, 'overlap 2 needs overflow="compact"'),
        (
            {"overlap": 5, "sink": 3, "overflow": "compact"},
            ValueError,
            r"sink 3 \+ overlap 5 must be less than capacity 8",
        ),
        ({"slack": 0}, ValueError, "slack must be at least 1, not 0"),
        ({"overflow": "drop"}, ValueError, "overflow must be .*, not 'drop'"),
        ({"dtype": "float32"}, ValueError, "native integer type, not 'float32'"),
        ({"dtype": ">i4"}, ValueError, "native integer type, not '>i4'"),
        ({"dtype": "token"}, ValueError, "native integer type, not 'token'"),
        ({"dtype": bool}, ValueError, "native integer type, not <class 'bool'>"),
        ({"on_evict": 3}, TypeError, "on_evict must be callable, not 3"),
        ({"capacity": 2**70}, MemoryError, f"no memory for a window of {2**70} tokens"),
        ({"capacity": 2**61}, MemoryError, "no memory for a window"),
        ({"slack": 2**62}, MemoryError, f"8 tokens and {2**62} of slack"),
    ],
)
def test_a_bad_parameter_is_named(impl, options, error, message):
    with pytest.raises(error, match=message):
        impl.TokenWindow(**{"capacity": 8, **options})


def test_parameters_can_be_read_and_not_written(impl):
    window = impl.TokenWindow(
        9, overlap=2, sink=1, slack=5, dtype=np.uint16, overflow="compact", on_evict=id
    )
    assert (window.capacity, window.maxlen, window.overlap, window.sink) == (9, 9, 2, 1)
    assert (window.slack, window.overflow, window.on_evict) == (5, "compact", id)
    assert window.dtype == np.dtype("uint16")
    for name in ("capacity", "maxlen", "dtype", "position", "evicted", "on_evict"):
        with pytest.raises(AttributeError):
            setattr(window, name, 1)
    assert impl.TokenWindow(9).slack == 27


def test_the_constructor_runs_once(impl):
    window = filled(impl, [1, 2])
    with pytest.raises(RuntimeError, match="__init__ was called before"):
        window.__init__(4)
    assert list(window) == [1, 2]


def test_a_window_that_was_never_initialised_is_harmless(impl):
    window = impl.TokenWindow.__new__(impl.TokenWindow)
    for action in (
        lambda: window.append(1),
        lambda: window.extend([1]),
        lambda: window.extend(np.arange(3)),
        window.view,
        window.pop,
        window.popleft,
        lambda: window[0],
        window.copy,
        lambda: pickle.dumps(window),
    ):
        with pytest.raises((RuntimeError, AttributeError, IndexError)):
            action()


# ---- a first-in, first-out window of integers ----


def fifo(window):
    """Code that was written for a deque; gives all it saw."""
    seen = []
    for token in range(20):
        window.append(token)
        seen.append((len(window), bool(window), window[0], window[-1]))
    window.extend([7, 7, 30])
    window.extend(iter((8, 9)))
    window += range(3)
    seen += [window.count(7), window.index(30), 30 in window, 99 in window]
    seen += [list(window), list(reversed(window)), window.maxlen]
    seen += [window.popleft(), window.pop(), list(window.copy())]
    seen += [window == window.copy(), window != window.copy(), sum(window), max(window)]
    window.clear()
    seen += [len(window), bool(window), list(window)]
    return seen


def test_it_does_what_a_deque_does(impl):
    deque = collections.deque(maxlen=8)
    assert fifo(impl.TokenWindow(8)) == fifo(deque)
    assert fifo(impl.TokenWindow(8, slack=1)) == fifo(collections.deque(maxlen=8))


def test_iteration_gives_python_ints_of_the_moment(impl):
    window = filled(impl, range(10))
    seen = []
    for token in window:
        seen.append(token)
        window.append(100)
        assert type(token) is int
    assert seen == list(range(2, 10))
    assert list(window) == [100] * 8


def test_indices(impl, shape):
    window = filled(impl, range(8), **shape)
    assert [window[i] for i in range(8)] == list(range(8))
    assert [window[i] for i in range(-8, 0)] == list(range(8))
    assert window[np.int64(3)] == 3
    assert window[True] == 1
    for i in (8, -9, 2**70, -(2**70)):
        with pytest.raises(IndexError, match="window index out of range"):
            window[i]
    for key in (1.0, "1", None, (1, 2)):
        with pytest.raises(TypeError, match="must be integers or slices, not "):
            window[key]


def test_slices_are_read_only_arrays(impl, shape):
    window = filled(impl, range(8), **shape)
    for key in (
        slice(None),
        slice(2, 5),
        slice(-3, None),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(6, 1, -2),
        slice(5, 5),
        slice(-100, 100),
    ):
        got = window[key]
        assert got.tolist() == list(range(8))[key]
        assert got.dtype == window.dtype
        assert not got.flags.writeable
    if not window.sink:
        assert np.shares_memory(window[2:5], window.view())
        assert np.shares_memory(window[::-2], window.view())


def test_items_cannot_be_assigned_or_deleted(impl):
    window = filled(impl, range(3))
    with pytest.raises(TypeError):
        window[0] = 1
    with pytest.raises(TypeError):
        del window[0]


def test_search_uses_equality(impl):
    class Any7:
        def __eq__(self, other):
            return other == 7

        __hash__ = None

    window = filled(impl, [5, 7, 7, 2**31 - 1])
    assert 7.0 in window
    assert Any7() in window
    assert "7" not in window
    assert None not in window
    assert 2**31 not in window
    assert 2**100 not in window
    assert window.count(7) == window.count(7.0) == window.count(Any7()) == 2
    assert window.count("7") == window.count(2**100) == 0
    assert window.index(7) == window.index(7.0) == window.index(np.int8(7)) == 1


def test_index_takes_bounds(impl, shape):
    window = filled(impl, [1, 2, 1, 2, 1, 2], **shape)
    plain = [1, 2, 1, 2, 1, 2]
    for start in (-9, -3, 0, 1, 3, 6, 9, -(2**70), 2**70):
        for stop in (-9, -2, 0, 2, 6, 9, 2**70):
            for token in (2, 2.0):
                try:
                    expected = plain.index(token, start, stop)
                except ValueError:
                    with pytest.raises(ValueError, match="is not in the window"):
                        window.index(token, start, stop)
                else:
                    assert window.index(token, start, stop) == expected
    with pytest.raises(TypeError):
        window.index(1, "0")


def test_popping(impl):
    window = filled(impl, [1, 2, 3])
    assert (window.popleft(), window.pop(), window.pop()) == (1, 3, 2)
    for pop in (window.pop, window.popleft):
        with pytest.raises(IndexError, match="pop from an empty window"):
            pop()


def test_windows_compare_by_their_tokens(impl):
    one, two = filled(impl, [1, 2]), filled(impl, [1, 2], capacity=3, dtype="int64")
    assert one == two
    assert (one != two) is False
    two.append(3)
    assert one != two
    assert one != filled(impl, [1, 3])
    assert one != [1, 2]
    assert one != collections.deque([1, 2])
    assert one.__eq__([1, 2]) is NotImplemented
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_repr_shows_the_newest(impl):
    window = filled(impl, range(3))
    assert repr(window) == "<TokenWindow [0, 1, 2], 3 of 8 int32 tokens at position 3>"
    window = filled(impl, range(20), capacity=16)
    assert repr(window).startswith("<TokenWindow [..., 12, 13,")
    assert "16 of 16 int32 tokens at position 20" in repr(window)


def test_it_takes_weak_references(impl):
    window = filled(impl, [1])
    reference = weakref.ref(window)
    assert reference() is window


# ---- what may be added ----


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Color(enum.IntEnum):
    RED = 3


class Arraylike:
    def __init__(self, tokens):
        self.tokens = tokens

    def __array__(self, dtype=None, copy=None):
        return np.array(self.tokens)


SOURCES = {
    "list": [1, 2, 3],
    "tuple": (1, 2, 3),
    "range": range(1, 4),
    "set": {1, 2, 3},
    "dict": {1: "a", 2: "b", 3: "c"},
    "bytes": b"\x01\x02\x03",
    "bytearray": bytearray(b"\x01\x02\x03"),
    "memoryview": memoryview(b"\x01\x02\x03"),
    "strided memoryview": memoryview(b"\x01x\x02x\x03")[::2],
    "unaligned memoryview": memoryview(b"x\1\0\2\0\3\0")[1:].cast("h"),
    "array.array b": array.array("b", [1, 2, 3]),
    "array.array i": array.array("i", [1, 2, 3]),
    "array.array Q": array.array("Q", [1, 2, 3]),
    "ctypes": (ctypes.c_int16 * 3)(1, 2, 3),
    "mixed": [np.int64(1), Index(2), 3],
    "enum": [1, 2, Color.RED],
    "bools": [True, 2, 3],
    "object array": np.array([1, 2, 3], object),
    "strided array": np.array([1, 9, 2, 9, 3])[::2],
    "reversed array": np.array([3, 2, 1])[::-1],
    "unaligned array": np.frombuffer(b"x\1\0\0\0\2\0\0\0\3\0\0\0", "<i4", offset=1),
    "swapped array": np.array([1, 2, 3], ">i4"),
    "swapped other": np.array([1, 2, 3], ">u8"),
    "array subclass": np.array([1, 2, 3]).view(np.recarray),
    "arraylike": Arraylike([1, 2, 3]),
    **{f"{dtype} array": np.array([1, 2, 3], dtype) for dtype in INTEGERS},
}


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", SOURCES)
def test_any_source_of_integers(impl, name, dtype):
    window = impl.TokenWindow(5, dtype=dtype)
    for _ in range(4):
        window.extend(SOURCES[name])
    assert window.view().tolist() == [2, 3, 1, 2, 3]
    assert window.view().dtype == np.dtype(dtype)
    assert (window.position, window.evicted) == (12, 7)


def test_iterators_are_taken_to_their_end(impl):
    window = impl.TokenWindow(4)
    window.extend(token for token in range(10))
    window.extend(map(int, "12"))
    assert list(window) == [8, 9, 1, 2]


def test_a_window_extends_itself_and_another(impl, shape):
    window = filled(impl, [1, 2, 3, 4, 5], **shape)
    other = filled(impl, window, dtype="uint8")
    assert list(other) == [1, 2, 3, 4, 5]
    plain = filled(impl, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5], **shape)
    window.extend(window)
    assert window == plain
    for _ in range(50):
        window.extend(window.view())
        plain.extend(list(plain))
        window += window[2:6]
        plain += plain[2:6].tolist()
        assert window == plain


LIMITS = [(dtype, np.iinfo(dtype).min, np.iinfo(dtype).max) for dtype in INTEGERS]


@pytest.mark.parametrize(("dtype", "least", "greatest"), LIMITS)
def test_a_token_out_of_range_adds_nothing(impl, dtype, least, greatest):
    window = impl.TokenWindow(8, dtype=dtype)
    for token in (int(least), int(greatest)):
        window.append(token)
        window.extend([token, Index(token)])
        assert list(window)[-3:] == [token] * 3
    before = list(window)
    for token in (int(least) - 1, int(greatest) + 1, 10**100, -(10**100)):
        named = token if abs(token) < 2**100 else hex(token)
        for add, tokens in (
            (window.append, token),
            (window.append, Index(token)),
            (window.extend, [1, token, 2]),
            (window.extend, [1, Index(token), 2]),
            (window.extend, iter((1, 2, 3, token))),
            (window.extend, np.array([1, token], object)),
        ):
            with pytest.raises(TokenRangeError) as caught:
                add(tokens)
            assert str(caught.value) == f"token {named} does not fit {dtype}"
            assert isinstance(caught.value, OverflowError)
            assert list(window) == before
    assert (window.position, window.evicted) == (6, 0)


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize(("dtype", "least", "greatest"), LIMITS)
def test_arrays_are_checked_for_range(impl, source, dtype, least, greatest):
    edges = {int(e) + d for e in (least, greatest, 0) for d in (-1, 0, 1)}
    bounds = np.iinfo(source)
    edges |= {int(bounds.min), int(bounds.max)}
    for token in edges:
        if not bounds.min <= token <= bounds.max:
            continue
        tokens = np.array([0, 1, token, 1], source)
        window = impl.TokenWindow(8, dtype=dtype)
        if least <= token <= greatest:
            window.extend(tokens)
            assert window.view().tolist() == [0, 1, token, 1]
        else:
            with pytest.raises(TokenRangeError, match=f"^token {token} does not fit"):
                window.extend(tokens)
            assert len(window) == window.position == 0


@pytest.mark.parametrize("token", [1.0, "1", None, b"1", 1j, [1], np.float32(1)])
def test_a_token_that_is_no_integer_is_named(impl, token):
    window = filled(impl, [5])
    for add in (
        lambda: window.append(token),
        lambda: window.extend([1, token]),
        lambda: window.extend((1, token)),
        lambda: window.extend(iter([1, token])),
    ):
        with pytest.raises(TypeError) as caught:
            add()
        assert str(caught.value) == f"a token must be an integer, not {token!r}"
    assert list(window) == [5]


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (np.array([1.0]), TypeError, "tokens must be integers, not float64"),
        (np.array([]), TypeError, "tokens must be integers, not float64"),
        (np.array([True]), TypeError, "tokens must be integers, not bool"),
        (np.array(["1"]), TypeError, "tokens must be integers, not <U1"),
        (np.array([1], "m8[s]"), TypeError, "tokens must be integers, not timedelta"),
        (array.array("d", [1.0]), TypeError, "tokens must be integers, not float64"),
        (np.array(3), TypeError, "iterable, not an array of no dimension"),
        (np.int32(3), TypeError, "iterable, not an array of no dimension"),
        (np.zeros((2, 3), int), ValueError, r"one dimension, not the shape \(2, 3\)"),
        (3, TypeError, "'int' object is not iterable"),
        ("12", TypeError, "a token must be an integer, not '1'"),
        (None, TypeError, "'NoneType' object is not iterable"),
    ],
)
def test_a_source_that_is_no_integers_is_refused(impl, tokens, error, message):
    window = filled(impl, [5])
    with pytest.raises(error, match=message):
        window.extend(tokens)
    assert list(window) == [5]


def test_an_exception_of_the_source_adds_nothing(impl):
    def source():
        yield 1
        raise KeyError("mine")

    window = filled(impl, [5])
    with pytest.raises(KeyError, match="mine"):
        window.extend(source())
    with pytest.raises(KeyError, match="mine"):
        window += source()

    class Bad:
        def __index__(self):
            raise LookupError("index")

    with pytest.raises(LookupError, match="index"):
        window.append(Bad())
    with pytest.raises(LookupError, match="index"):
        window.extend([1, Bad()])
    assert list(window) == [5]


@pytest.mark.parametrize("tokens", [[], (), b"", np.array([], int), iter([]), range(0)])
def test_nothing_can_be_added(impl, shape, tokens):
    window = filled(impl, range(8), **shape)
    window.extend(tokens)
    assert (len(window), window.evicted) == (8, 0)


# ---- positions, policies ----


def test_a_token_keeps_its_position(impl):
    window = impl.TokenWindow(8, slack=3)
    for position in range(100):
        window.append(position)
        assert window[0] == window.position - len(window)
    assert (window.position, window.evicted) == (100, 92)
    assert (window.popleft(), window.position) == (92, 100)
    assert (window.pop(), window.position) == (99, 99)
    window.clear()
    assert (window.position, window.evicted, len(window)) == (99, 92, 0)
    window.append(99)
    assert window[0] == window.position - len(window)


def test_compaction_keeps_the_overlap(impl):
    window = impl.TokenWindow(6, overflow="compact", overlap=2)
    sizes = []
    for token in range(16):
        window.append(token)
        sizes.append(len(window))
    assert sizes == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4]
    assert list(window) == [12, 13, 14, 15]
    assert (window.position, window.evicted) == (16, 12)


@pytest.mark.parametrize("overflow", ["slide", "compact"])
def test_the_sink_is_pinned(impl, overflow):
    window = impl.TokenWindow(6, sink=2, overflow=overflow)
    window.extend(range(20))
    assert list(window)[:2] == [0, 1]
    assert window[-1] == 19
    while len(window) > 2:
        window.popleft()
    with pytest.raises(IndexError, match="only pinned tokens are left"):
        window.popleft()
    assert (window.pop(), window.pop(), window.position) == (1, 0, 18)
    with pytest.raises(IndexError, match="pop from an empty window"):
        window.pop()
    window.extend(range(40, 60))
    assert list(window)[:2] == [40, 41]
    window.clear()
    window.extend(range(60, 80))
    assert list(window)[:2] == [60, 61]
    assert window.position == 58


def test_extending_is_appending_one_by_one(impl, shape):
    for sizes in ([3, 3, 3], [8], [9], [100], [1, 7, 1, 30], [5, 2, 2, 2]):
        one, many = impl.TokenWindow(8, **shape), impl.TokenWindow(8, **shape)
        token = 0
        for size in sizes:
            tokens = list(range(token, token + size))
            token += size
            many.extend(tokens)
            for t in tokens:
                one.append(t)
            assert one == many
            assert (one.position, one.evicted) == (many.position, many.evicted)
            assert (one._check(), many._check()) == (0, 0)


def test_stats(impl, shape):
    window = filled(impl, range(100), **shape)
    stats = window.stats()
    assert isinstance(stats, TokenWindowStats)
    assert stats.capacity == 8
    assert stats.size == len(window)
    assert (stats.position, stats.evicted) == (100, window.evicted)
    for token in range(100):
        window.append(token)
    assert window.stats().generations > stats.generations
    assert stats.bytes >= 8 * 4


def read_now_and_then(window, tokens, every):
    """Add tokens one by one; as in a loop, each array is let go when the next comes."""
    view = None
    for i in range(tokens):
        window.append(i)
        if i % every == 0:
            view = window.view()
    return view


def test_native_memory_is_what_is_said():
    native = pytest.importorskip("ctxpool._native.token_window")
    window = native.TokenWindow(1000, dtype="int16")
    read_now_and_then(window, 30_000, 1)
    read_now_and_then(window, 30_000, 499)
    assert window.stats().bytes == 4000 * 2
    assert window.stats().generations == 59_000 // 3_000
    held = read_now_and_then(window, 100, 50)
    read_now_and_then(window, 30_000, 100)
    assert window.stats().bytes == 4000 * 2  # and what `held` keeps
    del held
    assert window.stats().bytes == 2 * 4000 * 2  # kept as the spare
    read_now_and_then(window, 30_000, 100)
    assert window.stats().bytes == 2 * 4000 * 2


def test_native_memory_with_little_slack():
    native = pytest.importorskip("ctxpool._native.token_window")
    window = native.TokenWindow(1000, slack=1000, dtype="int16")
    for i in range(5_000):
        window.append(i)
        window.view()
    assert window.stats().bytes == 2 * 2000 * 2
    held = [read_now_and_then(window, 2_001, 2_000) for _ in range(5)]
    assert window.stats().bytes == 2 * 2000 * 2
    del held
    assert window.stats().bytes == 3 * 2000 * 2  # with a spare


@pytest.mark.parametrize("after", [1, 100, 1_000, 2_500, 3_999])
def test_an_array_kept_for_long_never_changes(impl, after):
    window = impl.TokenWindow(1000)
    window.extend(range(after))
    kept = window.view(), window.last(7)
    before = [shown.tolist() for shown in kept]
    for first in range(after, after + 40_000, 700):
        window.extend(range(first, first + 700))
        assert [shown.tolist() for shown in kept] == before
        assert window.view()[-1] == first + 699


# ---- arrays ----


def test_views_are_zero_copy_and_read_only(impl):
    window = filled(impl, range(8))
    view = window.view()
    assert view.tolist() == list(range(8))
    assert np.shares_memory(view, window.view())
    assert np.shares_memory(view, window.last(3))
    assert view.flags.c_contiguous
    assert view.flags.aligned
    assert not view.flags.owndata
    for array_ in (view, window.last(3), window[1:4], window.windows(3, 2), view[2:]):
        assert not array_.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array_[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array_.flags.writeable = True


def test_views_with_a_sink_are_read_only(impl):
    for overflow in ("slide", "compact"):
        window = filled(impl, range(20), sink=3, overflow=overflow)
        for array_ in (window.view(), window.last(6), window.last(2)):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array_.flags.writeable = True
        assert window.view().tolist() == list(window)
        assert window.view() is not window.view()  # the array object is the caller's


@pytest.mark.parametrize("size", [0, 1, 5, 8, 9, 2**70, np.int8(3)])
def test_last(impl, shape, size):
    window = filled(impl, range(30), **shape)
    assert window.last(size).tolist() == list(window)[max(len(window) - size, 0) :]


def test_last_refuses_what_is_no_count(impl):
    window = filled(impl, range(3))
    with pytest.raises(ValueError, match="n must be at least 0, not -1"):
        window.last(-1)
    with pytest.raises(TypeError, match=r"n must be an integer, not 1\.0"):
        window.last(1.0)


@pytest.mark.parametrize("length", range(9))
def test_windows(impl, shape, length):
    window = filled(impl, range(length), **shape)
    plain = list(range(length))
    for size in (1, 2, 3, 8, 100):
        for stride in (1, 2, 3, 100, 2**80):
            rows = [
                plain[i : i + size] for i in range(0, max(length - size + 1, 0), stride)
            ]
            got = window.windows(size, stride)
            assert got.shape == (len(rows), size)
            assert got.tolist() == rows
            assert not got.flags.writeable
    if length > 2 and not window.sink:
        assert np.shares_memory(window.windows(2), window.view())


def test_windows_refuses_what_is_no_size(impl):
    window = filled(impl, range(5))
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        window.windows(0)
    with pytest.raises(ValueError, match="stride must be at least 1, not -1"):
        window.windows(2, -1)
    with pytest.raises(TypeError, match="size must be an integer, not 'a'"):
        window.windows("a")


def test_numpy_takes_a_window_as_it_is(impl):
    window = filled(impl, range(8))
    assert np.shares_memory(np.asarray(window), window.view())
    assert np.asarray(window, "float64").dtype == np.float64
    copied = np.array(window, copy=True)
    copied[0] = 9
    assert not np.shares_memory(copied, window.view())
    assert window.__array__(copy=False).tolist() == list(range(8))
    with pytest.raises(ValueError, match="uncopied"):
        window.__array__("float64", copy=False)


def test_a_view_stays_what_it_was(impl, shape):
    window = impl.TokenWindow(16, **{"slack": 7, **shape})
    shown = []
    for step in range(400):
        window.extend(range(step, step + step % 19))
        if step % 7 == 0 and len(window) > 3:
            window.pop()
            window.append(-step)
        if step % 11 == 0 and len(window) > 3:
            window.popleft()
        if step % 97 == 0:
            window.clear()
        for got in (window.view(), window.last(5), window[::-2], window.windows(2, 3)):
            shown.append((got, got.copy()))
        assert window._check() == 0
    assert all((got == was).all() for got, was in shown)
    del window
    assert all((got == was).all() for got, was in shown)


def test_a_popped_token_that_was_shown_is_not_rewritten(impl, shape):
    window = filled(impl, [1, 2, 3], **shape)
    view = window.view()
    window.pop()
    window.append(9)
    assert view.tolist() == [1, 2, 3]
    assert list(window) == [1, 2, 9]
    assert window.view().tolist() == [1, 2, 9]


def test_pop_and_append_unseen_needs_no_new_buffer(impl):
    window = filled(impl, [1, 2, 3])
    for token in range(1000):
        window.pop()
        window.append(token)
        assert token in window
        assert window.count(token) >= 1
    assert list(window) == [1, 2, 999]
    if impl.backend == "native":  # its searches show nothing to anybody
        assert window.stats().generations == 0


def test_a_view_keeps_its_buffer_and_not_the_window(impl):
    window = filled(impl, range(8))
    reference, view = weakref.ref(window), window.view()
    del window
    assert reference() is None
    assert view.tolist() == list(range(8))


# ---- text, copies ----


def test_text(impl):
    window = filled(impl, b"a little text")
    assert window.text(lambda tokens: bytes(tokens).decode()) == "tle text"
    assert window.text(lambda tokens: type(tokens).__name__) == "list"
    with pytest.raises(TypeError, match="decode must give text, not b'x'"):
        window.text(lambda tokens: b"x")


def test_copies_are_independent(impl, shape):
    window = filled(impl, range(30), **shape)
    window.pop()
    for twin in (
        window.copy(),
        copy.copy(window),
        copy.deepcopy(window),
        *(
            pickle.loads(pickle.dumps(window, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ):
        assert twin == window
        assert type(twin) is type(window)
        for name in (*PARAMETERS, "position", "evicted"):
            assert getattr(twin, name) == getattr(window, name), name
        twin.append(-1)
        assert (len(window), window[-1]) == (len(list(window)), 28)
        other = window.copy()
        other.append(-1)
        assert other == twin
        assert twin._check() == 0


class Named:
    """Mixed into a subclass of either implementation."""

    def __init__(self, name):
        super().__init__(4, dtype="int64")
        self.name = name


def test_subclasses_keep_their_type(impl):
    class Window(Named, impl.TokenWindow):
        pass

    Window.__qualname__ = Window.__name__ = f"Window_{impl.backend}"
    globals()[Window.__name__] = Window
    window = Window("mine")
    window.extend(range(10))
    for twin in (
        window.copy(),
        copy.copy(window),
        copy.deepcopy(window),
        pickle.loads(pickle.dumps(window)),
    ):
        assert type(twin) is Window
        assert twin.name == "mine"
        assert list(twin) == [6, 7, 8, 9]
        twin.name = "other"
    assert window.name == "mine"
    assert repr(window).startswith(f"<{Window.__name__} [")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state[:2],
        lambda state: ({**state[0], "capacity": 0}, *state[1:]),
        lambda state: ({**state[0], "capacity": 2}, *state[1:]),
        lambda state: ({**state[0], "color": 2}, *state[1:]),
        lambda state: (state[0], np.array([2**40]), *state[2:]),
        lambda state: (state[0], [1.5], *state[2:]),
        lambda state: (state[0], state[1], 1, *state[3:]),
        lambda state: (state[0], state[1], state[2], -1, None),
        lambda state: (state[0], state[1], "9", 1, None),
        lambda state: None,
    ],
)
def test_a_rotten_pickle_is_an_error(impl, change):
    make, args, state = filled(impl, range(20)).__reduce__()
    window = make(*args)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        window.__setstate__(change(state))


# ---- the twins ----

METHODS = ["append", "clear", "copy", "count", "extend", "index", "last", "pop"]
METHODS += ["popleft", "stats", "text", "view", "windows"]
PARAMETERS = ["capacity", "overlap", "sink", "slack", "dtype", "overflow", "on_evict"]
NAMES = sorted([*METHODS, *PARAMETERS, "evicted", "maxlen", "position"])


def test_the_twins_are_alike():
    native = pytest.importorskip("ctxpool._native.token_window").TokenWindow
    from ctxpool._pure.token_window import TokenWindow as pure

    for cls in (native, pure):
        assert sorted(name for name in dir(cls) if not name.startswith("_")) == NAMES
    assert inspect.getdoc(native) == inspect.getdoc(pure)
    assert inspect.getdoc(native.__copy__) == inspect.getdoc(pure.__copy__)
    for name in NAMES:
        assert inspect.getdoc(getattr(native, name)) == inspect.getdoc(
            getattr(pure, name)
        )
        if callable(getattr(pure, name)):
            assert _shape(getattr(native, name)) == _shape(getattr(pure, name)), name
    assert _shape(native) == _shape(pure)


def _shape(function):
    # An unbound native method takes its self by position only.
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters if p.name != "self"]


def test_examples_run(impl):
    failed, attempted = doctest.testmod(sys.modules[impl.TokenWindow.__module__])
    assert failed == 0
    assert attempted > 10
