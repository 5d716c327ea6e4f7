"""A model of which key comes next: prediction by partial matching (PPM).

For each context, the last one, two ... *order* keys, it counts what followed. The
longest known context predicts; what it does not know it leaves to the next shorter one
(Cleary and Witten 1984, "Data compression using adaptive coding and partial string
matching"). Moffat's update exclusion (1990, "Implementing the PPM data compression
scheme") makes it quick: a context that knew the key spares the shorter ones. How much a
context is to be believed is itself learned, per kind of context (secondary escape
estimation: Bloom 1998, "Solving the problems of context modeling"; Shkarin 2002, "PPM:
one step to practicality"), with Moffat's method C as the prior: that makes the
confidences true. PPM as a prefetcher: Vitter and Krishnan 1996, "Optimal prefetching
via data compression"; Kroeger and Long 2001, "Design and implementation of a predictive
file prefetching algorithm".
"""

from bisect import bisect
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from operator import itemgetter
from typing import Any

from .. import LRUCache, _arguments
from .._pure.locks import new_rlock

__all__ = ["MarkovModel"]

BATCH = 32  # records that may wait to be learned
MOST = 255  # of a context's counts: then all are halved, so that it follows changes
# Kinds of contexts of one order, told apart by their counts, about as a logarithm, and
# by their distinct followers up to 8.
STEPS = (1, 2, 3, 4, 6, 9, 13, 20, 32, 64, 128, 256)
KINDS = 8 * len(STEPS)
KIND = [8 * (bisect(STEPS, max(total, 1)) - 1) for total in range(2 * MOST)]
MEMORY = 1000  # tries of one kind of context: then halved, for the same reason
probability = itemgetter(1)


class _Context:
    """What followed a context, and how often."""

    __slots__ = ("counts", "total")

    def __init__(self, key: Any) -> None:
        self.counts = {key: 1}
        self.total = 1


