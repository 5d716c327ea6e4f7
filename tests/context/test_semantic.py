"""Entities and relations: intervals, caches, paths, forgetting, threads, files."""

import os
import sys
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ctxpool.context import Fact, Mention, SemanticMemory
from ctxpool.errors import DamagedStoreError, StoreClosedError, StoreError

ENTITIES = ["a", "b", "c", "d", "e"]
TIMES = list(range(12))


@pytest.fixture
def memory():
    with SemanticMemory(clock=lambda: 100.0) as made:
        yield made


def triples(relations):
    return [(r.subject, r.predicate, r.object) for r in relations]


# --- intervals ------------------------------------------------------------------------


def test_a_new_value_closes_the_old_one(memory):
    memory.add("Ada", "lives in", "Paris", valid_from=10)
    new = memory.add("ada", "lives_in", "Lisbon", valid_from=20)
    assert triples([new]) == [("Ada", "lives_in", "Lisbon")]
    assert triples(memory.relations("ADA", at=15)) == [("Ada", "lives_in", "Paris")]
    assert triples(memory.relations("Ada")) == [("Ada", "lives_in", "Lisbon")]
    old, _ = memory.relations("Ada", history=True)
    assert (old.valid_from, old.valid_to) == (10, 20)
    assert not old.holds(20)
    assert old.holds(10)


def test_what_is_not_functional_adds_up(memory):
    memory.add("Ada", "likes", "tea")
    memory.add("Ada", "likes", "jazz")
    assert len(memory.relations("Ada")) == 2
    memory.add("x", "port", "80", functional=True)
    memory.add("x", "port", "81", functional=True)
    assert triples(memory.relations("x")) == [("x", "port", "81")]


def test_what_arrives_late_ends_where_the_next_one_began(memory):
    memory.add("Ada", "lives_in", "Lisbon", valid_from=20)
    late = memory.add("Ada", "lives_in", "Paris", valid_from=10)
    assert (late.valid_from, late.valid_to) == (10, 20)
    assert triples(memory.relations("Ada")) == [("Ada", "lives_in", "Lisbon")]


def test_said_again_it_is_surer(memory):
    first = memory.add("a", "likes", "b", confidence=0.5, sources="m1")
    again = memory.add("a", "likes", "b", confidence=0.9, sources=["m2", "m1"])
    assert again.id == first.id
    assert (again.confidence, again.sources) == (0.9, ("m2", "m1"))
    assert memory.add("a", "likes", "b", confidence=0.1).confidence == 0.9


def test_retracted_it_is_history(memory):
    memory.add("a", "likes", "b", valid_from=1)
    memory.add("a", "uses", "c", valid_from=1)
    assert memory.retract("a", "likes", at=50) == 1
    assert memory.retract("a", "likes", at=50) == 0
    assert memory.retract("nobody") == 0
    assert triples(memory.relations()) == [("a", "uses", "c")]
    assert len(memory.relations(at=49)) == 2
    assert memory.retract("a") == 1
    memory.add("a", "likes", "b")
    assert len(memory.relations("a", "likes", history=True)) == 2


