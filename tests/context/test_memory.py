"""The three tiers together: one budget, one directory, one kill -9."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.context import (
    Compress,
    Evict,
    HierarchicalMemory,
    Message,
    OverflowChain,
    Spill,
    SpillStore,
    ToolCall,
)
from ctxpool.errors import (
    BudgetExceededError,
    UnstorableMessageError,
)

FILES = ["memory.manifest", "facts.db", "episodes.db", "working.db"]


class Letters:
    name = "letters"
    dimensions = 26

    def embed(self, texts):
        made = [[t.lower().count(chr(97 + n)) for n in range(26)] for t in texts]
        return np.array(made, np.float32).reshape(len(texts), 26)


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def memory():
    with HierarchicalMemory(budget=400, clock=Clock()) as made:
        yield made


def contents(messages):
    return [message.content for message in messages]


def strings(relations):
    return sorted(map(str, relations))


# --- taking in and bringing to mind --------------------------------------------------


def test_a_conversation(memory):
    first = memory.process_input("My name is Ada and I live in Lisbon.")
    assert strings(first.learnt) == ["user lives in Lisbon", "user name Ada"]
    assert first.working == (first.message,)
    assert first.episodes == ()
    memory.process_input("Nice to meet you, Ada.", "assistant")
    for n in range(40):
        memory.process_input(f"Remark {n} about the weather on some day or other.")
        memory.process_input(f"I see what you mean by remark {n}.", "assistant")
    assert first.message not in memory.working.messages()
    context = memory.process_input("In which town do I live?")
    assert "user lives in Lisbon" in strings(context.connections)
    assert context.tokens <= 400
    assert "Lisbon" in context.reminder.content
    assert context.messages[0] is context.reminder
    window = set(context.working)
    for one in memory.process_input("remark 3 about the weather").episodes:
        assert one.episode.id not in {message.id for message in window}


def test_the_reminder_comes_after_the_system_messages(memory):
    memory.process_input("Be brief.", "system")
    memory.process_input("My name is Ada.")
    context = memory.process_input("What is my name?")
    assert [m.role for m in context.messages] == ["system", "system", "user", "user"]
    assert context.messages[1] is context.reminder
    assert len(memory.episodic) == 2  # the system's message is no experience


def test_recall_over_all_tiers(memory):
    memory.process_input("Ada uses Postgres for the billing server.")
    for n in range(40):
        memory.process_input(f"Something else, number {n}, to fill the window with.")
    memory.process_input("Ada likes Postgres very much, it seems.")
    found = memory.recall("What does Ada use Postgres for?", 10)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert {m.tier for m in found} == {"working", "episodic", "semantic"}
    tier = {m.text: m.tier for m in found}
    assert tier["Ada uses Postgres for the billing server."] == "episodic"
    assert tier["Ada likes Postgres very much, it seems."] == "working"
    some = memory.recall("What does Ada use Postgres for?", 10, budget_tokens=15)
    assert 0 < sum(m.tokens for m in some) <= 15
    assert memory.recall("Postgres", 0) == []
    assert memory.recall("Postgres", budget_tokens=0) == []
    for one in found:
        assert one.sources


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=60), st.booleans()), max_size=25),
    st.integers(60, 300),
    st.sampled_from([0.0, 0.3, 0.7]),
)
def test_never_over_the_budget(said, budget, share):
    with HierarchicalMemory(
        budget=budget, recall_share=share, embedder=Letters(), clock=Clock()
    ) as memory:
        for text, mine in said:
            try:
                context = memory.process_input(text, "user" if mine else "assistant")
            except BudgetExceededError:
                continue
            count = memory.working.counter
            assert context.tokens == sum(map(count, context.messages)) <= budget


def test_tool_calls(memory):
    call = Message("assistant", "", (ToolCall("c1", "grep", '{"for": "zebra"}'),))
    memory.process_input("Find the zebra.")
    memory.process_input(call)
    memory.process_input(Message("tool", "src/zoo.py:7: zebra = 3", tool_call_id="c1"))
    assert contents(memory.working.messages())[1:] == ["", "src/zoo.py:7: zebra = 3"]
    assert "grep" in memory.recall("grep for zebra", 1)[0].text
    with pytest.raises(LookupError):
        memory.process_input(Message("tool", "orphaned", tool_call_id="c9"))
    assert len(memory.working) == len(memory.episodic) == 3
    gone = memory.forget(call.id)  # and its result, from the window
    assert gone >= 3
    assert contents(memory.working.messages()) == ["Find the zebra."]


def test_a_pinned_answer_whose_question_is_forgotten(memory):
    question = memory.process_input("Which port?").message
    memory.process_input("Port 8080.", "assistant", pinned=True)
    memory.process_input("Thanks.")
    memory.forget(question.id)
    held = [m.content for g in memory.working.groups() for m in g.messages]
    assert held == ["Port 8080.", "Thanks."]


def test_remember_is_not_in_the_window(memory):
    id = memory.remember("The key is under the mat.", importance=1.0)
    assert len(memory.working) == 0
    assert memory.episodic.get(id).importance == 1.0
    memory.remember("Ada likes tea and I like coffee.", "assistant")
    assert "assistant likes coffee" in strings(memory.semantic.relations())


def test_importance(memory):
    ids = [
        memory.remember("It rains."),
        memory.remember("Ada likes tea. Bob likes tea."),
        memory.remember(Message("tool", "output", tool_call_id="c")),
    ]
    assert [memory.episodic.get(id).importance for id in ids] == [0.5, 0.7, 0.3]


def test_lone_surrogates(memory):
    text = "Ada uses \ud800 halves"
    context = memory.process_input(text)
    assert context.message.content == text
    assert memory.recall("\ud800 halves", 1)[0].text == "Ada uses ? halves"


# --- errors undo what was done -------------------------------------------------------


def unchanged(memory):
    return (
        contents(memory.working.messages()),
        [e.text for e in memory.episodic.episodes()],
        list(memory.semantic.triples(history=True)),
    )


def test_a_message_that_is_too_large(memory):
    memory.process_input("Ada likes tea.")
    before = unchanged(memory)
    with pytest.raises(BudgetExceededError):
        memory.process_input("Bob uses vim. " + "word " * 2000)
    assert unchanged(memory) == before


def test_the_same_message_again(memory):
    message = Message("user", "Ada likes tea.", id="m1")
    memory.process_input(message)
    memory.process_input(message)
    assert len(memory.episodic) == 1
    before = unchanged(memory)
    large = Message("user", "Ada likes tea.", id="m1", name="n" * 9999)
    with pytest.raises(BudgetExceededError):
        memory.process_input(large)
    assert unchanged(memory) == before


def test_a_message_that_can_not_be_stored(tmp_path):
    with HierarchicalMemory(tmp_path / "m", clock=Clock()) as memory:
        memory.process_input("Ada likes tea.")
        before = unchanged(memory)
        for bad, error in (
            (
                Message("user", "Bob uses vim.", parts=({"x": {1}},)),
                UnstorableMessageError,
            ),
            (Message("user", "Bob uses vim.", metadata={"x": {1}}), TypeError),
        ):
            with pytest.raises(error):
                memory.process_input(bad)
            assert unchanged(memory) == before


class Broken:
    """Callbacks that raise when they are told to."""

    on = False

    def __init__(self, does):
        self.does = does

    def __call__(self, *arguments):
        if self.on:
            raise ZeroDivisionError
        return self.does(*arguments)


def test_callbacks_that_raise():
    embedder, extractor = (
        Letters(),
        Broken(lambda text, speaker: [(speaker, "is", "x")]),
    )
    importance = Broken(lambda message, facts: 0.5)
    embed = embedder.embed = Broken(embedder.embed)

    class Tokenizer:
        encode = None
        count = Broken(len)

    with HierarchicalMemory(
        budget=500,
        embedder=embedder,
        extractor=extractor,
        importance=importance,
        tokenizer=Tokenizer(),
    ) as memory:
        memory.process_input("hello")
        before = unchanged(memory)
        for broken in (embed, extractor, importance, Tokenizer.count):
            broken.on = True
            with pytest.raises(ZeroDivisionError):
                memory.process_input("another one")
            broken.on = False
            assert unchanged(memory) == before
        importance.does = lambda message, facts: "very"
        with pytest.raises(TypeError, match="'very'"):
            memory.process_input("another one")
        assert unchanged(memory) == before


def test_an_on_evict_that_raises(tmp_path):
    on_evict = Broken(lambda groups: None)
    options = {"budget": 100, "recall_share": 0.0, "embedder": Letters()}
    with HierarchicalMemory(tmp_path / "m", on_evict=on_evict, **options) as memory:
        on_evict.on = True
        taken = []

        def fill():
            for n in range(100):
                memory.process_input(f"message number {n} with some words in it")
                taken.append(f"message number {n} with some words in it")

        with pytest.raises(ZeroDivisionError):
            fill()
        assert [e.text for e in memory.episodic.episodes()] == taken
        held = contents(memory.working.messages())
        assert held == taken[-len(held) :]
    with HierarchicalMemory(tmp_path / "m", **options) as memory:
        assert contents(memory.working.messages()) == held


def test_an_overflow_of_ones_own(tmp_path):
    """What a summary stands for leaves no trace when it is forgotten."""

    class Result:
        def __init__(self, groups):
            self.groups = groups
            self.report = None

    class Store:
        deleted = ()

        def delete(self, ids):
            self.deleted = ids

    class Overflow:
        store = Store()

        def reduce(self, groups, budget, count):
            from ctxpool.context import Group

            old = [m for group in groups[:-1] for m in group.messages]
            ids = [id for m in old for id in (m.sources or (m.id,))]
            message = Message("user", f"{len(ids)} messages", sources=tuple(ids))
            return Result([Group((message,), count(message)), groups[-1]])

    path = tmp_path / "m"
    options = {"budget": 120, "recall_share": 0.0, "embedder": Letters()}
    with HierarchicalMemory(path, overflow=Overflow(), **options) as memory:
        for n in range(12):
            memory.process_input(f"message number {n} with some words in it")
        held = memory.working.messages()
        assert any(message.sources for message in held)
        memory.forget("nothing")
        assert Overflow.store.deleted == {"nothing"}
        before = [(m.id, m.content, m.sources) for m in held]
    with HierarchicalMemory(path, **options) as memory:
        held = memory.working.messages()
        assert [(m.id, m.content, m.sources) for m in held] == before
        summary = next(m for m in held if m.sources)
        memory.forget(summary.sources[0])
        assert not any(m.sources for m in memory.working.messages())


def test_a_chain_with_a_store(tmp_path):
    """What overflows is compressed and spilled; what is forgotten is in no file."""
    store = SpillStore(tmp_path / "spill.db")
    chain = OverflowChain([Compress(min_tokens=8), Evict(), Spill(store)])
    options = {"budget": 300, "recall_share": 0.2}
    path = tmp_path / "m"
    with store, HierarchicalMemory(path, overflow=chain, **options) as memory:
        secret = memory.process_input("The password of db-7 is xylophone.").message
        for n in range(40):
            memory.process_input(f"Remark {n}: the disk of db-{n} is {n} % full. " * 2)
        assert len(store) > 0
        assert len(memory.episodic) == 41
        found = memory.recall("What is the password of db-7?", 1)
        assert "xylophone" in found[0].text
        before = [(m.id, m.content, m.sources) for m in memory.working.messages()]
        memory.forget(secret.id)
        assert secret.id not in store
        assert "xylophone" not in str(memory.recall("password xylophone", 9))
        for file in path.iterdir():
            assert b"xylophone" not in file.read_bytes(), file
    with HierarchicalMemory(path, overflow=chain, **options) as memory:
        held = [(m.id, m.content, m.sources) for m in memory.working.messages()]
        assert held == [one for one in before if one in held]
        assert not any(secret.id in (id, *sources) for id, _, sources in held)


# --- forgetting ----------------------------------------------------------------------


def test_what_is_forgotten_is_nowhere(tmp_path):
    path = tmp_path / "m"
    with HierarchicalMemory(path, clock=Clock()) as memory:
        secret = memory.process_input("Ada uses the password xylophone.").message
        memory.process_input("Ada likes tea.")
        assert memory.forget(secret.id) >= 3
        assert memory.forget(secret.id) == 0
        for file in path.iterdir():
            assert b"xylophone" not in file.read_bytes(), file
        assert contents(memory.working.messages()) == ["Ada likes tea."]
        assert "xylophone" not in str(memory.recall("password xylophone", 9))
    with HierarchicalMemory.open(path) as memory:
        assert "xylophone" not in str(memory.recall("password xylophone", 9))


def test_forgetting_by_query_and_by_time(memory):
    memory.process_input("The cat sleeps on the mat.", at=1)
    memory.process_input("Interest rates rise.", at=2)
    memory.process_input("A cat sleeps on a mat.", at=3)
    assert memory.forget(query="the cat sleeps on the mat", threshold=0.6) >= 4
    assert contents(memory.working.messages()) == ["Interest rates rise."]
    memory.process_input("Later.", at=10)
    assert memory.forget(before=5) >= 2
    assert contents(memory.working.messages()) == ["Later."]
    with pytest.raises(TypeError, match="ids, a query or a moment"):
        memory.forget()


def test_consolidating(memory):
    memory.process_input("The cat sleeps on the mat.", at=1)
    memory.process_input("The cat sleeps on the mat!", at=2)
    assert memory.consolidate(older_than=0, at=9).merged == 1
    assert len(memory.episodic) == 1
    assert len(memory.working) == 2


def test_repr(tmp_path, memory):
    assert repr(memory) == "<HierarchicalMemory in memory>"
    with HierarchicalMemory(tmp_path) as other:
        assert repr(other) == f"<HierarchicalMemory {str(tmp_path)!r}>"


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.process_input(3), TypeError, "not 3"),
        (lambda m: m.process_input("x", "king"), ValueError, "'king'"),
        (lambda m: m.process_input("x", k=-1), ValueError, "k must"),
        (lambda m: m.process_input("x", importance=3), ValueError, "not 3"),
        (lambda m: m.process_input(Message("user"), metadata={}), TypeError, "its own"),
        (lambda m: m.recall(3), TypeError, "not 3"),
        (lambda m: m.recall("x", budget_tokens="x"), TypeError, "'x'"),
        (lambda m: m.forget(3), TypeError, "not 3"),
        (lambda m: HierarchicalMemory(budget=0), ValueError, "budget"),
        (lambda m: HierarchicalMemory(recall_share=2), ValueError, "recall_share"),
        (lambda m: HierarchicalMemory(importance=3), TypeError, "not 3"),
        (lambda m: HierarchicalMemory(window={"low_water": 3}), ValueError, "3"),
    ],
    ids=range(12),
)
def test_bad_arguments(memory, call, error, says):
    with pytest.raises(error, match=says):
        call(memory)
    assert unchanged(memory) == ([], [], [])