class MarkovModel:
    """Learns a sequence of keys while it goes on, and predicts the next ones.

    Parameters
    ----------
    order : int, optional
        The longest context, in keys: 1 to 8.
    contexts : int, optional
        Most contexts of each length; the least recently used are forgotten.
    successors : int, optional
        Most keys that a context remembers as its followers.
    features : callable, optional
        ``features(key)`` is what contexts are made of instead of the key: something
        hashable, such as ``(key.table, hour())``. What is predicted are keys.

    Raises
    ------
    TypeError, ValueError
        An argument is no whole number, or not in its range; *features* isn't callable.

    Notes
    -----
    *Memory* is bounded: ``order * contexts`` contexts of at most ``successors`` keys.

    *Cost.* O(order) for a record, O(order * successors) for a prediction; neither
    depends on how much was learned. On CPython 3.11 that is about a microsecond for a
    record of a sequence it knows, three for one of independent draws, and three to five
    for a prediction.

    *Threads.* Each call is atomic. A record is noted at once and learned with some
    others, before the next prediction at the latest.

    Examples
    --------
    >>> from ctxpool.caches import MarkovModel
    >>> model = MarkovModel()
    >>> accuracy = model.train("abcabcabcabc" * 5)
    >>> model.record("a"), model.record("b")
    (None, None)
    >>> [(key, confidence)] = model.predict(1)
    >>> key, confidence > 0.5
    ('c', True)
    """

    def __init__(
        self,
        order: int = 3,
        contexts: int = 10_000,
        successors: int = 16,
        *,
        features: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self._order = _arguments.count("order", order, 1, 8)
        contexts = _arguments.count("contexts", contexts, 1, 1 << 30)
        self._successors = _arguments.count("successors", successors, 1, 1 << 16)
        if features is not None and not callable(features):
            raise TypeError(f"features must be callable, not {features!r}")
        self._features = features
        self._lock = new_rlock()  # the model, but for _pending
        # Contexts of one key, of two...: the key itself, then tuples of keys.
        self._levels: list[Any] = [LRUCache(contexts) for _ in range(self._order)]
        self._busy = False  # learning: an __eq__ or __hash__ may come back here
        self._pending: deque[Any] = deque()
        self._recent: tuple[Any, ...] = ()
        # How often a context of each kind knew the key that came.
        self._tries: list[float] = []
        self._known: list[float] = []
        for _ in range(2 * self._order):
            for kind in range(KINDS):
                total, distinct = STEPS[kind >> 3], (kind & 7) + 1
                self._tries.append(2.0)
                self._known.append(2.0 * total / (total + distinct))

    def record(self, key: Hashable) -> None:
        """Note that *key* was used.

        Parameters
        ----------
        key : hashable

        Raises
        ------
        TypeError
            *key* can't be hashed.
        """
        hash(key)
        pending = self._pending
        pending.append(key)
        if len(pending) >= BATCH:
            self._learn()

    def predict(self, n: int = 1, after: Iterable[Hashable] = ()) -> list[Any]:
        """The likeliest next keys.

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
        self._learn()
        with self._lock:
            recent = self._recent
            for key in after:
                recent = self._extended(recent, key)
            found = self._distribution(recent)
        if n == 1 and found:
            return [max(found.items(), key=probability)]
        return sorted(found.items(), key=probability, reverse=True)[:n]

    def follow(self, steps: int) -> list[Any]:
        """The likeliest way on, key by key.

        Parameters
        ----------
        steps : int
            Most keys to return.

        Returns
        -------
        list of (key, float)
            The likeliest next key, the likeliest one after that..., each with the
            probability of the way up to there.
        """
        way: list[Any] = []
        reached = 1.0
        for _ in range(_arguments.count("steps", steps, 0, 1 << 30)):
            best = self.predict(1, [key for key, _ in way])
            if not best:
                break
            reached *= best[0][1]
            way.append((best[0][0], reached))
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
                right += bool(best) and best[0][0] == key
                self.record(key)
            accuracy.append(right / len(keys) if keys else 0.0)
        self._learn()
        self.forget_position()
        return accuracy

    def forget_position(self) -> None:
        """Begin a new sequence: the next key does not follow the last one."""
        self._learn()
        with self._lock:
            self._recent = ()

    def clear(self) -> None:
        """Forget everything."""
        self.forget_position()
        for level in self._levels:
            level.clear()

    def __len__(self) -> int:
        """How many contexts are known."""
        self._learn()
        return sum(len(level) for level in self._levels)

    def _learn(self) -> None:
        with self._lock:
            if self._busy:
                return
            self._busy = True
            try:
                self._learn_pending()
            except BaseException:
                self._recent = ()  # what comes next does not follow what was before
                raise
            finally:
                self._busy = False

    def _extended(self, recent: tuple[Any, ...], key: Any) -> tuple[Any, ...]:
        if self._features is not None:
            key = self._features(key)
        if len(recent) == self._order:
            return (*recent[1:], key)
        return (*recent, key)

    def _learn_pending(self) -> None:
        pending, features, order = self._pending, self._features, self._order
        known, tries = self._known, self._tries
        lookup = [(n, level, level.get) for n, level in enumerate(self._levels, 1)]
        lookup.reverse()
        while pending:
            key = pending.popleft()
            recent = self._recent
            length = len(recent)
            kinds, missing = 0, None
            for size, level, get in lookup[order - length :]:
                if size == length > 1:
                    name = recent
                else:
                    name = recent[-size:] if size > 1 else recent[-1]
                context = get(name)
                if context is None:
                    missing = level, name
                    continue
                counts, total = context.counts, context.total
                distinct = len(counts)
                kind = (
                    kinds
                    + (size - 1) * (2 * KINDS)
                    + KIND[total]
                    + (distinct - 1 if distinct < 8 else 7)
                )
                tried = tries[kind] = tries[kind] + 1
                if tried > MEMORY:
                    tries[kind] /= 2
                    known[kind] /= 2
                if key in counts:
                    known[kind] += 1
                    counts[key] += 1
                    context.total = total + 1
                    if total >= MOST:
                        _halve(context)
                    break
                if distinct >= self._successors:
                    _make_room(context)
                counts[key] = 1
                context.total += 1
                kinds = KINDS  # a longer one did not know
            if missing is not None:
                # One more a time: the shortest that is not known yet.
                missing[0][missing[1]] = _Context(key)
            if features is not None:
                key = features(key)
            self._recent = (*recent[1:], key) if length == order else (*recent, key)

    def _distribution(self, recent: tuple[Any, ...]) -> dict[Any, float]:
        found: dict[Any, float] = {}
        left, kinds = 1.0, 0
        for size in range(len(recent), 0, -1):
            name = recent[-1] if size == 1 else recent[-size:]
            context = self._levels[size - 1].peek(name)
            if context is None:
                continue
            counts, total = context.counts, context.total
            kind = kinds + (size - 1) * (2 * KINDS)
            kind += KIND[total] + min(len(counts), 8) - 1
            # Not quite 1: nothing is certain.
            believed = min(self._known[kind] / (self._tries[kind] + 0.01), 0.999)
            if not found:
                scale = left * believed / total
                found = {key: count * scale for key, count in counts.items()}
            else:
                fresh = [item for item in counts.items() if item[0] not in found]
                total = sum(count for _, count in fresh)
                for key, count in fresh:
                    found[key] = count * left * believed / total
                if not fresh:
                    continue
            left *= 1.0 - believed
            kinds = KINDS
            if left < 0.01:
                break
        return found


def _halve(context: _Context) -> None:
    counts = context.counts
    halves = {key: count // 2 for key, count in counts.items() if count > 1}
    counts.clear()
    counts.update(halves)
    context.total = sum(halves.values())


def _make_room(context: _Context) -> None:
    """Forget followers that were rare: all counts are halved, and one goes at least."""
    counts = context.counts
    rarest = min(counts, key=counts.__getitem__)
    rare = counts.pop(rarest)
    context.total -= rare
    if rare > 1:
        _halve(context)