class Intervals(RuleBasedStateMachine):
    """Against a list of intervals, and each cached answer against the file's."""

    def __init__(self):
        super().__init__()
        self.memory = SemanticMemory(
            functional=["is_in"], cache_relations=0, clock=lambda: 5.0
        )
        self.model = []  # subject, predicate, object, from, to

    def teardown(self):
        self.memory.close()

    @rule(
        s=st.sampled_from(ENTITIES),
        p=st.sampled_from(["is_in", "likes"]),
        o=st.sampled_from(ENTITIES),
        t=st.sampled_from(TIMES),
        lasting=st.none() | st.integers(1, 6),
    )
    def add(self, s, p, o, t, lasting):
        end = None if lasting is None else t + lasting
        self.memory.add(s, p, o, valid_from=t, valid_to=end)
        slot = sorted(
            (
                row
                for row in self.model
                if row[:2] == [s, p] and (p == "is_in" or row[2] == o)
            ),
            key=lambda row: row[3],
        )
        end = float("inf") if end is None else end
        for row in slot:
            if row[3] > t:
                end = min(end, row[3])
                break
            if row[3] <= t < row[4]:
                if row[2] == o:
                    row[4] = min(row[4], end)
                    return
                row[4] = t
        self.model.append([s, p, o, t, end])

    @rule(
        s=st.sampled_from(ENTITIES),
        p=st.sampled_from([None, "is_in", "likes"]),
        t=st.sampled_from(TIMES),
    )
    def retract(self, s, p, t):
        gone = self.memory.retract(s, p, at=t)
        rows = [
            row
            for row in self.model
            if row[0] == s and p in (None, row[1]) and row[3] <= t < row[4]
        ]
        assert gone == len(rows)
        for row in rows:
            row[4] = t

    @rule(e=st.sampled_from(ENTITIES))
    def forget(self, e):
        self.memory.forget(e)
        self.model = [row for row in self.model if e not in (row[0], row[2])]

    @rule(t=st.sampled_from(TIMES), s=st.sampled_from(ENTITIES))
    def at(self, t, s):
        holds = [row for row in self.model if row[3] <= t < row[4]]
        found = triples(self.memory.relations(at=t))
        assert sorted(found) == sorted(tuple(row[:3]) for row in holds)
        near = {row[2] for row in holds if row[0] == s}
        near |= {row[0] for row in holds if row[2] == s}
        near.discard(s)
        assert {n.name for n in self.memory.neighbours(s, at=t)} == near

    @rule(
        t=st.sampled_from(TIMES),
        a=st.sampled_from(ENTITIES),
        b=st.sampled_from(ENTITIES),
    )
    def path(self, t, a, b):
        edges = {tuple(row[0:3:2]) for row in self.model if row[3] <= t < row[4]}
        distance, frontier = {a: 0}, [a]
        while frontier:
            step = [
                y
                for x in frontier
                for e in edges
                if x in e
                for y in e
                if y not in distance
            ]
            distance.update(dict.fromkeys(step, max(distance.values()) + 1))
            frontier = list(dict.fromkeys(step))
        path = self.memory.path(a, b, at=t)
        if a not in self.memory or b not in self.memory or b not in distance:
            assert path is None
        else:
            assert path is not None
            assert len(path) == distance[b]
            here = a
            for relation in path:
                assert here in (relation.subject, relation.object)
                here = relation.object if here == relation.subject else relation.subject
            assert here == b

    @invariant()
    def nothing_overlaps(self):
        seen = {}
        for r in self.memory.relations(history=True):
            end = float("inf") if r.valid_to is None else r.valid_to
            slot = (
                r.subject,
                r.predicate,
                None if r.predicate == "is_in" else r.object,
            )
            for start, stop in seen.setdefault(slot, []):
                assert end <= start or stop <= r.valid_from
            seen[slot].append((r.valid_from, end))


TestIntervals = Intervals.TestCase
TestIntervals.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None
)


# --- entities -------------------------------------------------------------------------


def test_entities(memory):
    memory.add_entity("Robert", "person", {"age": 7, "x": {"y": None}}, aliases=["Bob"])
    memory.add("bob", "likes", "Tea")
    found = memory.entity("  ROBERT ")
    assert (found.name, found.kind, found.aliases) == ("Robert", "person", ("Bob",))
    assert memory.add_entity("Bob", attributes={"age": 8}).attributes == {
        "age": 8,
        "x": {"y": None},
    }
    assert triples(memory.relations("Robert")) == [("Robert", "likes", "Tea")]
    assert [e.name for e in memory.entities("person")] == ["Robert"]
    assert [e.name for e in memory.entities()] == ["Robert", "Tea"]
    assert "bob" in memory
    assert "eve" not in memory
    assert 7 not in memory
    assert len(memory) == 2
    with pytest.raises(ValueError, match="'Tea' is the name of another"):
        memory.add_entity("Robert", aliases=["new", "Tea"])
    assert memory.entity("new") is None  # all or nothing


def test_neighbours(memory):
    memory.add("a", "likes", "b", confidence=0.5)
    memory.add("a", "uses", "c", confidence=0.9)
    memory.add("d", "likes", "b")
    memory.add("a", "likes", "a")
    assert [n.name for n in memory.neighbours("a")] == ["c", "b"]
    two = memory.neighbours("a", 2)
    assert [(n.name, n.hops) for n in two] == [("c", 1), ("b", 1), ("d", 2)]
    assert [n.name for n in memory.neighbours("a", 9, predicates=["likes"])] == [
        "b",
        "d",
    ]
    assert [n.name for n in memory.neighbours("a", limit=1)] == ["c"]
    assert memory.neighbours("nobody") == []
    assert memory.path("a", "d", predicates=["uses"]) is None
    assert memory.path("a", "d", max_hops=1) is None
    assert memory.path("a", "d", max_entities=1) is None
    assert memory.path("a", "A") == []


def test_a_hub(memory):
    """More relations than are kept in memory: the newest, and no more than wanted."""
    for n in range(2100):
        memory.add("hub", "has", f"x{n}", valid_from=n / 100)
    found = memory.neighbours("hub", limit=3)
    assert [n.name for n in found] == ["x2099", "x2098", "x2097"]
    assert next(n.name for n in memory.neighbours("x5", 2, limit=2)) == "hub"
    assert len(memory.path("x1", "x2")) == 2
    assert len(memory.neighbours("hub", limit=5000)) == 2100


