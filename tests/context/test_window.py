"""A window of messages: what is said of it, callbacks, threads, forks, pickles."""

import copy
import os
import pickle
import sys
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from ctxpool.context import ContextWindow, Group, Message, MessageCounter, ToolCall
from ctxpool.errors import BudgetExceededError, UnknownToolCallError


class Letters:
    def count(self, text):
        return len(text)

    def encode(self, text):
        return list(text.encode())


COUNT = MessageCounter(Letters(), per_message=0, per_call=0)


def opened(limit, **settings):
    return ContextWindow(limit, **{"tokenizer": COUNT, "low_water": 0.5, **settings})


def user(text, **more):
    return Message("user", text, **more)


def answer(text, *calls):
    return Message("assistant", text, tuple(ToolCall(c, "", "") for c in calls))


def result(text, call):
    return Message("tool", text, tool_call_id=call)


def texts(messages):
    return [message.content for message in messages]


def test_the_oldest_go_down_to_the_low_mark():
    told = []
    window = opened(10, on_evict=told.append)
    for text in ["aaa", "bbb", "ccc"]:
        window.append(user(text))
    assert (window.tokens, told) == (9, [])
    window.append(user("dd"))
    assert texts(window.messages()) == ["ccc", "dd"]
    assert [texts(group.messages) for group in told[0]] == [["aaa"], ["bbb"]]
    assert (len(window), texts(window)) == (2, ["ccc", "dd"])
    stats = window.stats()
    assert (stats.evictions, stats.evicted, stats.evicted_tokens) == (1, 2, 6)
    assert (stats.stable_prefix, stats.broken_tokens) == (0, 11)
    assert stats.as_dict()["limit"] == 10
    assert repr(window) == "<ContextWindow: 2 messages, 5 of 10 tokens>"


def test_high_water_and_overlap():
    window = opened(100, high_water=0.5, low_water=0, overlap=20)
    for n in range(6):
        window.append(user(f"{n:10}"))
    assert window.tokens == 20
    window = opened(100, high_water=0.5, low_water=0)
    for n in range(6):
        window.append(user(f"{n:10}"))
    assert window.tokens == 10  # the newest stays


def test_what_is_pinned_stays():
    window = opened(10, sink=1)
    window.append(Message("system", "s"))
    window.append(user("a"))
    window.append(user("keep"), pinned=True)
    for n in range(5):
        window.append(user(f"{n:3}"))
    assert texts(window.messages())[:3] == ["s", "a", "keep"]
    assert window.stats().pinned_tokens == 6
    with pytest.raises(BudgetExceededError, match="takes 6 tokens, and budget is 5"):
        window.messages(5)
    with pytest.raises(BudgetExceededError, match="budget is 5"):
        window.fits(5)
    assert texts(window.messages(6)) == ["s", "a", "keep"]
    assert window.fits(6) == len(window)


def test_a_pinned_answer_keeps_its_question_and_not_what_came_before():
    window = opened(22, sink=0)
    window.extend([Message("system", "ssssss"), user("qqq"), answer("a" * 7)])
    window.append(user("rrr"))
    window.append(answer("b" * 8), pinned=True)
    assert texts(window) == ["ssssss", "rrr", "b" * 8]
    window.check()


def test_a_call_and_its_results_stay_together():
    window = opened(12)
    window.append(user("q"))
    window.append(answer("aa", "x", "y"))
    assert texts(window.messages()) == ["q", "aa"]  # the newest may wait
    window.append(result("rr", "y"))
    window.append(user("and?"))
    assert texts(window.messages()) == ["q", "and?"]  # now it may not
    window.append(result("ss", "x"))
    assert texts(window.messages()) == ["q", "aa", "rr", "ss", "and?"]
    assert texts(window.messages(10)) == ["and?"]
    window.append(user("zz"))
    assert texts(window.messages()) == ["and?", "zz"]


