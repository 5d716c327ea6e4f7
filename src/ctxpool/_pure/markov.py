"""A model of which key comes next: prediction by partial matching (PPM).

For each context, the last one, two ... *order* keys, it counts what followed. The
longest known context predicts; what it does not know it leaves to the next shorter one,
down to the context of no key at all (Cleary and Witten 1984, "Data compression using
adaptive coding and partial string matching"). Moffat's update exclusion (1990,
"Implementing the PPM data compression scheme") makes it quick: a context that knew the
key spares the shorter ones. PPM as a prefetcher: Vitter and Krishnan 1996, "Optimal
prefetching via data compression"; Kroeger and Long 2001, "Design and implementation of
a predictive file prefetching algorithm".

What makes the confidences true is that none is read off the counts, which know neither
how young a context is nor that a shorter one counts only what the longer did not know.
They are rates of success, learned for all contexts that look alike (secondary escape
estimation: Bloom 1998, "Solving the problems of context modeling"; Shkarin 2002, "PPM:
one step to practicality"). Contexts are alike that have the same length, about as many
counts, and did or did not follow a longer one that failed. Where one follower has a
third of the counts or more, how often such leaders come is learned apart from how often
one of the others does.

Keys are interned: contexts are made of symbols, whose comparison runs no foreign code.
"""

from __future__ import annotations

import operator
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from itertools import chain
from typing import Any

from .. import _arguments
from .. import _markov_support as support
from .._markov_support import MEMORY, MOST, RATES, STEP
from .._pickling import constructor
from .locks import new_rlock

__all__ = ["MarkovModel"]

FAINT = 0.01  # what is left to the shorter contexts, when they are not asked


class _Symbol:
    """A key that some context or the position names."""

    __slots__ = ("hash", "key", "live", "uses")

    def __init__(self, key: Any, hash_: int) -> None:
        self.key = key
        self.hash = hash_
        self.uses = 0
        self.live = True


class _Context:
    """What followed a context, the most frequent first, and how often."""

    __slots__ = ("counts", "symbols", "total")

    def __init__(self) -> None:
        self.symbols: list[_Symbol] = []
        self.counts: list[int] = []
        self.total = 0


