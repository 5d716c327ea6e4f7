"""LRUCache in Python: a dict in the order of insertion, another in that of use."""

import heapq
import sys
import time
from builtins import len  # someone may put a cached function, that is us, in its place
from collections import OrderedDict
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import Any, Generic, TypeVar

from .. import _cache_support as support
from .. import _unraisable
from .._pickling import constructor
from ..errors import ValueTooLargeError
from ..stats import LRUCacheStats
from .locks import new_rlock

__all__ = ["LRUCache"]

K = TypeVar("K")
V = TypeVar("V")

MISSING = support.MISSING
# As in the native twin: a text, which is what a signature can show.
NO_DEFAULT: Any = "".join(["<no ", "default>"])
INF = float("inf")
# The methods whose overriding in a subclass changes what another method does.
HOOKS = [
    "__contains__",
    "__delitem__",
    "__getitem__",
    "__missing__",
    "__setitem__",
    "getsizeof",
    "popitem",
]
# Due entries that one store drops beyond those it must.
DUE_PER_STORE = 2
REASONS = ("capacity", "expired", "resize")
MAKE_ROOM: Any = object()


class _Node:
    """An entry."""

    __slots__ = ("due", "key", "seq", "size", "tag", "token", "value")

    def __init__(self, key: Any, value: Any, size: int | float) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.due = INF
        self.seq = 0
        self.tag = 0  # of its hash, where the policy wants it
        self.token = 0  # of its item in the heap


class _GetSizeOf:
    """``cache.getsizeof(value)``: the function that was given, else 1 for each."""

    def __get__(self, cache: Any, owner: Any = None) -> Callable[[Any], Any]:
        given = None if cache is None else cache._getsizeof
        return _one if given is None else given

    def __set__(self, cache: Any, function: Callable[[Any], Any]) -> None:
        cache._getsizeof = function


def _one(value: object) -> int:
    """The size of a value where no getsizeof was given: 1."""
    return 1