def test_within_a_turn_the_question_stays():
    window = opened(20)
    window.append(user("question"))
    for n in range(10):
        window.append(answer("aaa", f"{n}"))
        window.append(result("rr", f"{n}"))
        prompt = window.messages()
        assert texts(prompt)[0] == "question"
        assert prompt[-1].tool_call_id == f"{n}"
    assert texts(window.messages(14)) == ["question", "aaa", "rr"]
    assert texts(window.messages(12)) == []


def test_results_that_answer_nothing_are_refused():
    window = opened(20)
    window.extend([user("q"), answer("", "x"), result("r", "x")])
    for call in ("x", "y"):
        with pytest.raises(UnknownToolCallError, match=f"no call '{call}' waits"):
            window.append(result("r", call))
    assert texts(window) == ["q", "", "r"]


def test_what_is_too_large_is_refused_and_nothing_changes():
    told = []
    window = opened(20, reserve=5, on_evict=told.append)
    window.append(Message("system", "sss"))
    window.append(user("qqqq"))
    before = window.stats()
    with pytest.raises(BudgetExceededError, match=r"13 tokens needs 16.*limit is 15"):
        window.append(user("x" * 13))
    with pytest.raises(BudgetExceededError, match="9 tokens needs 16"):
        window.append(answer("x" * 9))
    with pytest.raises(BudgetExceededError, match="13 tokens needs 20"):
        window.append(Message("system", "x" * 13))
    with pytest.raises(BudgetExceededError):
        window.extend([answer("a", "c"), user("b"), user("x" * 13)])
    assert window.stats() == before
    assert (texts(window), told) == (["sss", "qqqq"], [])
    window.append(user("x" * 12))
    assert texts(window) == ["sss", "x" * 12]


def test_bytes_are_a_budget_too():
    window = opened(10**6, max_bytes=2000)
    for n in range(20):
        window.append(user(f"{n}" * 200))
        assert window.stats().bytes <= 2000
        assert texts(window.messages())[-1] == f"{n}" * 200
    with pytest.raises(BudgetExceededError, match=r"bytes needs .* limit is 2000"):
        window.append(user("x" * 3000))
    with pytest.raises(BudgetExceededError, match="bytes"):
        window.append(Message("user", parts=({"type": "image", "data": "x" * 3000},)))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"budget": 0}, ValueError, "budget must be from 1"),
        ({"budget": "9"}, TypeError, "not '9'"),
        ({"reserve": 10}, BudgetExceededError, "leaves nothing of a budget of 10"),
        ({"overlap": 11}, BudgetExceededError, "at most 10, not 11"),
        ({"high_water": 2}, ValueError, "from 0 to 1, not 2"),
        ({"low_water": "x"}, ValueError, "not 'x'"),
        ({"low_water": 0.9, "high_water": 0.8}, ValueError, "at most high_water, 0.8"),
        ({"start": "tool"}, ValueError, "not 'tool'"),
        ({"overflow": 3}, TypeError, "not 3"),
        ({"on_evict": 3}, TypeError, "not 3"),
        ({"tokenizer": 3}, TypeError, "not 3"),
        ({"max_bytes": -1}, ValueError, "not -1"),
        ({"sink": -1}, ValueError, "sink"),
    ],
)
def test_wrong_settings_are_told(settings, error, says):
    with pytest.raises(error, match=says):
        ContextWindow(**{"budget": 10, **settings})


def test_wrong_arguments_are_told():
    window = opened(10)
    with pytest.raises(TypeError, match="not 'x'"):
        window.append("x")
    with pytest.raises(TypeError, match="not 'x'"):
        window.messages("x")
    with pytest.raises(ValueError, match="not -1"):
        window.messages(-1)
    with pytest.raises(BudgetExceededError):
        window.fits(-1)
    with pytest.raises(ValueError, match="own ids, not 'c', 'c'"):
        window.append(answer("", "c", "c"))
    with pytest.raises(TypeError, match="must be a dict, not 'image'"):
        window.append(Message("user", parts=("image",)))
    assert len(window) == 0
    with pytest.raises(ValueError, match="first message of a user"):
        window.append(answer("x"), pinned=True)