class MarkovModel:
    """Learns a sequence of keys while it goes on, and predicts the next ones.

    Parameters
    ----------
    order : int, optional
        The longest context, in keys: 1 to 8.
    contexts : int, optional
        Most contexts of each length; the least recently used are forgotten. A loop of
        more keys than that is forgotten before it comes round.
    successors : int, optional
        Most keys that a context remembers as its followers: 1 to 128.
    features : callable, optional
        ``features(key)`` is what contexts are made of instead of the key: something
        hashable, such as ``(key.table, hour())``. What is predicted are keys.

    Raises
    ------
    TypeError, ValueError
        An argument is no whole number, or not in its range; *features* isn't callable.
    MemoryError
        There is no memory for the contexts.

    Notes
    -----
    Prediction by partial matching: the longest known context predicts, and leaves what
    it does not know to the next shorter one. Confidences are learned rates of success,
    so that of the predictions at 0.3 about 30 % come true.

    *Memory* is bounded: ``order * contexts`` contexts of at most ``successors`` keys,
    and no key is kept that none of them names. ``max_bytes`` tells the bytes.

    *Cost.* O(order * successors) for a record and for a prediction, neither depending
    on how much was learned. Native: about 0.1 microseconds for a record of a sequence
    that it knows, 0.2 to 0.3 for one of independent draws, and half a microsecond for a
    prediction.

    **Thread-safety**: each single call is atomic, but for :meth:`train` and, with
    *features*, :meth:`follow`. Keys are compared inside it, so an ``__eq__`` that
    blocks will block others; it may use the model itself.

    Examples
    --------
    >>> model = MarkovModel()
    >>> accuracy = model.train("abcabcabcabc" * 5)
    >>> model.record("a"), model.record("b")
    (None, None)
    >>> [(key, confidence)] = model.predict(1)
    >>> key, confidence > 0.5
    ('c', True)
    """

    # Symbols by the hashes of their keys: what is in there changes only together with
    # the version. The unused are so, or were for a moment.
    _symbols: dict[int, list[_Symbol]]
    _unused: list[_Symbol]
    __slots__ = (
        "__weakref__",
        "_contexts",
        "_features",
        "_hits",
        "_levels",
        "_lock",
        "_order",
        "_recent",
        "_root",
        "_successors",
        "_symbols",
        "_tries",
        "_unused",
        "_version",
    )

    def __init__(
        self,
        order: int = 3,
        contexts: int = 10_000,
        successors: int = 16,
        *,
        features: Callable[[Any], Hashable] | None = None,
    ) -> None:
        order = _arguments.count("order", order, 1, 8)
        contexts = _arguments.count("contexts", contexts, 1, 1 << 24)
        successors = _arguments.count("successors", successors, 1, 128)
        if features is not None and not callable(features):
            raise TypeError(f"features must be callable, not {features!r}")
        if not hasattr(self, "_lock"):
            self._lock = new_rlock()  # all the others
            self._symbols = {}
            self._unused, self._version = [], 0
        with self._lock:
            self._features = features
            old = self._forget(order, contexts, successors)
        del old

    def _forget(self, order: int, contexts: int, successors: int) -> Any:
        """Begin anew; what there was, to die outside the lock."""
        old = self._symbols, self._unused
        self._order, self._contexts, self._successors = order, contexts, successors
        self._symbols, self._unused = {}, []
        self._version += 1
        self._root = _Context()
        # By length; the least recently used first.
        self._levels: list[OrderedDict[tuple[_Symbol, ...], _Context]] = [
            OrderedDict() for _ in range(order + 1)
        ]
        self._recent: tuple[_Symbol, ...] = ()
        hits, tries = support.priors(order)
        self._hits, self._tries = array("d", hits), array("d", tries)
        return old

    # ---- Symbols: foreign code runs in _find() alone ----

    def _find(self, key: Any, hash_: int) -> _Symbol | None:
        while True:
            version = self._version
            for symbol in self._symbols.get(hash_, ()):
                same = symbol.key is key or bool(symbol.key == key)
                if version != self._version:
                    break
                if same:
                    return symbol
            else:
                break
        return None

    def _intern(self, key: Any, hash_: int) -> _Symbol:
        symbol = self._find(key, hash_)
        return self._new_symbol(key, hash_) if symbol is None else symbol

    def _new_symbol(self, key: Any, hash_: int) -> _Symbol:
        symbol = _Symbol(key, hash_)
        self._symbols[hash_] = [*self._symbols.get(hash_, ()), symbol]
        self._version += 1
        self._unused.append(symbol)
        return symbol

    def _release(self, symbols: Iterable[_Symbol]) -> None:
        for symbol in symbols:
            symbol.uses -= 1
            if not symbol.uses:
                self._unused.append(symbol)

    def _sweep(self) -> list[_Symbol]:
        """Drop the symbols that nothing names, to die outside the lock."""
        unused, self._unused = self._unused, []
        for symbol in unused:
            if symbol.uses or not symbol.live:
                continue
            symbol.live = False
            others = [s for s in self._symbols[symbol.hash] if s is not symbol]
            if others:
                self._symbols[symbol.hash] = others
            else:
                del self._symbols[symbol.hash]
            self._version += 1
        return unused

    # ---- Use ----

    def record(self, key: Hashable) -> None:
        """Note that *key* was used. O(order * successors).

        Parameters
        ----------
        key : hashable

        Raises
        ------
        TypeError
            *key* can't be hashed.
        Exception
            Whatever the key's methods or ``features`` raise; nothing is noted then.
        """
        hash_ = hash(key)
        name: Any = key
        name_hash = hash_
        if self._features is not None:
            name = self._features(key)
            name_hash = hash(name)
        with self._lock:
            try:
                while True:
                    symbol = self._intern(key, hash_)
                    version = self._version
                    own = symbol if name is key else self._find(name, name_hash)
                    if version == self._version:
                        break
                if own is None:
                    own = self._new_symbol(name, name_hash)
                self._learn(symbol, own)
            finally:
                dead = self._sweep()
        del dead

    def predict(self, n: int = 1, after: Iterable[Hashable] = ()) -> list[Any]:
        """The likeliest next keys. O(order * successors).

        Parameters
        ----------
        n : int, optional
            Most keys to return.
        after : iterable, optional
            Keys to be taken as used next: what would follow them? Not recorded.

        Returns
        -------
        list of (key, float)
            Distinct keys, the likeliest first, each with its probability to be the very
            next one. They sum to 1 at most; the rest is for keys not seen here before.

        Raises
        ------
        TypeError, ValueError
            *n* is no whole number of at least 0.
        """
        n = _arguments.count("n", n, 0, 1 << 30)
        names = self._names(after)
        with self._lock:
            ranked = self._ranked(self._extended(names))[:n]
            return [(symbol.key, chance) for symbol, chance in ranked]

    def follow(self, steps: int) -> list[Any]:
        """The likeliest way on, key by key. O(order * successors) for each.

        Parameters
        ----------
        steps : int
            Most keys to return: up to 65,536.

        Returns
        -------
        list of (key, float)
            The likeliest next key, the likeliest one after that..., each with the
            probability of the way up to there.
        """
        steps = _arguments.count("steps", steps, 0, 1 << 16)
        way: list[Any] = []
        reached = 1.0
        if self._features is not None:
            while len(way) < steps:
                best = self.predict(1, [key for key, _ in way[-self._order :]])
                if not best:
                    break
                reached *= best[0][1]
                way.append((best[0][0], reached))
            return way
        with self._lock:
            recent: tuple[_Symbol | None, ...] = self._recent
            while len(way) < steps:
                ranked = self._ranked(recent)
                if not ranked:
                    break
                symbol, chance = ranked[0]
                reached *= chance
                way.append((symbol.key, reached))
                recent = (*recent, symbol)[-self._order :]
        return way

    def train(self, history: Iterable[Hashable], epochs: int = 1) -> list[float]:
        """Record a whole sequence, as often as *epochs* says.

        Parameters
        ----------
        history : iterable of hashable
            Keys in the order of their use. What came before and what comes after are
            not connected with it.
        epochs : int, optional
            How often to go through it.

        Returns
        -------
        list of float
            For each epoch, the share of keys that were the likeliest one beforehand.
        """
        keys = list(history)
        accuracy = []
        for _ in range(_arguments.count("epochs", epochs, 0, 1 << 30)):
            self.forget_position()
            right = 0
            for key in keys:
                best = self.predict(1)
                right += bool(best) and bool(best[0][0] == key)
                self.record(key)
            accuracy.append(right / len(keys) if keys else 0.0)
        self.forget_position()
        return accuracy

    def forget_position(self) -> None:
        """Begin a new sequence: the next key does not follow the last one."""
        with self._lock:
            self._release(self._recent)
            self._recent = ()
            dead = self._sweep()
        del dead

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            old = self._forget(self._order, self._contexts, self._successors)
        del old

    def __len__(self) -> int:
        """How many contexts are known."""
        with self._lock:
            return sum(len(level) for level in self._levels)

    @property
    def max_bytes(self) -> int:
        """The bound of the native tables' bytes, the keys themselves not counted.

        The tables of the contexts are taken at construction (the system gives pages of
        them as they are used); that of the keys grows with them, to half of the bound
        or more only where hardly a key follows two contexts. The pure-Python twin takes
        several times as much.
        """
        return support.max_bytes(self._order, self._contexts, self._successors)

    def check(self) -> None:
        """Walk all invariants. O(n); for tests.

        Raises
        ------
        AssertionError
            One is broken.
        """
        with self._lock:
            uses: dict[_Symbol, int] = {}
            assert len(self._recent) <= self._order
            named: Any = [self._recent]
            for size, level in enumerate(self._levels):
                assert len(level) <= (self._contexts if size else 0)
                assert all(len(name) == size for name in level)
                named += level
            contexts = [c for level in self._levels for c in level.values()]
            for context in (*contexts, self._root):
                counts = context.counts
                assert context is self._root or counts
                assert len(counts) == len(context.symbols) <= self._successors
                assert counts == sorted(counts, reverse=True)
                assert not counts or counts[-1] > 0
                assert sum(counts) == context.total < MOST
                assert len(set(context.symbols)) == len(counts)
                named.append(context.symbols)
            for symbol in chain.from_iterable(named):
                uses[symbol] = uses.get(symbol, 0) + 1
            known = [s for bucket in self._symbols.values() for s in bucket]
            assert set(uses) == set(known)
            assert len(known) == len(set(known))
            assert all(s.uses == uses[s] and s.live for s in known)
            for hits, tries in zip(self._hits, self._tries, strict=True):
                assert 0 <= hits <= tries <= MEMORY

    # ---- Learning: no foreign code runs below ----

    def _learn(self, symbol: _Symbol, own: _Symbol) -> None:
        recent = self._recent
        visited: list[_Context] = []
        missing = escaped = 0
        for size in range(len(recent), -1, -1):
            if size:
                level, name = self._levels[size], recent[-size:]
                found = level.get(name)
                if found is None:
                    missing = size
                    continue
                level.move_to_end(name)
                context = found
            else:
                context = self._root
            known = symbol in context.symbols
            if context.symbols:
                base = RATES * (2 * size + escaped)
                self._judge(base, context, symbol, known, visited)
            visited.append(context)
            if known:
                break
            escaped = 1
        for context in visited:
            self._count(context, symbol)
        if missing:  # one more a time: the shortest that is not known yet
            self._remember(missing, symbol)
        own.uses += 1
        if len(recent) == self._order:
            self._release(recent[:1])
            recent = recent[1:]
        self._recent = (*recent, own)

    def _judge(
        self,
        base: int,
        context: _Context,
        symbol: _Symbol,
        known: bool,
        longer: list[_Context],
    ) -> None:
        """Learn how true the context's prediction was."""
        leader = context.symbols[0]
        lead, rest = _kinds(base, context)
        if lead < 0:
            self._try(rest, known)
            return
        if leader is symbol:
            self._try(lead, True)
            return
        if not any(leader in other.symbols for other in longer):
            self._try(lead, False)  # else it was known not to come
        if len(context.symbols) > 1:
            self._try(rest, known)

    def _try(self, kind: int, hit: bool) -> None:
        self._tries[kind] += 1.0
        if hit:
            self._hits[kind] += 1.0
        if self._tries[kind] >= MEMORY:
            self._tries[kind] *= 0.5
            self._hits[kind] *= 0.5

    def _rate(self, kind: int) -> float:
        """Neither 0 nor quite 1: nothing is certain."""
        return min((self._hits[kind] + 0.01) / (self._tries[kind] + 0.02), 0.999)

    def _count(self, context: _Context, symbol: _Symbol) -> None:
        """One more for *symbol*, which comes before others of the same count."""
        symbols, counts = context.symbols, context.counts
        if symbol in symbols:
            at = symbols.index(symbol)
            count = counts.pop(at) + 1
            del symbols[at]
        else:
            if len(symbols) == self._successors:
                rarest = counts.pop()
                context.total -= rarest
                self._release([symbols.pop()])
                if rarest > 1:
                    self._halve(context)
            at, count = len(symbols), 1
            symbol.uses += 1
        while at and counts[at - 1] <= count:
            at -= 1
        symbols.insert(at, symbol)
        counts.insert(at, count)
        context.total += 1
        if context.total >= MOST:
            self._halve(context)

    def _halve(self, context: _Context) -> None:
        context.counts[:] = [count // 2 for count in context.counts if count > 1]
        context.total = sum(context.counts)
        self._release(context.symbols[len(context.counts) :])
        del context.symbols[len(context.counts) :]

    def _remember(self, size: int, symbol: _Symbol) -> None:
        """A new context of the last *size* keys."""
        level = self._levels[size]
        if len(level) == self._contexts:
            name, context = level.popitem(last=False)
            self._release(name)
            self._release(context.symbols)
        context = level[self._recent[-size:]] = _Context()
        for named in self._recent[-size:]:
            named.uses += 1
        self._count(context, symbol)

    # ---- Prediction ----

    def _names(self, after: Iterable[Hashable]) -> list[tuple[Any, int]]:
        """What the last of *after* are called in contexts, and the hashes."""
        names: list[tuple[Any, int]] = []
        for key in after:
            name = key if self._features is None else self._features(key)
            names.append((name, hash(name)))
        return names[-self._order :]

    def _extended(self, names: list[tuple[Any, int]]) -> tuple[_Symbol | None, ...]:
        """The position after *names*; what was never seen is None."""
        while True:
            version = self._version
            found = [self._find(name, hash_) for name, hash_ in names]
            if version == self._version:
                return (*self._recent, *found)[-self._order :]

    def _ranked(
        self, recent: tuple[_Symbol | None, ...]
    ) -> list[tuple[_Symbol, float]]:
        found: dict[_Symbol, float] = {}
        left, escaped = 1.0, 0
        for size in range(len(recent), -1, -1):
            context = self._root
            if size:
                known = self._levels[size].get(recent[-size:])  # type: ignore[arg-type]
                if known is None:
                    continue
                context = known
            elif not context.symbols:
                break
            symbols, counts = context.symbols, context.counts
            fresh = [i for i, symbol in enumerate(symbols) if symbol not in found]
            if not fresh:
                continue
            lead, rest = _kinds(RATES * (2 * size + escaped), context)
            if lead >= 0 and fresh[0] == 0:
                rate = self._rate(lead)
                found[symbols[0]] = left * rate
                left *= 1.0 - rate
                del fresh[0]
            if fresh:
                rate = self._rate(rest)
                scale = left * rate / sum(counts[i] for i in fresh)
                for i in fresh:
                    found[symbols[i]] = scale * counts[i]
                left *= 1.0 - rate
            escaped = 1
            if left < FAINT:
                break
        return sorted(found.items(), key=operator.itemgetter(1), reverse=True)

    # ---- Copy and pickle ----

    def __reduce__(self) -> tuple[Any, ...]:
        return *constructor(type(self)), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        """Everything: keys, and as numbers where they are among the contexts."""
        with self._lock:
            known = [s for bucket in self._symbols.values() for s in bucket]
            number = {symbol: i for i, symbol in enumerate(known)}
            saved = [len(self._recent), *(number[symbol] for symbol in self._recent)]
            named: list[Any] = [((), self._root)]
            for level in self._levels:
                named += level.items()
            for name, context in named:
                saved += [len(name), len(context.symbols)]
                saved += [number[symbol] for symbol in (*name, *context.symbols)]
                saved += context.counts
            return {
                "order": self._order,
                "contexts": self._contexts,
                "successors": self._successors,
                "features": self._features,
                "keys": [symbol.key for symbol in known],
                "learned": support.pack(array("I", saved).tobytes(), "I"),
                "hits": support.pack(self._hits.tobytes(), "d"),
                "tries": support.pack(self._tries.tobytes(), "d"),
                "attributes": getattr(self, "__dict__", None),
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`__getstate__` gave."""
        if state["attributes"]:
            self.__dict__.update(state["attributes"])
        MarkovModel.__init__(
            self,
            state["order"],
            state["contexts"],
            state["successors"],
            features=state["features"],
        )
        rates = support.unpack(state["hits"], state["tries"], self._order)
        saved = array("I", support.pack(state["learned"], "I")).tolist()
        with self._lock:
            own, known = self._symbols, []
            try:
                for key in state["keys"]:
                    symbol = self._intern(key, hash(key))
                    symbol.uses += 1
                    known.append(symbol)
                    if self._symbols is not own:
                        raise support.invalid("it was cleared while it was loaded")
                self._load(saved, known)
                self._hits, self._tries = (array("d", each) for each in rates)
            except BaseException:
                if self._symbols is own:
                    self._forget(self._order, self._contexts, self._successors)
                raise
            self._release(known)
            dead = self._sweep()
        del dead

    def _load(self, saved: list[int], known: list[_Symbol]) -> None:
        at = 0

        def symbols(n: int) -> list[_Symbol]:
            nonlocal at
            at += n
            if at > len(saved) or any(i >= len(known) for i in saved[at - n : at]):
                raise support.invalid("it is damaged")
            return [known[i] for i in saved[at - n : at]]

        if not saved or saved[0] > self._order:
            raise support.invalid("it is damaged")
        at = 1
        self._recent = tuple(symbols(saved[0]))
        for symbol in self._recent:
            symbol.uses += 1
        while at < len(saved):
            size, n = (*saved[at : at + 2], self._order + 1)[:2]
            at += 2
            name, followers = tuple(symbols(size)), symbols(n)
            counts = saved[at : at + n]
            at += n
            context = _Context() if size else self._root
            if (
                size > self._order
                or n > self._successors
                or len(counts) != n
                or len(set(followers)) != n
                or (size and not n)
                or counts != sorted(counts, reverse=True)
                or 0 in counts
                or sum(counts) >= MOST
                or context.symbols
                or name in self._levels[size]
                or (size and len(self._levels[size]) == self._contexts)
            ):
                raise support.invalid("it is damaged")
            if size:
                self._levels[size][name] = context
            context.symbols, context.counts = followers, counts
            context.total = sum(counts)
            for symbol in (*name, *followers):
                symbol.uses += 1


def _kinds(base: int, context: _Context) -> tuple[int, int]:
    """The rates of the leader, or -1 where none is, and of (other) followers."""
    total, first = context.total, context.counts[0]
    step, followers = STEP[total], min(len(context.counts), support.FOLLOWERS) - 1
    rest = base + support.LEADS + step * support.FOLLOWERS + followers
    if 3 * first < total:
        return -1, rest + support.RESTS
    return base + step * support.SHARES + first * 16 // total - 5, rest
