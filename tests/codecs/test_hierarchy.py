"""Texts that are shown shorter with age: levels, groups, and nothing ever lost."""

import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from ctxpool.codecs import HierarchicalCompressor, View, _blocks

HOUR, DAY, WEEK = 3600, 86400, 604800
NOTE = (
    "Hello to all of you. The disk of db-7 was 91 % full at 04:10. "
    "Apart from that it was a quiet day."
)


def store_at(now: float = 0.0, **settings: Any) -> HierarchicalCompressor:
    return HierarchicalCompressor(clock=lambda: now, **settings)


def check(store: HierarchicalCompressor, view: View) -> None:
    """The spans give the text, from the items themselves."""
    at = 0
    for name, start, end, here in view.spans:
        assert name in view.sources
        assert start < end
        assert view.text[here : here + end - start] == store.restore(name)[start:end]
        assert view.text[at:here] in ("", " ", "\n")
        at = here + end - start
    assert view.text[at:] in ("", "\n")


@pytest.mark.parametrize(
    ("age", "priority", "level"),
    [
        (-5, 0, 1), (0, 0, 1), (HOUR - 1, 0, 1), (HOUR, 0, 2), (DAY - 1, 0, 2),
        (DAY, 0, 3), (WEEK - 1, 0, 3), (WEEK, 0, 4), (WEEK * 99, 0, 4),
        (WEEK, 1, 3), (WEEK, 3, 1), (0, -1, 2), (0, -3, 4), (WEEK, -3, 4), (0, 3, 1),
    ],
)  # fmt: skip
def test_levels(age: float, priority: int, level: int) -> None:
    store = store_at(10**9)
    name = store.add(NOTE, time=10**9 - age, priority=priority)
    assert store.level(name) == level
    assert store.level(name, now=10**9 - age) == max(1, min(4, 1 - priority))


def test_what_each_level_shows() -> None:
    store = store_at()
    name = store.add(NOTE)
    assert store.view(name) == View(1, NOTE, (name,), ((name, 0, len(NOTE), 0),), False)
    shown = store.view(name, now=HOUR)
    assert shown.text == NOTE[21:61]
    assert (shown.level, shown.lossy, shown.sources) == (2, True, (name,))
    check(store, shown)
    assert store.view(name, now=WEEK).text == ""
    assert store.views(now=WEEK) == []
    assert store.report(now=WEEK).levels[3].items == 1
    assert store.restore(name) == NOTE


def test_a_short_sentence_is_shown_whole_for_a_day() -> None:
    store = store_at()
    name = store.add("Call Ms. Weiss.")
    assert store.view(name, now=HOUR).text == "Call Ms. Weiss."
    assert store.view(name, now=DAY).text != "Call Ms. Weiss."


def test_old_items_are_shown_by_day_and_by_week() -> None:
    now = 100 * WEEK
    store = store_at(now)
    for day, i in itertools.product(range(14), range(10)):
        store.add(
            f"Build {day}{i} of the day was green. Stage {i} took {day + i} minutes.",
            id=f"{day}/{i}",
            time=now - day * DAY - i * 60 - HOUR,
        )
    views = store.views()
    assert [view.level for view in views] == sorted([v.level for v in views])[::-1]
    by_level = {level: [v for v in views if v.level == level] for level in (2, 3, 4)}
    # Days and weeks begin where the epoch's do.
    assert [len(v.sources) for v in by_level[2]] == [1] * 10
    assert [len(v.sources) for v in by_level[3]] == [10] * 6
    assert [len(v.sources) for v in by_level[4]] == [70]
    report = store.report()
    assert report.items == 140
    for view in views:
        check(store, view)
    for line, ratio in zip(report.levels, (1, 0.5, 0.2, 0.05), strict=True):
        assert line.view_bytes <= line.original_bytes * ratio + 10
    assert report.view_bytes == sum(len(view.text) for view in views)
    assert report.ratio == report.view_bytes / report.original_bytes
    assert store.view("3/4").sources == store.view("3/5").sources


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_compact(codec: str) -> None:
    try:
        store = store_at(codec=codec)
    except ImportError as error:
        assert 'pip install "ctxpool[zstd]"' in str(error)  # noqa: PT017
        pytest.skip(str(error))
    texts = [f"{i}: the disk of db-{i} was {i} % full.\n" * 20 for i in range(50)]
    texts += ["", "\0", "\ud800 lone", "emoji 👩\u200d👧", "x" * 200_000]
    names = [store.add(text) for text in texts]
    fresh = store.add(NOTE, time=WEEK)
    before = store.report(now=WEEK)
    assert before.stored_bytes == before.original_bytes
    assert before.stored_ratio == 1
    saved = store.compact(now=WEEK)
    after = store.report(now=WEEK)
    assert saved == before.stored_bytes - after.stored_bytes
    assert after.stored_ratio < 0.2
    assert store.compact(now=WEEK) == 0
    assert [store.restore(name) for name in names] == texts
    assert store.restore(fresh) == NOTE
    for name in names[1:]:
        store.forget(name)
    assert store.restore(names[0]) == texts[0]


@settings(max_examples=40)
@given(st.lists(st.text(max_size=200), max_size=20), st.integers(1, 300))
def test_packing(texts: list[str], block_size: int) -> None:
    packed = _blocks.pack(texts, block_size, *_blocks.codec("zlib"))
    assert list(_blocks.texts_of(packed)) == texts