def test_an_assistant_may_speak_first_where_that_is_allowed():
    strict, free = opened(10), opened(10, start="any")
    for window in (strict, free):
        window.append(answer("hello"))
    assert (strict.messages(), texts(free.messages())) == ([], ["hello"])
    strict.append(user("hi"))
    assert texts(strict.messages()) == ["hi"]


def test_a_copy_a_pickle_and_a_cleared_one():
    window = opened(20, sink=1)
    window.extend([Message("system", "s"), user("q"), answer("a", "x")])
    for made in (window.copy(), copy.copy(window), pickle.loads(pickle.dumps(window))):
        assert texts(made) == ["s", "q", "a"]
        assert made.stats() == window.stats()
        made.append(result("r", "x"))
        made.check()
        assert len(window) == 3
    window.clear()
    assert (len(window), window.tokens, window.messages()) == (0, 0, [])
    with pytest.raises(UnknownToolCallError):
        window.append(result("r", "x"))


# -- callbacks -------------------------------------------------------------------------


def test_on_evict_may_raise_and_use_the_window():
    def on_evict(groups):
        window.append(user("+"))
        assert len(window) == 2
        raise ZeroDivisionError

    window = opened(4, on_evict=on_evict)
    window.append(user("aaa"))
    with pytest.raises(ZeroDivisionError):
        window.append(user("bb"))
    assert texts(window) == ["bb", "+"]
    window.check()


class Reducer:
    """Makes one message of all groups that are not pinned."""

    def __init__(self, text="sum", role="user", during=lambda: None):
        self.text, self.role, self.during = text, role, during
        self.asked = []

    def reduce(self, groups, budget, count):
        self.asked.append((list(groups), budget, sum(g.tokens for g in groups)))
        self.during()
        free = [g for g in groups if not g.pinned]
        sources = tuple(m.id for g in free[1:] for m in g.messages)
        made = Message(self.role, self.text, sources=sources)
        kept = [Group((made,), count(made)), *(g for g in groups if g.pinned)]
        return SimpleNamespace(groups=kept, report=len(self.asked))


@pytest.mark.parametrize("role", ["user", "system"])
def test_overflow_makes_room(role):
    told = []
    reducer = Reducer(role=role)
    window = opened(20, overflow=reducer, overlap=4, on_evict=told.append)
    for text in ["aaaa", "bbbb", "cccc", "dddd", "eeee"]:
        window.append(user(text))
    assert window.report is None
    window.append(user("f"))
    ((groups, budget, tokens),) = reducer.asked
    assert (budget, tokens) == (20, 21)
    assert [g.pinned for g in groups] == [False] * 5 + [True]  # eeee and f are five
    assert texts(window.messages()) == ["sum", "f"]
    assert window.report == 1
    assert [texts(g.messages) for g in told[0]] == [["aaaa"]]  # of no source
    assert window.stats().reductions == 1
    window.check()


def raises(groups):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        (raises, ZeroDivisionError, None),
        (lambda groups: [3], TypeError, "returned 3"),
        (lambda groups: [], ValueError, "it is pinned"),
        (lambda groups: None, TypeError, "not iterable"),
        (lambda groups: [Group((result("r", "z"),), 1)], UnknownToolCallError, "'z'"),
        (
            lambda groups: [*groups, Group((Message("system", "x" * 10),), 1)],
            BudgetExceededError,
            r"returned 1\d tokens that can't be dropped",
        ),
    ],
)
def test_overflow_that_raises_or_lies_changes_nothing(what, error, says):
    told = []
    wrong = SimpleNamespace(reduce=lambda g, b, c: SimpleNamespace(groups=what(g)))
    window = opened(10, overflow=wrong, high_water=0.8, on_evict=told.extend)
    window.append(Message("system", "s"))
    window.append(user("aaaa"))
    with pytest.raises(error, match=says):
        window.append(user("bbbb"))
    assert (texts(window), told) == (["s", "aaaa", "bbbb"], [])
    with pytest.raises(error, match=says):  # over the limit: the oldest go
        window.append(user("cc"))
    assert texts(window) == ["s", "cc"]
    assert [texts(group.messages) for group in told] == [["aaaa"], ["bbbb"]]
    window.check()


