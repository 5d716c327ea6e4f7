"""cached_method: results of an instance's own, which live no longer than it."""

import asyncio
import copy
import gc
import inspect
import pickle
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

from ctxpool.caches import decorators

cached_method = decorators.cached_method


@pytest.fixture(autouse=True)
def _back_end(impl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decorators, "CachedFunction", impl.CachedFunction)
    monkeypatch.setattr(decorators, "CachedMethod", impl.CachedMethod)


class Plain:
    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    @cached_method
    def greet(self, greeting: str, *, mark: str = "!") -> str:
        """Say it."""
        self.calls += 1
        return f"{greeting}, {self.name}{mark}"

    @cached_method(maxsize=2)
    def me(self) -> "Plain":
        return self

    @cached_method(maxsize=None)
    async def later(self, n: int) -> tuple[str, int]:
        self.calls += 1
        return self.name, n


class Slotted:
    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_method
    def greet(self, greeting: str) -> Any:
        return [greeting, self.name]


def test_each_instance_has_its_own() -> None:
    a, b = Plain("a"), Plain("b")
    for _ in range(2):
        assert a.greet("hi") == "hi, a!"
        assert b.greet("hi") == "hi, b!"
        assert a.greet("hi", mark="?") == "hi, a?"
    assert (a.calls, b.calls) == (2, 1)
    assert a.greet.cache_info()[:2] == (2, 2)
    assert Plain.greet(a, "hi") == "hi, a!"
    a.greet.cache_clear()
    assert b.greet.cache_info().currsize == 1
    assert a.greet.__doc__ == Plain.greet.__doc__ == "Say it."
    assert a.greet.__self__ is a
    assert Plain.greet.__name__ == "greet"


def test_slots() -> None:
    a, b = Slotted("a"), Slotted("b")
    assert a.greet("hi") is a.greet("hi")
    assert b.greet("hi") == ["hi", "b"]
    ref, results = weakref.ref(a), weakref.ref(a.greet.__func__)
    del a
    gc.collect()
    assert ref() is None
    assert results() is None
    assert b.greet.cache_info().currsize == 1


def test_no_instance_is_kept_alive() -> None:
    a = Plain("a")
    a.greet("hi")
    ref = weakref.ref(a)
    del a
    gc.collect()
    assert ref() is None
    a = Plain("a")
    assert a.me() is a  # a result that refers to its instance
    ref = weakref.ref(a)
    del a
    gc.collect()
    assert ref() is None


def test_no_place_for_a_weak_reference() -> None:
    class Closed:
        __slots__ = ()

        @cached_method
        def f(self) -> int:
            return 1

    with pytest.raises(TypeError, match=r"'Closed' can't be weakly referenced"):
        Closed().f()


def test_copies_and_pickles_start_anew() -> None:
    a = Plain("a")
    a.greet("hi")
    twins = [copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))]
    for twin in twins:
        twin.name = "b"
        assert twin.greet("hi") == "hi, b!"
    assert a.greet("hi") == "hi, a!"
    assert a.greet.cache_info().hits == 1


def test_equal_and_unhashable_instances() -> None:
    @dataclass
    class Point:
        x: int

        @cached_method
        def me(self) -> Any:
            return [self.x]

    a, b = Point(1), Point(1)
    assert a == b
    assert a.me() is a.me()
    assert a.me() is not b.me()


def test_inheritance() -> None:
    class Child(Plain):
        @cached_method
        def greet(self, greeting: str, *, mark: str = "!") -> str:
            return super().greet(greeting, mark=mark).upper()

    child = Child("c")
    for _ in range(2):
        assert child.greet("hi") == "HI, C!"
    assert child.calls == 1
    assert child.me() is child


def test_coroutine_methods() -> None:
    async def main() -> None:
        a, b = Plain("a"), Plain("b")
        assert await asyncio.gather(a.later(1), a.later(1), b.later(1)) == [
            ("a", 1),
            ("a", 1),
            ("b", 1),
        ]
        assert (a.calls, b.calls) == (1, 1)

    asyncio.run(main())


def test_bad_arguments_are_told_of_at_once() -> None:
    with pytest.raises(TypeError, match="Expected first argument"):
        cached_method("3")
    with pytest.raises(ValueError, match="ttl must be positive"):
        cached_method(ttl=-1)(len)


def test_classes_have_methods_too() -> None:
    class Meta(type):
        @cached_method
        def made(cls, n: int) -> Any:
            return [cls, n]

    class One(metaclass=Meta): ...

    class Other(One): ...

    assert One.made(1) is One.made(1)
    assert One.made(1)[0] is One
    assert Other.made(1)[0] is Other
    assert not any("cached" in name for name in vars(One))


def test_dict_without_weak_references() -> None:
    class Closed:
        __slots__ = ("__dict__",)

        @cached_method
        def f(self) -> int:
            return 1

    with pytest.raises(TypeError, match=r"'Closed' can't be weakly referenced"):
        Closed().f()


def test_a_call_without_an_instance() -> None:
    for call in (Plain.greet, lambda: Plain.greet(greeting="hi")):
        with pytest.raises(TypeError, match="a cached_method needs an instance"):
            call()


def test_every_way_to_call() -> None:
    a = Plain("a")
    bound = a.greet
    ways = [a.greet("hi", mark="?"), bound("hi", mark="?"), bound(*["hi"], mark="?")]
    ways += [Plain.greet(a, "hi", mark="?"), Plain.greet.__call__(a, "hi", mark="?")]
    ways += [pickle.loads(pickle.dumps(Plain.greet))(a, "hi", mark="?")]
    assert ways == ["hi, a?"] * 6
    assert a.calls == 1
    assert pickle.loads(pickle.dumps(bound))("hi") == "hi, a!"


def test_an_attribute_of_the_instance_comes_first() -> None:
    a = Plain("a")
    a.greet("hi")
    a.greet = len  # type: ignore[method-assign]
    assert a.greet("abc") == 3
    del a.greet
    assert a.greet("hi") == "hi, a!"
    assert a.calls == 1


def test_a_dict_that_came_from_elsewhere() -> None:
    a, b = Plain("a"), Plain("b")
    a.greet("hi")
    vars(b).update(vars(a), name="b")
    assert b.greet("hi") == "hi, b!"
    assert a.greet("hi") == "hi, a!"
    vars(a).clear()
    vars(a).update(name="c", calls=0)
    assert a.greet("hi") == "hi, c!"


def test_two_names(impl: Any) -> None:
    class Double:
        @cached_method
        def first(self) -> list[int]:
            return [1]

        second = first

    one = Double()
    assert one.first() is one.second()


def test_the_twins_have_one_face(twins: Any) -> None:
    native, pure = (twin.CachedMethod for twin in twins)
    assert inspect.getdoc(native) == inspect.getdoc(pure)
    assert str(inspect.signature(native)) == "(function, make)"
    assert list(inspect.signature(pure).parameters) == ["function", "make"]
