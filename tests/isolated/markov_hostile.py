# ruff: noqa: B023, F821, PT017, SIM105 (closures in loops are the probes)
"""One hostile probe of MarkovModel.

markov_hostile.py BACKEND PROBE[,PROBE...]: exits 0 when it held.
"""

import faulthandler
import gc
import importlib
import os
import random
import sys
import threading
import weakref

faulthandler.enable()
Model = importlib.import_module(f"ctxpool._{sys.argv[1]}.markov").MarkovModel


class Key:
    """A key whose comparison and hash do something, once it is armed."""

    act = None
    hashing = None

    def __init__(self, name, hash_=7):
        self.name, self.hash = name, hash_

    def __hash__(self):
        act, Key.hashing = Key.hashing, None
        try:
            if act is not None:
                act()
        finally:
            Key.hashing = act
        return self.hash

    def __eq__(self, other):
        act, Key.act = Key.act, None
        try:
            if act is not None:
                act()
        finally:
            Key.act = act
        return isinstance(other, Key) and self.name == other.name


class Once:
    """Acts the first time: what changes a model at each look would be looked up in it
    for ever, as in a dict."""

    def __init__(self, act):
        self.act, self.done = act, False

    def __call__(self):
        if not self.done:
            self.done = True
            self.act()


def boom():
    raise OSError("boom")


def trained(**options):
    model = Model(2, 20, 3, **options)
    for name in "abcabdabcabe" * 3:
        model.record(Key(name))
    return model


USES = {
    "record": lambda m: m.record(Key("b")),
    "record new": lambda m: m.record(Key("new")),
    "predict": lambda m: m.predict(3, [Key("a"), Key("b")]),
    "predict new": lambda m: m.predict(3, [Key("a"), Key("never")]),
    "train": lambda m: m.train([Key("a"), Key("b"), Key("a")], 2),
    "follow": lambda m: m.follow(5),
    "load": lambda m: m.__setstate__(trained().__getstate__()),
}
ACTS = {
    "record": lambda m: [m.record(Key(name, 7)) for name in "xyzab"],
    "predict": lambda m: m.predict(9, [Key("c")]),
    "clear": lambda m: m.clear(),
    "new size": lambda m: m.__init__(8, 2, 1),
    "churn": lambda m: [m.record(i) for i in range(500)],
    "grow": lambda m: m.__init__(3, 10**5, 16) or [m.record(i) for i in range(3000)],
    "forget": lambda m: m.forget_position(),
    "collect": lambda m: gc.collect(),
    "save": lambda m: m.__getstate__(),
    "check": lambda m: m.check(),
}


def keys_act():
    for use in USES.values():
        for act in ACTS.values():
            for where in ("act", "hashing"):
                model = trained()
                setattr(Key, where, Once(lambda: act(model)))
                try:
                    use(model)
                except ValueError as error:
                    assert "it was cleared while it was loaded" in str(error), error
                finally:
                    Key.act = Key.hashing = None
                model.check()
                use(model)
                model.check()


def keys_raise():
    for name, use in USES.items():
        for where in ("act", "hashing"):
            model = trained()
            before = model.predict(99), len(model)
            setattr(Key, where, boom)
            try:
                use(model)
            except OSError as error:
                assert str(error) == "boom"
            else:
                assert name == "follow", name
            finally:
                Key.act = Key.hashing = None
            model.check()
            if name not in ("load", "train"):
                assert before == (model.predict(99), len(model)), name
            use(model)
            model.check()


def features_misbehave():
    acting = [None]

    def features(key):
        act, acting[0] = acting[0], None
        if act is not None:
            act(model)
            acting[0] = act
        return Key(str(getattr(key, "name", key)).upper())

    for act in [*ACTS.values(), lambda m: boom()]:
        for use in ("record", "record new", "predict", "train", "follow"):
            model = trained(features=features)
            acting[0] = act
            try:
                USES[use](model)
            except OSError:
                pass
            acting[0] = None
            model.check()
            USES[use](model)
            model.check()


def names_act():
    """The key is found, and then its name's comparison changes everything."""

    class Name(Key):
        pass

    for act in ACTS.values():
        model = trained(features=lambda key: Name(getattr(key, "name", key), 9))
        model.record(Key("b"))
        Key.act = Once(lambda: act(model))
        model.record(Key("a"))
        Key.act = None
        model.check()