def test_overflow_that_frees_too_little_is_helped():
    window = opened(10, overflow=Reducer("x" * 9))
    for text in ["aaaa", "bbbb", "cccc"]:
        window.append(user(text))
    assert window.tokens <= 10
    same = SimpleNamespace(reduce=lambda g, b, c: SimpleNamespace(groups=g))
    window = opened(10, overflow=same)
    for text in ["aaaa", "bbbb", "cccc"]:
        window.append(user(text))
    assert texts(window) == ["cccc"]


def test_overflow_may_use_the_window():
    reducer = Reducer(during=lambda: window.append(user("+")))
    window = opened(25, overflow=reducer, high_water=0.8)
    for text in ["aaaa", "bbbb", "cccc", "dddd", "eeee", "f"]:
        window.append(user(text))
    assert texts(window) == ["sum", "+"]  # what was added meanwhile comes after it
    assert window.stats().reductions == 1
    clears = opened(20, overflow=Reducer(during=lambda: clears.clear()))
    for text in ["aaaa", "bbbb", "cccc", "dddd", "eeee", "f"]:
        clears.append(user(text))
    assert len(clears) == 0  # what was reduced is gone, and does not come back
    floods = opened(
        20, overflow=Reducer(during=lambda: [floods.append(user("+" * 6))] * 3)
    )
    for text in ["aaaa", "bbbb", "cccc", "dddd", "eeee", "f"]:
        floods.append(user(text))
        assert floods.tokens <= 20
    floods.check()


def test_a_call_that_waits_is_not_given_away():
    reducer = Reducer()
    window = opened(10, overflow=reducer)
    window.extend([user("aaaa"), user("bbbb"), answer("c", "x")])
    window.append(result("ddddd", "x"))
    assert texts(window.messages()) == ["sum"]
    window = opened(10, overflow=reducer)
    window.extend([user("aaaa"), user("bbbb"), answer("ccc", "x")])
    assert texts(window.messages()) == ["sum", "ccc"]
    window.append(result("d", "x"))
    assert texts(window.messages()) == ["sum", "ccc", "d"]


# -- threads, forks --------------------------------------------------------------------


@pytest.mark.parametrize("overflow", [None, Reducer()])
def test_threads_lose_nothing(overflow):
    gone, errors = [], []
    window = opened(200, overflow=overflow, high_water=0.8, on_evict=gone.extend)
    barrier = threading.Barrier(4)

    def work(number):
        try:
            barrier.wait(10)
            for n in range(100):
                call = f"{number}-{n}"
                window.append(user(f"{number:2}"))
                window.append(answer("a", call))
                with suppress(UnknownToolCallError):  # when its call has left
                    window.append(result("r", call))
                window.messages(100)
                window.fits(50)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    window.check()
    assert window.tokens <= 200
    if overflow is None:
        left = {id(m) for g in gone for m in g.messages}
        assert window.stats().appended == len(left) + len(window)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_a_window_of_its_own():
    window = opened(100)
    stop = threading.Event()

    def add():
        while not stop.is_set():
            window.append(user("x"))

    thread = threading.Thread(target=add)
    thread.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                try:
                    window.check()
                    window.append(user("child"))
                    os._exit(0 if window.messages()[-1].content == "child" else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        thread.join(60)
    window.check()