def test_mentioned(memory):
    for name in ("New York", "York", "parse_size()", "May"):
        memory.add_entity(name)
    text = "In New York, parse_size() broke; york's fine. It may rain."
    names = [entity.name for entity in memory.mentioned(text)]
    assert names == ["New York", "parse_size()", "York"]
    assert memory.mentioned("") == []


# --- learning and forgetting ----------------------------------------------------------


def test_learning(memory):
    found = memory.learn("I live in Rome. I use vim.", source="m1", at=1)
    assert triples(found) == [("user", "lives_in", "Rome"), ("user", "uses", "vim")]
    memory.learn("I no longer use vim. I moved to Oslo.", source="m2", at=2)
    assert triples(memory.relations()) == [("user", "lives_in", "Oslo")]
    assert memory.sources("Rome") == ["m1"]
    assert memory.sources("user") == ["m2", "m1"]
    assert triples(memory.relations(source="m2")) == [("user", "lives_in", "Oslo")]


def test_an_extractor_of_ones_own(memory):
    memory = SemanticMemory(
        extractor=lambda text, speaker: [
            (speaker, "said", text),
            Fact("x", "is", "y", 0.5),
            Mention("Z", "thing"),
        ]
    )
    with memory:
        assert triples(memory.learn("hello", source="m1")) == [
            ("user", "said", "hello"),
            ("x", "is", "y"),
        ]
        assert memory.entity("z").kind == "thing"


def test_a_bad_extractor_changes_nothing():
    def works_first(text, speaker):
        yield ("a", "is", "b")
        if text == "raise":
            raise ZeroDivisionError
        yield {
            "bad": "x",
            "empty": ("", "is", "x"),
            "number": ("a", "is", 3),
            "sure": Fact("a", "is", "b", 2),
        }[text]

    with SemanticMemory(extractor=works_first) as memory:
        for text, error in (
            ("raise", ZeroDivisionError),
            ("bad", TypeError),
            ("empty", ValueError),
            ("number", TypeError),
            ("sure", ValueError),
        ):
            with pytest.raises(error):
                memory.learn(text)
        assert len(memory) == 0


def test_an_extractor_that_uses_the_memory():
    def extractor(text, speaker):
        memory.add("a", "is", "b")
        yield ("c", "is", "d")

    with SemanticMemory(extractor=extractor) as memory:
        memory.learn("x")
        assert len(memory.relations()) == 2


def test_forgetting_a_source(memory):
    memory.learn("Ada likes tea. Bob likes tea.", source="m1")
    memory.learn("Ada likes tea.", source="m2")
    memory.add("Bob", "is", "tall")
    assert memory.forget(source="m1") == 1  # Bob likes tea; m2 says the other
    assert triples(memory.relations()) == [
        ("Ada", "likes", "tea"),
        ("Bob", "is", "tall"),
    ]
    assert memory.relations("Ada")[0].sources == ("m2",)
    assert memory.forget(source=["m2", "m3"]) == 3  # and Ada, and tea
    assert [e.name for e in memory.entities()] == ["Bob", "tall"]
    assert memory.forget("Bob") == 2
    assert memory.forget("nobody") == 0
    with pytest.raises(TypeError, match="an entity or a source"):
        memory.forget()


def test_what_is_forgotten_is_in_no_file(tmp_path):
    with SemanticMemory(tmp_path / "f.db") as memory:
        memory.learn("Zanzibar uses quicksilver.", source="m1")
        memory.add("x", "y", "z")
        memory.forget(source="m1")
        for file in tmp_path.iterdir():
            data = file.read_bytes().lower()
            assert b"zanzibar" not in data
            assert b"quicksilver" not in data
        assert triples(memory.relations()) == [("x", "y", "z")]


# --- exports --------------------------------------------------------------------------


def test_triples_in_pages(memory):
    for n in range(1203):
        memory.add(f"e{n}", "next", f"e{n + 1}")
    memory.retract("e0")
    found = list(memory.triples())
    assert len(found) == 1202
    assert found[0] == ("e1", "next", "e2")
    assert len(list(memory.triples(history=True))) == 1203
    pages = memory.triples()
    next(pages)
    memory.add("a", "is", "b")  # no lock is held meanwhile
    assert list(pages)[-1] == ("a", "is", "b")


def test_to_networkx(memory):
    networkx = pytest.importorskip("networkx")
    memory.add_entity("a", "letter", {"n": 1})
    memory.add("a", "likes", "b", confidence=0.5, sources="m")
    memory.add("a", "uses", "b")
    graph = memory.to_networkx()
    assert isinstance(graph, networkx.MultiDiGraph)
    assert graph.nodes["a"] == {"kind": "letter", "attributes": {"n": 1}}
    assert sorted(d["predicate"] for _, _, d in graph.edges(data=True)) == [
        "likes",
        "uses",
    ]


