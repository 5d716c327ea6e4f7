"""Callbacks that re-enter, threads, forks, leaks: nothing is lost and nothing dies."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

ISOLATED = Path(__file__).parents[1] / "isolated"

SHAPES = {
    "slide": {},
    "compact": {"overflow": "compact", "overlap": 1},
    "slide sink": {"sink": 1},
    "compact sink": {"overflow": "compact", "overlap": 1, "sink": 1},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request):
    return request.param


# ---- on_evict ----


def test_on_evict_is_shown_the_tokens_before_they_are_gone(impl):
    told = []

    def tell(tokens):
        told.append(tokens)
        assert list(window) == [1, 2, 3, 4]
        assert window.evicted == 0
        assert not tokens.flags.writeable
        assert np.shares_memory(tokens, window.view())

    window = impl.TokenWindow(4, on_evict=tell)
    window.extend([1, 2, 3, 4])
    assert told == []
    window.extend([5, 6])
    assert [t.tolist() for t in told] == [[1, 2]]
    assert list(window) == [3, 4, 5, 6]
    assert told[0].dtype == window.dtype


@pytest.mark.parametrize("fill", [0, 1, 3, 4])
@pytest.mark.parametrize("more", [0, 1, 2, 4, 5, 30])
def test_an_extend_is_told_of_once_and_in_order(impl, shape, fill, more):
    told = []
    window = impl.TokenWindow(4, on_evict=told.append, **shape)
    window.extend(range(fill))
    window.extend(range(fill, fill + more))
    assert len(told) <= 1
    everything = [t for tokens in told for t in tokens.tolist()] + list(window)
    if window.sink and window:
        assert window[0] == 0
    assert sorted(everything) == list(range(fill + more))
    assert window.evicted == sum(map(len, told))
    assert [t for t in everything if t] == [t for t in range(fill + more) if t]
    if told:
        with pytest.raises(ValueError, match="WRITEABLE"):
            told[0].flags.writeable = True


def test_taking_tokens_out_is_no_eviction(impl, shape):
    told = []
    window = impl.TokenWindow(4, on_evict=told.append, **shape)
    window.extend(range(4))
    window.popleft()
    window.pop()
    window.clear()
    assert told == []
    assert window.evicted == 0


def test_an_exception_of_on_evict_loses_nothing(impl, shape):
    def refuse(tokens):
        raise LookupError(tokens.tolist())

    window = impl.TokenWindow(4, on_evict=refuse, **shape)
    window.extend(range(4))
    for add in (
        lambda: window.append(9),
        lambda: window.extend([9]),
        lambda: window.extend(np.arange(100)),
        lambda: window.extend(iter(range(5))),
    ):
        with pytest.raises(LookupError):
            add()
        assert list(window) == [0, 1, 2, 3]
        assert (window.position, window.evicted) == (4, 0)
    assert window._check() == 0


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda w: w.clear(), [9]),
        (lambda w: w.popleft(), [1, 2, 3, 9]),
        (lambda w: (w.popleft(), w.popleft()), [2, 3, 9]),
        # the token that was shown goes all the same, the popped one stays popped
        (lambda w: w.pop(), [1, 2, 9]),
        (lambda w: [w.pop() for _ in range(4)], [9]),
        # positions used again: 7 and 8 were never shown
        (lambda w: [w.pop() for _ in range(4)] and w.extend([7, 8]), [7, 8, 9]),
        (lambda w: w.clear() or w.extend([7, 8]), [7, 8, 9]),
        (lambda w: w.view(), [1, 2, 3, 9]),
        (lambda w: list(w) and w.copy(), [1, 2, 3, 9]),
    ],
)
def test_on_evict_may_use_the_window(impl, action, expected):
    window = impl.TokenWindow(4, on_evict=lambda tokens: action(window))
    window.extend(range(4))
    window.append(9)
    assert list(window) == expected
    assert window._check() == 0


def test_on_evict_that_adds_is_told_of_what_it_pushes_out(impl):
    told = []

    def tell(tokens):
        told.extend(tokens.tolist())
        if tokens[0] == 0:
            window.clear()
            window.extend([50, 51, 52, 53])

    window = impl.TokenWindow(4, on_evict=tell)
    window.extend(range(4))
    window.extend([9, 10])
    assert told == [0, 1, 50, 51]
    assert list(window) == [52, 53, 9, 10]


def test_on_evict_that_always_fills_the_window_ends(impl):
    window = impl.TokenWindow(
        4, on_evict=lambda tokens: window.clear() or window.extend(range(4))
    )
    window.extend(range(4))
    with pytest.raises(RuntimeError, match="filled the window again, 100 times over"):
        window.append(9)
    assert list(window) == [0, 1, 2, 3]


def test_on_evict_that_always_appends_ends(impl):
    window = impl.TokenWindow(4, on_evict=lambda tokens: window.append(1))
    window.extend(range(4))
    with pytest.raises(RecursionError):
        window.append(9)
    assert window._check() == 0
    assert len(window) == 4


def test_on_evict_that_does_anything(impl, shape):
    import random

    chance = random.Random(3)

    def anything(tokens):
        shown.append((tokens, tokens.tolist()))
        for _ in range(chance.randrange(3)):
            match chance.randrange(7):
                case 0:
                    window.clear()
                case 1 if window:
                    window.pop()
                case 2 if len(window) > window.sink:
                    window.popleft()
                case 3 if len(window) < 10:
                    window.append(1)
                case 4 if len(window) < 8:
                    window.extend([1, 2, 3])
                case 5:
                    shown.append((window.view(), window.view().tolist()))
                case 6:
                    raise KeyError("any")
        assert window._check() == 0

    shown = []
    window = impl.TokenWindow(16, on_evict=anything, slack=3, **shape)
    for step in range(3000):
        try:
            if chance.randrange(2):
                window.append(step)
            else:
                window.extend(range(chance.randrange(40)))
        except KeyError:
            pass
        assert window._check() == 0
    assert all(got.tolist() == was for got, was in shown)


# ---- hostile input ----


def test_index_that_uses_the_window(impl, shape):
    class Meddler:
        def __index__(self):
            window.clear()
            window.extend(range(3))
            tokens.clear()
            return 7

    window = impl.TokenWindow(4, **shape)
    tokens = [Meddler(), 5, Meddler()]
    window.append(tokens[0])
    assert list(window)[-1] == 7
    tokens[:] = [Meddler(), 5, Meddler()]
    window.extend(tokens)
    assert list(window)[-3:] == [7, 5, 7]
    assert window._check() == 0


def test_iterator_that_uses_the_window(impl, shape):
    def tokens():
        for token in range(10):
            window.append(token)
            window.view()
            yield token
            window.clear()

    window = impl.TokenWindow(4, **shape)
    window.extend(tokens())
    assert window[-1] == 9
    assert window._check() == 0


def test_equality_that_uses_the_window(impl, shape):
    class Meddler:
        def __eq__(self, other):
            window.clear()
            window.extend(range(20, 40))
            return other == 3

        __hash__ = None

    searches = [
        lambda window: Meddler() in window,
        lambda window: window.count(Meddler()) == 1,
        lambda window: window.index(Meddler()) == 3,
    ]
    for search in searches:
        window = impl.TokenWindow(4, **shape)
        window.extend(range(4))
        assert search(window)


def test_a_window_in_a_cycle_is_collected(impl):
    import weakref

    class Owner:
        def __init__(self):
            self.window = impl.TokenWindow(4, on_evict=self.told)

        def told(self, tokens):
            self.tokens = tokens

    owner = Owner()
    owner.window.extend(range(100))
    reference = weakref.ref(owner)
    del owner
    gc.collect()
    assert reference() is None


def test_a_window_that_holds_itself_is_collected(impl):
    import weakref

    class Window(impl.TokenWindow):
        def __init__(self):
            super().__init__(4, on_evict=self.told)

        def told(self, tokens):
            self.tokens = tokens

        def __del__(self):
            self.extend(range(9))
            assert self.view().tolist() == [5, 6, 7, 8]
            ended.append(self.position)

    ended = []
    window = Window()
    window.extend(range(100))
    reference = weakref.ref(window)
    del window
    gc.collect()
    assert reference() is None
    assert ended == [109]


# ---- threads ----


def run_together(*jobs, times=2):
    errors = []
    barrier = threading.Barrier(len(jobs) * times)

    def run(job):
        try:
            barrier.wait(30)
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs * times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def gil_is_off():
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_threads_append_and_view(impl, shape):
    was_off = gil_is_off()
    window = impl.TokenWindow(64, slack=16, **shape)
    rounds = 1500

    def append():
        for i in range(rounds):
            window.append(i)

    def extend():
        for _ in range(rounds // 10):
            window.extend([1, 2, 3, 4, 5])
            window.extend(np.arange(5))

    def look():
        for _ in range(rounds):
            view = window.view()
            was = view.copy()
            assert len(view) <= 64
            assert len(window.last(10)) <= 10
            assert (view == was).all()
            _ = 3 in window, window.position, window.stats()

    run_together(append, extend, look)
    assert window.position == 2 * (rounds + rounds // 10 * 10)
    assert window.evicted == window.position - len(window)
    assert window._check() == 0
    assert gil_is_off() == was_off


def test_threads_take_each_token_once(impl):
    window = impl.TokenWindow(100_000)
    taken = []
    done = threading.Event()

    def give():
        for i in range(4000):
            window.append(i)

    def take():
        mine = []
        while not done.is_set() or window:
            try:
                mine.append(window.popleft())
            except IndexError:
                continue
        taken.extend(mine)

    takers = [threading.Thread(target=take) for _ in range(2)]
    for thread in takers:
        thread.start()
    run_together(give)
    done.set()
    for thread in takers:
        thread.join(60)
    assert sorted(taken) == sorted(list(range(4000)) * 2)


def test_threads_change_the_list_that_is_added(impl):
    window = impl.TokenWindow(1000)
    tokens = list(range(100))
    stop = threading.Event()

    def meddle():
        try:
            for i in range(300):
                tokens[:] = list(range(i % 200))
                tokens.append(1)
        finally:
            stop.set()

    def add():
        while not stop.is_set():
            window.extend(tokens)

    run_together(meddle, add)
    assert window._check() == 0


def test_threads_and_on_evict(impl):
    told = []
    window = impl.TokenWindow(8, on_evict=lambda tokens: told.append(len(tokens)))

    def append():
        for i in range(1000):
            window.append(i)

    run_together(append)
    assert window.position == 2000
    assert window.evicted == 2000 - 8
    assert sum(told) >= window.evicted
    assert window._check() == 0


# ---- processes ----


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_goes_on_with_its_own(impl, shape):
    window = impl.TokenWindow(8, **shape)
    window.extend(range(8))
    view = window.view()
    pid = os.fork()
    if pid == 0:
        try:
            ok = view.tolist() == list(range(8))
            window.extend(range(100, 200))
            ok = ok and view.tolist() == list(range(8)) and window[-1] == 199
            os._exit(0 if ok else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(window) == view.tolist() == list(range(8))
    window.append(9)
    assert view.tolist() == list(range(8))


@pytest.mark.parametrize(
    "script", sorted(p.name for p in ISOLATED.glob("token_window_*.py"))
)
def test_isolated(impl, script):
    done = subprocess.run(
        [sys.executable, ISOLATED / script, impl.backend],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "fine"
    assert "Error" not in done.stderr