def test_views_are_made_once_and_bounded() -> None:
    made: list[str] = []

    def compressor(text: str, tokens: int) -> str:
        made.append(text)
        return text[:tokens]

    store = store_at(2 * HOUR, compressor=compressor, view_bytes=1000, count=len)
    name = store.add("a" * 100, time=0)
    view = store.view(name)
    assert view == store.view(name)
    assert (made, view.lossy, view.spans) == (["a" * 100], True, ())
    large = store.add("b" * 4000, time=0)
    assert store.view(large) == store.view(large)
    assert len(made) == 3  # it does not fit
    store.forget(name)
    store.add("c", id=name, time=0)
    assert store.view(name).sources == (name,)
    assert made[-1] == "c"  # another item, by the same id


def test_a_compressor_that_fails_changes_nothing() -> None:
    answers: list[object] = [OSError("no net"), None, "short"]

    def compressor(text: str, tokens: int) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    store = store_at(2 * HOUR, compressor=compressor)
    name = store.add(NOTE, time=0)
    with pytest.raises(OSError, match="no net"):
        store.views()
    with pytest.raises(TypeError, match="not None"):
        store.report()
    assert store.view(name).text == "short"
    assert store.restore(name) == NOTE


def test_callables_may_use_the_store() -> None:
    def compressor(text: str, tokens: int) -> str:
        store.add(f"made {len(store)}", time=5 * HOUR)
        store.compact()
        return store.restore(name)[:tokens]

    store = HierarchicalCompressor(
        compressor=compressor, clock=lambda: len(store) * HOUR
    )
    name = store.add(NOTE, time=-HOUR)
    assert store.view(name).text.startswith("Hello")
    assert len(store) == 2


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda s: s.add(b"x"), TypeError, "not b'x'"),
        (lambda s: s.add("x", id=3), TypeError, "not 3"),
        (lambda s: s.add("x", id="there"), ValueError, "'there' already"),
        (lambda s: s.add("x", priority=4), ValueError, "not 4"),
        (lambda s: s.add("x", priority="high"), TypeError, "not 'high'"),
        (lambda s: s.add("x", time=math.nan), ValueError, "time .* not nan"),
        (lambda s: s.views(now="now"), TypeError, "now .* not 'now'"),
        (lambda s: s.restore("gone"), KeyError, "gone"),
        (lambda s: s.forget("gone"), KeyError, "gone"),
        (lambda s: s.view("gone"), KeyError, "gone"),
        (lambda s: s.level("gone"), KeyError, "gone"),
        (lambda s: store_at(codec="rar"), ValueError, "not 'rar'"),
        (lambda s: store_at(ages=(1, 2)), ValueError, r"3 numbers .* not \(1, 2\)"),
        (lambda s: store_at(ages=(3, 2, 1)), ValueError, "ascend"),
        (lambda s: store_at(ages="abc"), TypeError, "'abc'"),
        (lambda s: store_at(ratios=(1, 0.5, 0, 0.1)), ValueError, "above 0"),
        (lambda s: store_at(ratios=(2, 0.5, 0.2, 0.1)), ValueError, "at most 1"),
        (lambda s: store_at(groups=(0, 1)), ValueError, "above 0"),
        (lambda s: store_at(compressor="llm"), TypeError, "not 'llm'"),
        (lambda s: store_at(block_size=0), ValueError, "block_size"),
    ],
)  # fmt: skip
def test_bad_arguments(
    call: Callable[[Any], object], error: type[Exception], says: str
) -> None:
    store = store_at()
    store.add("x", id="there")
    with pytest.raises(error, match=says):
        call(store)
    assert len(store) == 1


def test_names_that_are_made_up_are_free() -> None:
    store = store_at()
    assert store.add("a", id="1") == "1"
    assert len({store.add("b") for _ in range(3)} | {"1"}) == 4
    assert "1" in store
    assert 1 not in store
    assert repr(store) == "<HierarchicalCompressor of 4 items>"


def test_nothing_in_it() -> None:
    report = store_at().report()
    assert (report.items, report.ratio, report.stored_ratio) == (0, 1.0, 1.0)
    assert report.as_dict()["levels"][0]["level"] == 1


def test_threads_share_one() -> None:
    store = store_at(3 * DAY)
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            start.wait(10)
            for i in range(30):
                name = store.add(f"{k} said {i} at 14:{i:02}.", time=i * HOUR)
                store.compact()
                assert store.restore(name).startswith(f"{k} said {i}")
                if i % 3 == 0:
                    store.forget(name)
                if i % 10 == 0:
                    store.views()
                    store.report()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert len(store) == 4 * 20
    for view in store.views():
        check(store, view)


class Machine(RuleBasedStateMachine):
    """Against a dict of texts."""

    names = Bundle("names")

    @initialize()
    def make(self) -> None:
        self.now = 0.0
        self.store = HierarchicalCompressor(clock=lambda: self.now, block_size=200)
        self.model: dict[str, str] = {}

    @rule(target=names, text=st.text(max_size=80), priority=st.integers(-3, 3))
    def add(self, text: str, priority: int) -> str:
        name = self.store.add(text, priority=priority)
        assert name not in self.model
        self.model[name] = text
        return name

    @rule(name=consumes(names))
    def forget(self, name: str) -> None:
        self.store.forget(name)
        del self.model[name]

    @rule(by=st.sampled_from([1, HOUR, DAY, WEEK]))
    def pass_time(self, by: int) -> None:
        self.now += by

    @rule()
    def compact(self) -> None:
        assert all(self.store.level(name) for name in self.model)
        self.store.compact()

    @invariant()
    def all_is_there(self) -> None:
        assert len(self.store) == len(self.model)
        for name, text in self.model.items():
            assert self.store.restore(name) == text
        seen = [name for view in self.store.views() for name in view.sources]
        assert len(seen) == len(set(seen))
        for view in self.store.views():
            check(self.store, view)
        report = self.store.report()
        assert report.items == len(self.model)
        assert report.original_bytes == sum(
            len(text.encode("utf-8", "surrogatepass")) for text in self.model.values()
        )


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=15, stateful_step_count=15)
