"""Cache in Python: an LRUCache that asks a policy which entry to drop."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from .. import _cache_support as support
from .lru_cache import LRUCache, _Node
from .policies import (
    Fifo,
    Lfu,
    Lru,
    Mru,
    Policy,
    RandomChoice,
    S3Fifo,
    Sieve,
    tag_of,
)
from .tinylfu import Adaptive, TinyLfu

__all__ = ["Cache"]

K = TypeVar("K")
V = TypeVar("V")

POLICIES: dict[str, Callable[[], Policy]] = {
    "adaptive": Adaptive,
    "fifo": Fifo,
    "lfu": Lfu,
    "lru": Lru,
    "mru": Mru,
    "rr": RandomChoice,
    "s3fifo": S3Fifo,
    "sieve": Sieve,
    "tinylfu": TinyLfu,
}


class Cache(LRUCache[K, V]):
    """A mapping with a bound, and a choice of what goes when it is full.

    In everything else it is the :class:`LRUCache` that it derives from: what a use is,
    what expires, what is counted, what a subclass may override. ``by_recency()`` gives
    the order of the policy's queues, and ``popitem()`` the entry that the policy
    would drop.

    Parameters
    ----------
    maxsize : int or float
        The bound of ``currsize``; ``math.inf`` for none.
    policy : str
        ``"s3fifo"``, the one to begin with: new entries wait in a small queue, a tenth
        of all; those used twice there, or back soon after they went, enter the main
        queue, where those that were used go round again. Scans pass through. **It can
        fall far below LRU** (40 points on one trace) where keys are read once up and
        once down: each comes back just after it left the small queue. Yang et al.,
        *FIFO queues are all you need for cache eviction*, SOSP 2023.

        ``"sieve"``: one queue and a hand that spares, once, what was used since it
        last came by. The cheapest hit. **It can fall far below LRU** (30 points on
        some traces) where keys are read in turns that the hand outlives. Zhang et al.,
        *SIEVE is simpler than LRU*, NSDI 2024.

        ``"adaptive"``: LRU, or W-TinyLFU (below) with a window of 1 % or of 25 %, as of
        late did best. All three run in miniature on a sample of the keys, and LRU has
        the cache back as soon as the other falls behind it: on public traces 10 points
        above LRU in the mean, **nowhere more than 1 below**. The choice is that of the
        mini-simulation in Einziger, Eytan, Friedman, Manes, *Adaptive software cache
        management*, Middleware 2018; the sample that of Waldspurger et al., *Cache
        modeling and optimization using miniature simulations*, USENIX ATC 2017; the
        scores are bounded sums as in Page, *Continuous inspection schemes*, Biometrika
        41 (1954).

        ``"tinylfu"``: W-TinyLFU. New entries wait in a small window; what leaves it has
        to have been asked for more often than what the main part, a segmented LRU,
        would drop for it. The window starts at 1 % and climbs with the hit ratio, a
        step each ten requests an entry. **It can fall below LRU**: by 12 points on one
        trace (keys read once up and once down) and by 3 on another, by 8 to 16 where
        what is popular changes fast. Einziger, Friedman, Manes, *TinyLFU: a highly
        efficient cache admission policy*, ACM TOS 13 (2017), and *Adaptive software
        cache management*.

        ``"lru"``: the least recently used; Mattson et al., *Evaluation techniques for
        storage hierarchies*, IBM Systems Journal 9 (1970).

        ``"fifo"``: the oldest; uses count for nothing, which **can cost far more** than
        LRU. Belady, *A study of replacement algorithms for a virtual-storage computer*,
        IBM Systems Journal 5 (1966).

        ``"lfu"``: the least often used, of several the least recently used, by lists
        in O(1): Shah, Mitra, Matani, *An O(1) algorithm for implementing the LFU cache
        eviction scheme* (2010). **It can fall far below LRU**: what was once popular
        stays.

        ``"mru"``: the most recently used, for endless loops over more than fits; Chou
        and DeWitt, *An evaluation of buffer management strategies*, VLDB 1985. **Far
        below LRU** elsewhere.

        ``"rr"``: any, by a generator of fixed seed (splitmix64: Steele et al., *Fast
        splittable pseudorandom number generators*, OOPSLA 2014); the policy of Belady
        (1966) that no pattern of access defeats, if it does not know the seed.
    getsizeof, ttl, preallocate, on_evict, timer
        As for :class:`LRUCache`. Shares of a cache, such as the small queue's tenth,
        are shares of its entries, whatever their sizes.

    Notes
    -----
    A hit moves nothing with ``fifo``, ``rr``, ``sieve`` and ``s3fifo``. Look-up, store
    and making room are O(1), making room amortised with ``sieve``, which now and then
    passes by all entries; ``s3fifo`` does so with 32 at most before the next goes all
    the same. Native, a hit of ``tinylfu`` takes up to 1.4 times as long as one of
    ``s3fifo``, one of ``adaptive`` up to 1.9 times, in the smallest caches.

    Beside the entries of an LRUCache: 1 byte an entry with ``sieve``, 15 to 30 with
    ``s3fifo`` (it remembers the hashes of nearly as many evicted keys), 8 with ``rr``,
    12 with ``lfu``, 10 with ``tinylfu``. ``adaptive`` has the 10 of ``tinylfu`` and its
    miniatures: 100 to 280 bytes an entry up to 512 entries, 90 KB in all up to 32,768,
    1 to 4 bytes an entry beyond.

    A copy or pickle keeps the order and what is known of each entry, and forgets the
    evicted keys. ``adaptive`` and ``tinylfu`` keep the window they had chosen, and
    begin their measurements anew. They decide by nothing but the sequence of calls and
    the hashes of the keys: no clock, no seed from outside.

    Raises
    ------
    ValueError
        There is no such policy, or a number is out of its range.
    TypeError
        An argument is of the wrong type.

    Examples
    --------
    >>> cache = Cache(3, "sieve")
    >>> cache.update(a=1, b=2, c=3)
    >>> cache["a"]
    1
    >>> cache["d"] = 4                 # "b" is the oldest that was not used
    >>> list(cache)
    ['a', 'c', 'd']
    """

    __slots__ = ("_name", "_next_name", "_policy")

    _name: str
    _next_name: str  # from the next time on that the cache is emptied
    _policy: Policy

    def __init__(
        self,
        maxsize: int | float,
        policy: str = "s3fifo",
        getsizeof: Callable[[Any], Any] | None = None,
        *,
        ttl: float | None = None,
        preallocate: bool = False,
        on_evict: Callable[[Any, Any, str], object] | None = None,
        timer: Callable[[], Any] = time.monotonic,
    ) -> None:
        self._next_name = support.checked_policy(policy)
        try:
            super().__init__(
                maxsize,
                getsizeof,
                ttl=ttl,
                preallocate=preallocate,
                on_evict=on_evict,
                timer=timer,
            )
        finally:
            self._next_name = self._name

    __signature__ = support.CacheSignature(support.cache_init)

    @property
    def policy(self) -> str:
        """The name of the policy."""
        return self._name

    # ---- Inner parts, all locked ----

    def _empty(self) -> None:
        super()._empty()
        self._name = self._next_name = getattr(self, "_next_name", "s3fifo")
        self._policy = POLICIES[self._name]()

    def _tag(self, key: Any) -> int:
        return tag_of(hash(key))

    def _add(self, node: _Node) -> None:
        self._order[node] = None
        self._policy.add(node)

    def _use(self, node: _Node) -> None:
        self._policy.use(node)

    def _forget(self, node: _Node) -> None:
        del self._order[node]
        self._policy.remove(node)

    def _victim(self) -> _Node:
        node: _Node = self._policy.victim()
        return node

    def _queue(self) -> list[_Node]:
        return self._policy.order()

    # ---- Copy and pickle ----

    def _policy_state(self, nodes: list[_Node]) -> dict[str, Any]:
        marks = [self._policy.mark(node) for node in nodes]
        return {"policy": self._name, "marks": marks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`__getstate__` gave."""
        self._next_name = support.checked_policy(state["policy"])
        super().__setstate__(state)

    def _restore_order(self, state: dict[str, Any]) -> None:
        with self._lock:
            nodes = list(self._data.values())
            if len(nodes) != len(state["recency"]):
                return
            self._policy = POLICIES[self._name]()
            self._policy.restore(
                [(nodes[place], state["marks"][place]) for place in state["recency"]]
            )
