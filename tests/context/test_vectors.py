"""The indices: what a dict of vectors would say, files, threads."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ctxpool.context import (
    AutoIndex,
    FlatIndex,
    HNSWIndex,
    VectorIndex,
    load_index,
    vectors,
)
from ctxpool.errors import StoreError

try:
    import usearch  # noqa: F401
except ImportError:
    graph = False
else:
    graph = True

needs_graph = pytest.mark.skipif(not graph, reason="needs usearch")
KINDS = {
    "flat": FlatIndex,
    "auto": lambda d: AutoIndex(d, above=8, below=4),
    "graph": HNSWIndex,
}
kinds = pytest.mark.parametrize(
    "kind", ["flat", "auto", pytest.param("graph", marks=needs_graph)]
)
TOLERANCE = 3e-3  # half precision


def random_rows(n, dimensions=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")


class Machine(RuleBasedStateMachine):
    """Against a dict of vectors, searched by NumPy."""

    make = None
    ids = st.one_of(st.integers(0, 12), st.sampled_from("abcdef"))
    numbers = st.lists(st.integers(-3, 3), min_size=4, max_size=4)

    @initialize()
    def begin(self):
        self.index = type(self).make(4)
        self.model = {}

    @rule(items=st.lists(st.tuples(ids, numbers), max_size=6))
    def add(self, items):
        self.index.add(
            [id for id, _ in items], np.reshape([v for _, v in items], (-1, 4))
        )
        for id, vector in items:
            row = np.array(vector, "f8")
            self.model[id] = row / (np.linalg.norm(row) or 1)

    @rule(ids=st.lists(ids, max_size=6))
    def remove(self, ids):
        known = set(ids) & set(self.model)
        assert self.index.remove(ids) == len(known)
        for id in known:
            del self.model[id]

    def agrees(self, found, query, k, ids):
        row = np.array(query, "f8")
        row /= np.linalg.norm(row) or 1
        expected = sorted((float(self.model[id] @ row) for id in ids), reverse=True)
        assert len({id for id, _ in found}) == len(found) == min(k, len(expected))
        for (id, similarity), best in zip(found, expected, strict=False):
            assert similarity == pytest.approx(best, abs=TOLERANCE)
            assert similarity == pytest.approx(self.model[id] @ row, abs=TOLERANCE)

    @rule(query=numbers, k=st.integers(1, 20))
    def search(self, query, k):
        self.agrees(self.index.search(query, k), query, k, list(self.model))
        (found,) = self.index.search_many([query], k)
        self.agrees(found, query, k, list(self.model))

    @rule(query=numbers, k=st.integers(1, 20), ids=st.sets(ids, max_size=8))
    def search_among(self, query, k, ids):
        found = self.index.search(query, k, among=ids)
        self.agrees(found, query, k, ids & set(self.model))

    @precondition(lambda self: isinstance(self.index, AutoIndex))
    @rule()
    def settle(self):
        self.index.settle()

    @invariant()
    def same_content(self):
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.model)
        assert set(self.index) == set(self.model)
        ids = list(self.model)
        assert all(id in self.index for id in ids)
        expected = np.array([self.model[id] for id in ids]).reshape(-1, 4)
        assert self.index.get(ids) == pytest.approx(expected, abs=TOLERANCE)


@kinds
def test_as_a_dict_of_vectors(kind):
    made = type("Made", (Machine,), {"make": staticmethod(KINDS[kind])})
    run_state_machine_as_test(
        made, settings=settings(max_examples=25, stateful_step_count=25)
    )


@kinds
def test_it_is_an_index(kind):
    index = KINDS[kind](3)
    assert isinstance(index, VectorIndex)
    assert len(index) == 0
    assert index.search([1, 0, 0], 5) == []
    assert index.search([1, 0, 0], 5, among=["none"]) == []
    assert index.search_many([[1, 0, 0]], 2) == [[]]
    assert index.get([]).shape == (0, 3)
    assert "0 vectors of 3" in repr(index)
    index.add([1, "one"], [[2, 0, 0], [0, 0, 0]])
    assert index.search([5, 0, 0], 2) == [(1, 1.0), ("one", 0.0)]
    assert index.nbytes > 0
    with pytest.raises(KeyError):
        index.get(["none"])


@kinds
@pytest.mark.parametrize(
    ("ids", "vectors", "error", "says"),
    [
        ("ab", [[1, 2], [3, 4]], TypeError, "not one: 'ab'"),
        (7, [[1, 2]], TypeError, "not 7"),
        ([1.5], [[1, 2]], TypeError, "not 1.5"),
        ([True], [[1, 2]], TypeError, "not True"),
        ([1], [[1, 2, 3]], ValueError, r"\(1, 2\) are needed, not \(1, 3\)"),
        ([1, 2], [[1, 2]], ValueError, r"\(2, 2\) are needed, not \(1, 2\)"),
        ([1], [1, 2], ValueError, "are needed"),
        ([1, 2], [[1, 2], [np.nan, 1]], ValueError, "vector 1 holds"),
        ([1], [[1e300, 1]], ValueError, "not finite"),
        ([1], [["x", "y"]], ValueError, "x"),
    ],
)
def test_bad_vectors_change_nothing(kind, ids, vectors, error, says):
    index = KINDS[kind](2)
    index.add([1], [[1, 0]])
    with pytest.raises(error, match=says):
        index.add(ids, vectors)
    assert list(index) == [1]
    assert index.get([1]).tolist() == [[1, 0]]


@kinds
def test_bad_questions(kind):
    index = KINDS[kind](2)
    with pytest.raises(ValueError, match=r"shape \(2,\) is needed, not \(3,\)"):
        index.search([1, 2, 3], 1)
    with pytest.raises(ValueError, match="not finite"):
        index.search([1, np.inf], 1)
    with pytest.raises(ValueError, match="k must be from 1"):
        index.search([1, 2], 0)
    with pytest.raises(TypeError, match="k must be a whole number"):
        index.search([1, 2], "3")
    with pytest.raises(ValueError, match="dimensions must be from 1"):
        KINDS[kind](0)


@pytest.mark.parametrize(
    "id", [np.int64(3), np.uint8(3), type("Text", (str,), {})("t")]
)
def test_ids_become_plain_ones(id):
    index = FlatIndex(1)
    index.add([id], [[1]])
    ((found, _),) = index.search([1], 1)
    assert type(found) in (int, str)
    assert found == id


def test_products_without_blas_are_the_same():
    rows = random_rows(50)
    expected = pytest.approx(rows @ rows[3], abs=1e-6)
    assert vectors._einsum(rows, rows[3]) == expected  # as with NumPy 1
    assert vectors.similarities(rows, rows[3]) == expected


def test_flat_gives_memory_back():
    index = FlatIndex(8)
    empty = index.nbytes
    index.add(range(5000), random_rows(5000, 8))
    assert index.nbytes <= 5000 * 8 * 4 * 1.5
    index.remove(range(4999))
    assert index.nbytes == empty
    assert index.get([4999]) == pytest.approx(random_rows(5000, 8)[4999:], abs=1e-6)


@given(n=st.integers(1, 60), k=st.integers(1, 70), among=st.integers(0, 60))
@settings(max_examples=40)
def test_flat_is_exact(n, k, among):
    rows = random_rows(n, seed=n)
    index = FlatIndex(16)
    index.add(range(n), rows)
    query = random_rows(1, seed=1000 + n)[0]
    order = np.argsort(-(rows @ query), kind="stable").tolist()
    assert [id for id, _ in index.search(query, k)] == order[:k]
    some = [id for id in order if id < among]
    assert [id for id, _ in index.search(query, k, among=range(among))] == some[:k]


@pytest.mark.parametrize("kind", [FlatIndex, AutoIndex])
def test_room_from_the_start(kind):
    index = kind(8, capacity=1000)
    before = index.nbytes
    index.add(range(1000), random_rows(1000, 8))
    index.remove(range(999))
    assert index.nbytes == before == 1000 * 8 * 4
    with pytest.raises(ValueError, match="capacity must be from 1"):
        kind(8, capacity=0)


@needs_graph
def test_graph_finds_nearly_all():
    rows = random_rows(2000, 32)
    index, exact = HNSWIndex(32, expansion_search=256), FlatIndex(32)
    for each in (index, exact):
        each.add(range(2000), rows)
        each.remove(range(0, 2000, 3))
    queries = random_rows(40, 32, seed=1)
    both = (each.search_many(queries, 10) for each in (index, exact))
    pairs = zip(*both, strict=True)
    shared = [len({i for i, _ in a} & {i for i, _ in b}) for a, b in pairs]
    assert np.mean(shared) >= 9.4


@needs_graph
def test_auto_moves_by_steps_and_back():
    index = AutoIndex(8, above=100, below=40)
    rows = random_rows(400, 8)
    for n in range(100):
        index.add([n], rows[n : n + 1])
    assert not index.stats().large
    assert index.stats().graph == 0
    for n in range(100, 202):
        before = index.stats().graph
        index.add([n], rows[n : n + 1])
        assert index.stats().graph - before <= 2
    stats = index.stats()
    assert (stats.large, stats.flat, stats.graph, stats.switches) == (True, 0, 202, 1)
    assert index.search(rows[7], 1)[0][0] == 7
    index.remove(range(160))
    assert index.stats().large  # it has 42
    index.remove(range(160, 165))
    stats = index.stats()
    assert (stats.large, stats.switches) == (False, 2)
    assert stats.flat + stats.graph == 37
    index.settle()
    assert index.stats().graph == 0
    assert stats.as_dict()["available"] is True


def test_auto_without_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    index = AutoIndex(2, above=2)
    index.add(range(9), random_rows(9, 2))
    stats = index.stats()
    assert (stats.available, stats.large, stats.flat) == (False, False, 9)
    index.settle()
    assert len(index.search([1, 0], 9)) == 9


def test_graph_without_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "ctxpool\[vectors\]"'):
        HNSWIndex(2)


@kinds
def test_saved_and_loaded(kind, tmp_path):
    index, path = KINDS[kind](16), tmp_path / "index"
    index.save(path)
    assert len(load_index(path)) == 0
    rows = random_rows(30)
    index.add([*range(29), "last \ud800"], rows)
    index.remove([0, 5])
    index.save(path)
    loaded = load_index(path)
    assert type(loaded) is type(index)
    assert set(loaded) == set(index)
    query = random_rows(1, seed=5)[0]
    assert loaded.search(query, 5) == index.search(query, 5)
    loaded.add([99], rows[:1])
    loaded.remove([7])
    assert len(loaded) == 28
    assert len(list(tmp_path.iterdir())) == 1


@kinds
def test_damage_is_found(kind, tmp_path):
    index, path = KINDS[kind](4), tmp_path / "index"
    index.add(range(12), random_rows(12, 4))
    index.save(path)
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 61), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        with pytest.raises(StoreError):
            load_index(path)
        path.write_bytes(whole[:place])
        with pytest.raises(StoreError):
            load_index(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(StoreError, match="not as long"):
        load_index(path)


def test_no_file_and_no_folder(tmp_path):
    with pytest.raises(StoreError, match="can't be read"):
        load_index(tmp_path / "none")
    with pytest.raises(StoreError, match="can't be written"):
        FlatIndex(2).save(tmp_path / "none" / "index")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    index, path = FlatIndex(2), tmp_path / "index"
    index.add([1], [[1, 0]])
    index.save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    index.add([2], [[1, 0]])
    with pytest.raises(StoreError, match="disk full"):
        index.save(path)
    assert list(load_index(path)) == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


@kinds
def test_threads(kind):
    index = KINDS[kind](8)
    index.add(range(1000, 1040), random_rows(40, 8))
    barrier, errors = threading.Barrier(4), []

    def work(number):
        rows = random_rows(40, 8, seed=number)
        try:
            barrier.wait(10)
            for n in range(40):
                index.add([40 * number + n], rows[n : n + 1])
                found = index.search(rows[n], 50)
                assert found[0][1] == pytest.approx(1, abs=TOLERANCE)
                assert len({id for id, _ in found}) == len(found) >= 30
                if n % 2:
                    index.remove([40 * number + n])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert len(index) == 40 + 4 * 20