def test_without_networkx(memory, monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ModuleNotFoundError, match=r"ctxpool\[graph\]"):
        memory.to_networkx()


# --- bad arguments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.add("", "is", "b"), ValueError, "''"),
        (lambda m: m.add(3, "is", "b"), TypeError, "not 3"),
        (lambda m: m.add("a", " _ ", "b"), ValueError, "predicate"),
        (lambda m: m.add("a", "is", "b", confidence=2), ValueError, "not 2"),
        (lambda m: m.add("a", "is", "b", confidence="x"), TypeError, "'x'"),
        (lambda m: m.add("a", "is", "b", valid_from=float("nan")), ValueError, "nan"),
        (lambda m: m.add("a", "is", "b", valid_to=5), ValueError, "not 5"),
        (lambda m: m.add("a", "is", "b", sources=[3]), TypeError, "not 3"),
        (lambda m: m.add("a", "is", "\ud800"), UnicodeEncodeError, "surrogates"),
        (lambda m: m.add_entity("a", attributes={"x": {1}}), TypeError, "JSON"),
        (lambda m: m.add_entity("a", kind=3), TypeError, "not 3"),
        (lambda m: m.neighbours("a", 0), ValueError, "hops"),
        (lambda m: m.neighbours("a", limit=-1), ValueError, "limit"),
        (lambda m: m.neighbours("a", predicates="is"), TypeError, "'is'"),
        (lambda m: m.relations(at="now"), TypeError, "'now'"),
        (lambda m: m.learn(b"x"), TypeError, "b'x'"),
        (lambda m: m.mentioned(None), TypeError, "None"),
        (lambda m: m.forget(3), TypeError, "3"),
        (lambda m: SemanticMemory(extractor=3), TypeError, "not 3"),
        (lambda m: SemanticMemory(functional="is"), TypeError, "'is'"),
    ],
    ids=range(20),
)
def test_bad_arguments(memory, call, error, says):
    with pytest.raises(error, match=says):
        call(memory)
    assert len(memory) == 0


def test_a_name_with_an_eq_of_its_own(memory):
    class Name(str):
        __slots__ = ()

        def __eq__(self, other):
            raise ZeroDivisionError

        __hash__ = str.__hash__

    memory.add(Name("a"), "is", Name("b"))
    assert [n.name for n in memory.neighbours(Name("a"))] == ["b"]


# --- files, threads, forks ------------------------------------------------------------


def test_a_restart(tmp_path):
    with SemanticMemory(tmp_path / "f.db") as memory:
        memory.add("a", "is", "b", sources="m")
    with SemanticMemory(tmp_path / "f.db") as memory:
        assert memory.relations()[0].sources == ("m",)
        memory.check()
        assert memory.stats().as_dict()["relations"] == 1
    memory.close()
    with pytest.raises(StoreClosedError):
        memory.relations()
    (tmp_path / "bad.db").write_bytes(b"no database" * 99)
    with pytest.raises(DamagedStoreError, match=r"bad\.db"):
        SemanticMemory(tmp_path / "bad.db")


def test_two_at_once(tmp_path):
    path = tmp_path / "f.db"
    with SemanticMemory(path) as one, SemanticMemory(path) as two:
        one.add("a", "is", "b")
        assert [n.name for n in two.neighbours("a")] == ["b"]
        two.add("a", "is", "c")
        assert len(one.neighbours("a")) == 2
        two.forget("a")
        assert one.neighbours("a") == []
        assert "a" not in one
        one.add("a", "is", "d")
        assert [n.name for n in two.neighbours("a")] == ["d"]


def test_a_copy(tmp_path, memory):
    memory.add("a", "is", "b")
    memory.save_to(tmp_path / "f.db")
    with pytest.raises(StoreError):
        memory.save_to(tmp_path / "f.db")
    with SemanticMemory(tmp_path / "f.db") as copy:
        assert list(copy.triples()) == [("a", "is", "b")]


def test_threads(memory):
    errors = []

    def work(n):
        try:
            for i in range(40):
                memory.add(f"e{i % 7}", "is_in", f"e{(i + n) % 7}", functional=True)
                memory.neighbours(f"e{i % 7}", 2)
                memory.path("e0", "e3")
                if i % 10 == 0:
                    memory.forget(f"e{i % 7}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for n in range(7):
        assert len(memory.relations(f"e{n}", "is_in")) <= 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child(tmp_path):
    with SemanticMemory(tmp_path / "f.db") as memory:
        memory.add("a", "is", "b")
        memory.neighbours("a")
        pid = os.fork()
        if pid == 0:
            try:
                memory.add("a", "is", "c")
                os._exit(0 if len(memory.neighbours("a")) == 2 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(memory.neighbours("a")) == 2