def del_reenters():
    class Dying(Key):
        def __del__(self):
            model.record(self.name)
            model.predict(2, [self.name])
            if random.random() < 0.02:
                model.clear()

    model = Model(2, 5, 2)
    for i in range(3000):
        model.record(Dying(i, i % 5))
        if not i % 50:
            model.check()
    model.clear()
    model.__init__()
    model.check()


def iterables_misbehave():
    model = trained()

    def keys():
        yield Key("a")
        model.clear()
        model.record(Key("b"))
        yield Key("b")
        model.__init__(1, 1, 1)
        yield Key("c")

    model.predict(3, keys())
    model.check()
    try:
        model.predict(3, (1 // 0 for _ in "x"))
    except ZeroDivisionError:
        pass
    model.train(keys())
    model.check()


def cycles():
    class Node:
        pass

    model = Model()
    node = Node()
    node.model = model
    model.record(node)
    gone = weakref.ref(node), weakref.ref(model)
    del node, model
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    model = Model(features=lambda key: (key, model) and id(key))
    model.record(1)
    gone = weakref.ref(model)
    model = None
    gc.collect()
    assert gone() is None


def cleared_by_the_collector():
    """A model in a cycle, used by a finalizer after the collector cleared it."""

    class Last:
        def __del__(self):
            self.model.record("x")
            self.model.predict(3)
            self.model.check()

    for _ in range(50):
        last = Last()
        last.model = Model(2, 10, 2)
        last.model.record(last)
        last.model.record("y")
        del last
        gc.collect()


def references():
    key, other = Key("mine"), Key("other")
    before = sys.getrefcount(key)
    model = Model(3, 10, 4)
    for _ in range(200):
        model.record(key)
        model.record(other)
        model.predict(3, [key])
        model.follow(4)
        model.__getstate__()
    assert sys.getrefcount(key) - before < 10, sys.getrefcount(key)
    model.clear()
    assert sys.getrefcount(key) == before
    model.train([key, other] * 10)
    for name in (model.__getstate__, lambda: model.predict(2, [key, key])):
        once = sys.getrefcount(key)
        for _ in range(50):
            name()
        assert sys.getrefcount(key) == once
    del model
    gc.collect()
    assert sys.getrefcount(key) == before


def nested_deep():
    model = Model(1, 1, 1)
    for _ in range(20_000):
        outer = Model(1, 1, 1)
        outer.record(model)
        model = outer
    del outer, model


def threads():
    model = Model(2, 50, 4)
    errors, barrier = [], threading.Barrier(4)

    def work(seed):
        rng = random.Random(seed)
        try:
            barrier.wait(60)
            for i in range(3000):
                model.record((rng.randrange(200), "x"))
                if i % 7 == seed:
                    assert sum(p for _, p in model.predict(4)) <= 1 + 1e-9
                    assert len(model) <= 100
                    model.follow(3)
                    model.predict(2, [(3, "x"), seed])
                if i % 500 == 100 * seed:
                    model.clear()
                    model.__init__(2, 50, 4)
                if i % 600 == 5:
                    model.check()
                    Model.__new__(Model).__setstate__(model.__getstate__())
                    model.forget_position()
        except BaseException as error:
            errors.append(error)

    sys.setswitchinterval(1e-5)
    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == [], errors
    model.check()


def fork():
    if not hasattr(os, "fork"):
        return
    model = trained()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            model.record(random.randrange(50))

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                model.record("child")
                model.predict(3)
                model.check()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()
    model.check()


def memory_is_flat():
    import psutil

    me = psutil.Process()

    def work():
        for _ in range(4):
            model = Model(3, 500, 8)
            for i in range(3000):
                model.record(f"key-{i % 700}")
            model.predict(50, ["key-5"])
            model.follow(20)
            copy = Model.__new__(Model)
            copy.__setstate__(model.__getstate__())
            model.clear()

    for _ in range(4):
        work()
    before = me.memory_info().rss
    for _ in range(12):
        work()
    if "asan" not in os.environ.get("LD_PRELOAD", ""):  # it keeps what was freed
        assert me.memory_info().rss - before < 6 << 20


def interpreter_exit():
    global KEPT

    class Late:
        def __del__(self):
            KEPT.record("late")
            KEPT.predict(2)

    KEPT = Model()
    KEPT.record(Late())


def uninitialised():
    """What __new__ alone makes may be used, or refused, and harms nobody."""
    for act in USES.values():
        model = Model.__new__(Model)
        try:
            act(model)
        except AttributeError:
            assert sys.argv[1] == "pure"


if __name__ == "__main__":
    for name in sys.argv[2].split(","):
        globals()[name]()