class LRUCache(MutableMapping[K, V], Generic[K, V]):
    """A mapping with a bound: when it is full, the least recently used entry goes.

    A drop-in for ``cachetools.LRUCache``, subclasses included. It is a
    ``MutableMapping``; iteration follows the order of insertion, as in a dict, over
    a snapshot taken when it starts, and changes nothing of the order of use.

    ``cache[key]``, ``get``, ``get_many``, ``setdefault`` and ``get_or_compute`` count
    a hit or a miss and make the entry the most recently used; so does ``pop``, which
    removes it. ``in``, ``peek`` and all iteration do neither.

    Parameters
    ----------
    maxsize : int or float
        The bound of ``currsize``; ``math.inf`` for none.
    getsizeof : callable, optional
        ``getsizeof(value)`` gives the size of a value, an int or a float that is not
        negative. Without it each entry counts 1. A subclass may define the method
        instead. Sizes are added as C doubles: exact for whole numbers up to 2**53.
    ttl : float, optional
        Seconds an entry lives after it was stored. An expired entry is as good as
        gone: a look-up that meets it is a miss and removes it, ``len``, ``currsize``,
        ``stats`` and iteration remove all that are due first, a store removes up to
        two, and a full cache evicts one that is due before one that is not.
    preallocate : bool
        Take the memory for *maxsize* entries at once, so that no later insertion has
        to grow a table. Not with *getsizeof*, where the number is unknown. The
        pure-Python twin checks the argument and takes nothing.
    on_evict : callable, optional
        ``on_evict(key, value, reason)`` is told of each entry that was dropped, with
        the reason ``"capacity"``, ``"expired"`` or ``"resize"``; not of one that was
        deleted, popped, cleared or overwritten. It is called after the fact, outside
        any lock, and may use the cache. If it raises, the operation has taken effect
        all the same and the other calls are made; the first exception reaches the
        caller, others go to :func:`sys.unraisablehook`.
    timer : callable
        The clock of *ttl*, in seconds. It is not called while no entry has a ttl.

    Notes
    -----
    Look-up, store, eviction: O(1). Storing with a ttl: O(1) when the ttl is always
    the same, O(log n) at worst. Native: 32-byte entries under an open-addressing
    table, about 41 bytes an entry when full, unchanged by churn.

    **Thread-safety**: each single call is atomic. Keys are compared inside it, so an
    ``__eq__`` that blocks will block others; it may use the cache itself.

    **Subclassing**: a subclass that overrides ``__getitem__``, ``__setitem__``,
    ``__delitem__``, ``__contains__``, ``__missing__``, ``popitem`` or ``getsizeof``
    sees them called where ``cachetools`` calls them: eviction calls ``popitem()``,
    which does ``del self[key]``; ``get``, ``pop`` and ``setdefault`` go through
    ``key in self`` and ``self[key]``. Overriding is seen on the class, not on the
    instance. Expiry removes entries directly. An instance of the class itself has
    no ``__dict__``.

    Examples
    --------
    >>> cache = LRUCache(2)
    >>> cache["a"] = 1
    >>> cache["b"] = 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """

    __slots__ = (
        "__weakref__",
        "_by_token",
        "_currsize",
        "_data",
        "_evicted",
        "_flights",
        "_getsizeof",
        "_heap",
        "_hits",
        "_inserts",
        "_lock",
        "_maxsize",
        "_misses",
        "_on_evict",
        "_order",
        "_overrides",
        "_preallocate",
        "_seq",
        "_sized",
        "_timed",
        "_timer",
        "_token",
        "_ttl",
    )

    _currsize: int | float
    _data: dict[Any, _Node]  # in the order of insertion
    _evicted: dict[str, int]
    _flights: dict[Any, Any]
    _getsizeof: Callable[[Any], Any] | None
    # (due, seq, token); stale when no node has that token. No node is in here, for the
    # last reference to a dead one must not go while we are at work.
    _heap: list[tuple[float, int, int]]
    _by_token: dict[int, _Node]  # of live entries that have a due time
    _hits: int
    _inserts: int
    _lock: Any
    _maxsize: int | float
    _misses: int
    _on_evict: Callable[[Any, Any, str], object] | None
    # Least recently used first; a node that is not in it is dead.
    _order: OrderedDict[_Node, None]
    _overrides: frozenset[str]
    _preallocate: bool
    _seq: int
    _sized: bool
    _timed: int  # live entries that have a due time
    _timer: Callable[[], Any]
    _token: int
    _ttl: float | None

    def __new__(cls, *args: Any, **kwargs: Any) -> "LRUCache[K, V]":
        self = super().__new__(cls)
        self._lock = new_rlock()
        self._overrides = frozenset()
        if cls is not LRUCache:
            self._overrides = support.overridden(cls, LRUCache, HOOKS)
        self._maxsize = 0
        self._getsizeof = None
        self._sized = "getsizeof" in self._overrides
        self._ttl = None
        self._preallocate = False
        self._on_evict = None
        self._timer = time.monotonic
        self._flights = {}
        self._hits = self._misses = self._inserts = 0
        self._evicted = dict.fromkeys(REASONS, 0)
        self._empty()
        return self

    def _empty(self) -> None:
        self._seq = self._token = 0
        self._data = {}
        self._order = OrderedDict()
        self._currsize = 0
        self._heap = []
        self._by_token = {}
        self._timed = 0

    def __init__(
        self,
        maxsize: int | float,
        getsizeof: Callable[[Any], Any] | None = None,
        *,
        ttl: float | None = None,
        preallocate: bool = False,
        on_evict: Callable[[Any, Any, str], object] | None = None,
        timer: Callable[[], Any] = time.monotonic,
    ) -> None:
        self._configure(maxsize, getsizeof, ttl, preallocate, on_evict, timer)

    def _configure(
        self,
        maxsize: Any,
        getsizeof: Any,
        ttl: Any,
        preallocate: Any,
        on_evict: Any,
        timer: Any,
    ) -> None:
        maxsize = support.checked_maxsize(maxsize)
        ttl = support.checked_ttl(ttl)
        for name, function in (
            ("getsizeof", getsizeof),
            ("on_evict", on_evict),
            ("timer", timer),
        ):
            if not callable(function) and (function is not None or name == "timer"):
                raise TypeError(f"{name} must be callable, not {function!r}")
        if getsizeof is not None:
            self.getsizeof = getsizeof
        sized = self._getsizeof is not None or "getsizeof" in self._overrides
        if preallocate:
            support.checked_preallocate(maxsize, sized)
        old = self._detach()
        with self._lock:
            self._maxsize = maxsize
            self._ttl = ttl
            self._preallocate = bool(preallocate)
            self._on_evict = on_evict
            self._timer = timer
            self._sized = sized
        del old

    getsizeof = _GetSizeOf()
    __signature__ = support.CacheSignature(support.lru_cache_init)

    # ---- Inner parts. "locked" in a docstring: the caller holds the lock. ----

    def _now(self) -> float:
        return float(
            support.checked_number(self._timer(), "the time that timer returns")
        )

    def _detach(self) -> dict[Any, _Node]:
        """Leave the cache empty; what it held dies with the answer."""
        with self._lock:
            old = self._data
            self._empty()
        return old

    def _clock(self) -> float:
        """The time if any entry may be due, else a time at which none is."""
        return self._now() if self._timed else -INF

    def _size(self, value: Any) -> int | float:
        if not self._sized:
            return 1
        return support.checked_size(self.getsizeof(value))

    def _drop(self, node: _Node) -> _Node | None:
        """Take *node* out (locked). The keys' own code may run, raise, re-enter."""
        data = self._data
        found = data.pop(node.key, None)
        if found is None and node in self._order:  # its hash has changed since
            self._data = {k: n for k, n in data.items() if n is not node}
            found = node
        if found is None or found not in self._order:
            return None
        self._forget(found)
        self._by_token.pop(found.token, None)
        self._currsize = self._currsize - found.size if self._data else 0
        self._timed -= found.due < INF
        return found

    def _evict(self, node: _Node, reason: str, out: list[tuple[_Node, str]]) -> None:
        """Drop *node* and note it in *out* (locked)."""
        gone = self._drop(node)
        if gone is not None:
            self._evicted[reason] += 1
            out.append((gone, reason))

    # What a policy other than LRU changes (_pure/cache.py), all locked.

    def _tag(self, key: Any) -> int:
        """What the policy wants to know of the hash of *key*."""
        return 0

    def _add(self, node: _Node) -> None:
        """*node* is new."""
        self._order[node] = None

    def _use(self, node: _Node) -> None:
        """*node* was used."""
        self._order.move_to_end(node)

    def _forget(self, node: _Node) -> None:
        """*node* is no more."""
        del self._order[node]

    def _victim(self) -> _Node:
        """The entry to drop next, of a cache that has one."""
        return next(iter(self._order))

    def _queue(self) -> list[_Node]:
        """All entries in the order of use."""
        return list(self._order)

    def _policy_state(self, nodes: list[_Node]) -> dict[str, Any]:
        """More for :meth:`__getstate__`, of *nodes*."""
        return {}

    def _restore_order(self, state: dict[str, Any]) -> None:
        """Bring the entries into the order of use that :meth:`__getstate__` saw."""
        for place in state["recency"]:
            self.touch(state["items"][place][0])

    def _first_due(self, now: float) -> _Node | None:
        """The entry that is due first, if it is by *now* (locked)."""
        heap = self._heap
        while heap:
            due, _, token = heap[0]
            node = self._by_token.get(token)
            if node is not None:
                return node if due <= now else None
            heapq.heappop(heap)
        return None

    def _set_due(self, node: _Node, due: float) -> None:
        """Give *node* its due time (locked)."""
        self._timed += (due < INF) - (node.due < INF)
        self._by_token.pop(node.token, None)
        node.due = due
        self._token = node.token = self._token + 1
        if due == INF:
            return
        self._by_token[node.token] = node
        heapq.heappush(self._heap, (due, node.seq, node.token))
        if len(self._heap) > 2 * self._timed + 16:  # mostly stale
            self._heap = [item for item in self._heap if item[2] in self._by_token]
            heapq.heapify(self._heap)

    def _expire(self, now: float, most: float, out: list[tuple[_Node, str]]) -> None:
        """Evict up to *most* entries that are due (locked)."""
        while most > 0 and (node := self._first_due(now)) is not None:
            self._evict(node, "expired", out)
            most -= 1

    def _expire_all(self, out: list[tuple[_Node, str]]) -> None:
        if self._timed:
            now = self._now()
            with self._lock:
                self._expire(now, INF, out)

    def _notify(self, evicted: list[tuple[_Node, str]]) -> None:
        """Tell on_evict, outside the lock."""
        if self._on_evict is None or not evicted:
            return
        first: BaseException | None = None
        for node, reason in evicted:
            try:
                self._on_evict(node.key, node.value, reason)
            except BaseException as error:
                if first is None:
                    first = error
                else:
                    _unraisable.report(error)
        if first is not None:
            try:
                raise first
            finally:
                del first

    def _find(
        self, key: Any, *, use: bool = False, count: bool = False
    ) -> _Node | None:
        """The node of *key* unless it is due."""
        out: list[tuple[_Node, str]] = []
        now = self._clock()
        with self._lock:
            node = self._data.get(key)
            if node is not None and node.due <= now:
                self._evict(node, "expired", out)
                node = None
            if node is not None and node not in self._order:
                node = None  # cleared by the key's own __eq__
            if use and node is not None:
                self._use(node)
            if count:
                self._hits += node is not None
                self._misses += node is None
        self._notify(out)
        return node

    def _remove(self, key: Any) -> _Node | None:
        """Take *key* out; None when it is not there, or due."""
        out: list[tuple[_Node, str]] = []
        now = self._clock()
        gone = None
        with self._lock:
            node = self._data.get(key)
            if node is not None and node.due <= now:
                self._evict(node, "expired", out)
            elif node is not None:
                gone = self._drop(node)
        self._notify(out)
        return gone

    def _store(
        self, key: Any, value: Any, ttl: float | None, keep: bool = False
    ) -> Any:
        """Store, and return the value that is stored: with *keep*, one that was."""
        size = self._size(value)
        if size > self._maxsize:
            raise self._too_large(size)
        now = self._now() if ttl is not None or self._timed else -INF
        due = INF if ttl is None else now + ttl
        out: list[tuple[_Node, str]] = []
        try:
            while True:
                with self._lock:
                    removed = self._departed()
                    old = self._put(key, value, size, now, due, keep, out)
                # What was overwritten dies here, where the lock is free.
                if old is not MAKE_ROOM:
                    return old if keep and old is not MISSING else value
                self._ask_popitem("capacity", removed, out)
        finally:
            self._notify(out)

    def _departed(self) -> int:
        """How many entries have gone, whichever way (locked)."""
        return self._inserts - len(self._data)

    def _ask_popitem(
        self, reason: str, removed: int, out: list[tuple[_Node, str]]
    ) -> None:
        """Let an overridden popitem evict one. Not to find the entry that it chose is
        no error when another thread has made room since *removed* was counted."""
        try:
            pair = self.popitem()
        except KeyError:
            with self._lock:
                if self._departed() == removed:
                    raise
            return
        with self._lock:
            self._evicted[reason] += 1
        if isinstance(pair, tuple) and len(pair) == 2:
            out.append((_Node(*pair, 0), reason))

    def _too_large(self, size: int | float) -> ValueTooLargeError:
        return ValueTooLargeError(
            f"value too large: size {size!r}, maxsize {self._maxsize!r}"
        )

    def _put(
        self,
        key: Any,
        value: Any,
        size: int | float,
        now: float,
        due: float,
        keep: bool,
        out: list[tuple[_Node, str]],
    ) -> Any:
        """Store (locked). The value that was there, or MISSING; MAKE_ROOM when an
        overridden popitem has to be called first."""
        self._expire(now, DUE_PER_STORE, out)
        tag = self._tag(key)
        while True:
            node = self._data.get(key)
            if node is not None and node not in self._order:
                continue
            if node is not None and node.due <= now:
                self._evict(node, "expired", out)
                continue
            if keep and node is not None:
                self._use(node)
                return node.value
            more = size if node is None else size - node.size
            if self._currsize + more > self._maxsize:
                victim = self._first_due(now)
                if not self._order:  # the key's __eq__ has resized the cache
                    raise self._too_large(size)
                if victim is not None:
                    self._evict(victim, "expired", out)
                elif self._plain("popitem", "__delitem__"):
                    self._evict(self._victim(), "capacity", out)
                else:
                    return MAKE_ROOM
                continue
            old = MISSING
            if node is None:
                data, node = self._data, _Node(key, value, size)
                found = data.setdefault(key, node)
                if found is not node or data is not self._data:
                    continue  # the key's own __eq__ used the cache, meanwhile
                self._inserts += 1
                self._seq += 1
                node.seq, node.tag = self._seq, tag
                self._add(node)
            else:
                old, node.value, node.size = node.value, value, size
                self._use(node)
            self._currsize += more
            if due < INF or node.due < INF:
                self._set_due(node, due)
            while self._currsize > self._maxsize:  # the key's __eq__ stored others
                self._evict(self._victim(), "capacity", out)
            return old

    def _snapshot(self) -> list[tuple[Any, Any]]:
        """The pairs in the order of insertion; by self[key] if that is overridden."""
        if "__getitem__" in self._overrides:
            return [(key, self[key]) for key in self if key in self]
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        with self._lock:
            pairs = [(node.key, node.value) for node in self._data.values()]
        self._notify(out)
        return pairs

    def _plain(self, *names: str) -> bool:
        return not self._overrides.intersection(names)

    # ---- The mapping ----

    def __repr__(self) -> str:
        return support.shown(self)

    def __getitem__(self, key: K) -> V:
        node = self._find(key, use=True, count=True)
        if node is None:
            return self.__missing__(key)
        return node.value  # type: ignore[no-any-return]

    def __missing__(self, key: K) -> V:
        """What ``cache[key]`` does when *key* is absent: raise KeyError."""
        raise KeyError(key)

    def __setitem__(self, key: K, value: V) -> None:
        self._store(key, value, self._ttl)

    def __delitem__(self, key: K) -> None:
        if self._remove(key) is None:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None

    def __len__(self) -> int:
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        size = len(self._data)
        self._notify(out)
        return size

    def __iter__(self) -> Iterator[K]:
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        with self._lock:
            keys = [node.key for node in self._data.values()]
        self._notify(out)
        return iter(keys)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self._snapshot()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]

    @property
    def maxsize(self) -> int | float:
        """The bound of :attr:`currsize`."""
        return self._maxsize

    @property
    def currsize(self) -> int | float:
        """The sum of the sizes now; an int as long as all sizes are."""
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        size = self._currsize
        self._notify(out)
        return size

    @property
    def ttl(self) -> float | None:
        """Seconds an entry lives unless ``set`` says otherwise; None: for ever."""
        return self._ttl

    def get(self, key: K, default: Any = None) -> Any:
        """The value of *key*, now the most recently used; else *default*.

        ``__missing__`` is not called.
        """
        if self._plain("__contains__", "__getitem__"):
            node = self._find(key, use=True, count=True)
            return default if node is None else node.value
        if key in self:
            return self[key]
        with self._lock:
            self._misses += 1
        return default

    def pop(self, key: K, default: Any = NO_DEFAULT) -> Any:
        """Remove *key* and return its value; else *default* if given.

        Raises
        ------
        KeyError
            *key* is absent and there is no default.
        """
        if self._plain("__contains__", "__getitem__", "__delitem__"):
            node = self._remove(key)
            with self._lock:
                self._hits += node is not None
                self._misses += node is None
            if node is not None:
                return node.value
        elif key in self:
            value = self[key]
            del self[key]
            return value
        else:
            with self._lock:
                self._misses += 1
        if default is NO_DEFAULT:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Remove the least recently used entry and return it as ``(key, value)``.

        Raises
        ------
        KeyError
            The cache is empty.
        """
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        gone: _Node | None = None
        with self._lock:
            plain = self._plain("__delitem__")
            while self._data and gone is None:
                gone = self._drop(self._victim()) if plain else self._victim()
        self._notify(out)
        if gone is None:
            raise KeyError(f"{type(self).__name__} is empty") from None
        pair = gone.key, gone.value
        if not plain:
            del self[gone.key]
        return pair

    def setdefault(self, key: K, default: Any = None) -> Any:
        """The value of *key*, now the most recently used; else store *default*.

        ``__missing__`` is not called.

        Raises
        ------
        ValueTooLargeError
            *default* would have to be stored and is larger than the cache may be.
        """
        if self._plain("__contains__", "__getitem__", "__setitem__"):
            node = self._find(key, use=True, count=True)
            if node is not None:
                return node.value
            return self._store(key, default, self._ttl, keep=True)
        if key in self:
            return self[key]
        with self._lock:
            self._misses += 1
        self[key] = default
        return default

    def clear(self) -> None:
        """Remove all entries. on_evict is not told."""
        self._detach()

    def update(self, other: Any = (), /, **kwds: Any) -> None:
        """Store each pair of a mapping or an iterable of pairs, and each keyword."""
        for key, value in support.pairs(other):
            self[key] = value
        for name, value in kwds.items():
            self[name] = value  # type: ignore[index]

    def keys(self) -> KeysView[K]:
        """The keys as a set-like view, in the order of insertion."""
        return support.CacheKeys(self)

    def values(self) -> ValuesView[V]:
        """The values as a view, in the order of insertion of their keys.

        Unlike in ``cachetools``, to iterate uses no entry: the order in which they
        will be evicted stays, unless a subclass overrides ``__getitem__``.
        """
        return support.CacheValues(self)

    def items(self) -> ItemsView[K, V]:
        """The pairs as a set-like view; see :meth:`values`."""
        return support.CacheItems(self)

    # ---- Beyond the mapping ----

    def peek(self, key: K, default: Any = None) -> Any:
        """The value of *key* or *default*, without a trace.

        The entry keeps its place in the order of use and nothing is counted.
        """
        node = self._find(key)
        return default if node is None else node.value

    def touch(self, key: K) -> bool:
        """Make *key* the most recently used; False when it is absent.

        Its time to live is not renewed, and nothing is counted.
        """
        return self._find(key, use=True) is not None

    def set(self, key: K, value: V, *, ttl: Any = NO_DEFAULT) -> None:
        """Store *value* under *key*.

        Parameters
        ----------
        key, value
            As in ``cache[key] = value``.
        ttl : float or None, optional
            Seconds this entry lives; None or ``math.inf`` for ever. Without it the
            cache's own. The next store under *key* decides anew.

        Raises
        ------
        ValueTooLargeError
            The value is larger than the cache may be; nothing has changed.

        Examples
        --------
        >>> cache = LRUCache(2, ttl=60)
        >>> cache.set("a", 1, ttl=5)
        >>> cache.set("b", 2, ttl=None)
        >>> cache.time_left("b")
        inf
        """
        self._store(
            key, value, self._ttl if ttl is NO_DEFAULT else support.checked_ttl(ttl)
        )

    def get_many(self, keys: Iterable[K], default: Any = None) -> list[Any]:
        """``[cache.get(key, default) for key in keys]``.

        Each look-up is atomic, the whole is not.
        """
        return [self.get(key, default) for key in keys]

    def set_many(self, items: Any) -> None:
        """Store each pair of a mapping or an iterable of pairs.

        Each store is atomic, the whole is not: after an error the pairs before it
        are stored.
        """
        for key, value in support.pairs(items):
            self[key] = value

    def get_or_compute(self, key: K, fn: Callable[[K], V]) -> V:
        """The value of *key*; if it is absent, ``fn(key)``, stored.

        Of several threads that want the same absent key one calls *fn*; the others
        wait and get its value. An exception of *fn* reaches all of them and nothing
        is stored; one that is no ``Exception`` (``KeyboardInterrupt``) stays in its
        own thread, and another takes over. Where waiting would be waiting for oneself
        (*fn* asks for the same key, or two threads each for the other's) *fn* is
        called at once. A value that is too large is returned and not stored.

        Parameters
        ----------
        key
            As in ``cache[key]``.
        fn : callable
            Called as ``fn(key)``, outside any lock.

        Examples
        --------
        >>> cache = LRUCache(2)
        >>> cache.get_or_compute("four", len)
        4
        >>> cache
        LRUCache({'four': 4}, maxsize=2, currsize=1)
        """
        value = self.get(key, MISSING)
        if value is not MISSING:
            return value  # type: ignore[no-any-return]
        return support.single_flight(  # type: ignore[no-any-return]
            self._flights, key, fn, self.peek, self._store_if_it_fits
        )

    def _store_if_it_fits(self, key: Any, value: Any) -> None:
        try:
            self[key] = value
        except ValueTooLargeError:
            return

    def resize(self, maxsize: int | float) -> None:
        """Set the bound; evict, with the reason ``"resize"``, what is over it.

        A subclass that overrides ``popitem`` or ``__delitem__`` sees them called.

        Raises
        ------
        ValueError
            *maxsize* is negative; nothing has changed.
        """
        maxsize = support.checked_maxsize(maxsize)
        if self._preallocate:
            support.checked_preallocate(maxsize, self._sized)
        now = self._clock()
        out: list[tuple[_Node, str]] = []
        try:
            plain = self._plain("popitem", "__delitem__")
            with self._lock:
                self._maxsize = maxsize
                if self._currsize > maxsize:
                    self._expire(now, INF, out)
                while plain and self._currsize > maxsize:
                    self._evict(self._victim(), "resize", out)
            while True:
                with self._lock:
                    removed = self._departed()
                    if self._currsize <= maxsize:
                        break
                self._ask_popitem("resize", removed, out)
        finally:
            self._notify(out)

    def by_recency(self) -> list[K]:
        """The keys, least recently used first: the order of eviction. O(n)."""
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        with self._lock:
            keys = [node.key for node in self._queue()]
        self._notify(out)
        return keys

    def expire(self) -> int:
        """Evict all entries that are due; return how many. O(1) when there are none."""
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        self._notify(out)
        return len(out)

    def time_left(self, key: K) -> float:
        """Seconds until *key* expires; ``inf`` if it never does.

        Raises
        ------
        KeyError
            *key* is absent.
        """
        node = self._find(key)
        if node is None:
            raise KeyError(key)
        return INF if node.due == INF else node.due - self._now()

    def stats(self) -> LRUCacheStats:
        """The counts so far, and what the cache holds now.

        A hit or a miss is counted by ``cache[key]``, ``get``, ``get_many``, ``pop``,
        ``setdefault`` and ``get_or_compute``. ``bytes`` is what the cache's own
        tables take, in the pure-Python twin an estimate.

        Examples
        --------
        >>> cache = LRUCache(2)
        >>> cache.get("a")
        >>> cache.stats().misses
        1
        """
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        with self._lock:
            record = LRUCacheStats(
                hits=self._hits,
                misses=self._misses,
                inserts=self._inserts,
                evicted_capacity=self._evicted["capacity"],
                evicted_expired=self._evicted["expired"],
                evicted_resize=self._evicted["resize"],
                size=len(self._data),
                currsize=self._currsize,
                maxsize=self._maxsize,
                bytes=sys.getsizeof(self._data)
                + sys.getsizeof(self._order)
                + sum(sys.getsizeof(node) for node in self._order)
                + sys.getsizeof(self._heap)
                + len(self._heap) * sys.getsizeof((0.0, 0, 0))
                + sys.getsizeof(self._by_token),
            )
        self._notify(out)
        return record

    def check(self) -> None:
        """Walk all invariants of the tables. O(n); for tests.

        Raises
        ------
        AssertionError
            One is broken.
        """
        with self._lock:
            nodes = self._queue()
            assert {*nodes} == {*self._order}
            assert {*nodes} == {*self._data.values()}
            assert len(nodes) == len(self._data)
            seqs = [node.seq for node in self._data.values()]
            assert seqs == sorted(set(seqs))
            total = sum(node.size for node in nodes)
            assert abs(self._currsize - total) <= 1e-6 * total
            assert total <= self._maxsize + 1e-6 * total or "popitem" in self._overrides
            timed = {node for node in nodes if node.due < INF}
            assert len(timed) == self._timed
            fresh = {item[2] for item in self._heap if item[2] in self._by_token}
            assert timed == set(self._by_token.values())
            assert fresh == set(self._by_token)
            assert len(self._heap) <= 2 * self._timed + 2000

    # ---- Copy and pickle ----

    def __reduce__(self) -> Any:
        return *constructor(type(self)), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the counts: sizes, time left, both orders."""
        out: list[tuple[_Node, str]] = []
        self._expire_all(out)
        now = self._clock()
        with self._lock:
            nodes = list(self._data.values())
            place = {node: i for i, node in enumerate(nodes)}
            recency = [place[node] for node in self._queue()]
            more = self._policy_state(nodes)
            items = [
                (n.key, n.value, n.size, None if n.due == INF else n.due - now)
                for n in nodes
            ]
        self._notify(out)
        return {
            "maxsize": self._maxsize,
            "getsizeof": self._getsizeof,
            "ttl": self._ttl,
            "preallocate": self._preallocate,
            "on_evict": self._on_evict,
            "timer": self._timer,
            "items": items,
            "recency": recency,
            "attributes": dict(getattr(self, "__dict__", ())),
            **more,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`__getstate__` gave."""
        if state["attributes"]:
            self.__dict__.update(state["attributes"])
        self._configure(
            state["maxsize"],
            state["getsizeof"],
            state["ttl"],
            state["preallocate"],
            state["on_evict"],
            state["timer"],
        )
        for key, value, size, left in state["items"]:
            due = INF if left is None else self._now() + left
            out: list[tuple[_Node, str]] = []
            with self._lock:
                old = self._put(key, value, size, -INF, due, False, out)
            del old, out
        self._restore_order(state)
        with self._lock:
            self._inserts = self._hits = self._misses = 0
