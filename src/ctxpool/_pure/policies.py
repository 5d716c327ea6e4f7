"""What a full cache drops: each policy as plainly as its paper has it.

The cache tells its policy of each entry that comes, is used and goes, and asks it for
the entry to drop when it has to make room. Shares of a cache ("a tenth") are shares
of the entries it holds, so that they mean the same with sizes of every kind.

A policy that remembers keys beyond their eviction remembers 32 bits of their hash: its
memory is bounded, and no foreign code runs.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from itertools import chain, count
from typing import Any

__all__ = [
    "Fifo",
    "Lfu",
    "Lru",
    "Mru",
    "Policy",
    "RandomChoice",
    "S3Fifo",
    "Sieve",
    "tag_of",
]

Node = Any
Queue = OrderedDict[Node, Any]  # oldest first
GOLDEN = 0x9E3779B97F4A7C15
MASK_64 = (1 << 64) - 1
# Entries that were used and so are passed by, until the next goes all the same: a cache
# in which all were used is no reason for a pause.
MOST_PASSED = 32


def tag_of(hashed: int) -> int:
    """The 32 bits of a hash that the native table keeps."""
    spread = (((hashed & MASK_64) >> 3) * GOLDEN & MASK_64) >> 32
    return spread & ~7 | hashed & 7


def oldest(queue: Queue) -> Node:
    return next(iter(queue))


class Policy(ABC):
    """What a cache asks of its policy."""

    @abstractmethod
    def add(self, node: Node) -> None:
        """*node* is new."""

    def use(self, node: Node) -> None:  # noqa: B027 - for FIFO that is all
        """*node* was hit, or its value replaced."""

    @abstractmethod
    def remove(self, node: Node) -> None:
        """*node* is no more."""

    @abstractmethod
    def victim(self) -> Node:
        """The node to drop, of one or more."""

    @abstractmethod
    def order(self) -> list[Node]:
        """All nodes in the order of the queues, oldest first."""

    def mark(self, node: Node) -> int:
        """What is known of *node* besides its place, for a copy."""
        return 0

    def restore(self, marked: Iterable[tuple[Node, int]]) -> None:
        """Take up nodes in the order, and with the marks, of another."""
        for node, _ in marked:
            self.add(node)


class _OneQueue(Policy):
    def __init__(self) -> None:
        self.queue: Queue = OrderedDict()

    def add(self, node: Node) -> None:
        self.queue[node] = 0

    def remove(self, node: Node) -> None:
        del self.queue[node]

    def victim(self) -> Node:
        return oldest(self.queue)

    def order(self) -> list[Node]:
        return list(self.queue)


class Fifo(_OneQueue):
    """First in, first out."""


class Lru(_OneQueue):
    """Least recently used."""

    def use(self, node: Node) -> None:
        self.queue.move_to_end(node)


class Mru(Lru):
    """Most recently used."""

    def victim(self) -> Node:
        return next(reversed(self.queue))


class RandomChoice(_OneQueue):
    """Any; by the generator splitmix64, which starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.state = 0

    def add(self, node: Node) -> None:
        self.queue[node] = len(self.nodes)
        self.nodes.append(node)

    def remove(self, node: Node) -> None:
        place, last = self.queue.pop(node), self.nodes.pop()
        if last is not node:
            self.nodes[place] = last
            self.queue[last] = place

    def victim(self) -> Node:
        self.state = x = (self.state + GOLDEN) & MASK_64
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK_64
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK_64
        return self.nodes[((x ^ x >> 31) >> 32) * len(self.nodes) >> 32]


class Sieve(_OneQueue):
    """SIEVE: a hand moves from the oldest to the newest and drops what was not used
    since it last came by. Nothing is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.hand: Node | None = None
        self.newer: dict[Node, Node | None] = {}  # neighbours, for the hand
        self.older: dict[Node, Node | None] = {}

    def add(self, node: Node) -> None:
        before = next(reversed(self.queue), None)
        self.queue[node] = 0
        self.newer[node], self.older[node] = None, before
        if before is not None:
            self.newer[before] = node

    def use(self, node: Node) -> None:
        self.queue[node] = 1

    def remove(self, node: Node) -> None:
        del self.queue[node]
        newer, older = self.newer.pop(node), self.older.pop(node)
        if newer is not None:
            self.older[newer] = older
        if older is not None:
            self.newer[older] = newer
        if self.hand is node:
            self.hand = newer

    def victim(self) -> Node:
        node = self.hand or oldest(self.queue)
        while self.queue[node]:
            self.queue[node] = 0
            node = self.newer[node] or oldest(self.queue)
        self.hand = node
        return node

    def mark(self, node: Node) -> int:
        return int(self.queue[node] | (node is self.hand) << 1)

    def restore(self, marked: Iterable[tuple[Node, int]]) -> None:
        for node, mark in marked:
            self.add(node)
            self.queue[node] = mark & 1
            if mark & 2:
                self.hand = node


class Lfu(Policy):
    """Least frequently used; of several the least recently used."""

    def __init__(self) -> None:
        self.count: dict[Node, int] = {}
        self.queues: dict[int, Queue] = {}  # by count; none is empty
        self.least = 0

    def _put(self, node: Node, count: int) -> None:
        self.count[node] = count
        self.queues.setdefault(count, OrderedDict())[node] = 0

    def _take(self, node: Node) -> int:
        count = self.count.pop(node)
        del self.queues[count][node]
        if not self.queues[count]:
            del self.queues[count]
        return count

    def add(self, node: Node) -> None:
        self._put(node, 1)
        self.least = 1

    def use(self, node: Node) -> None:
        if self.count[node] == 0xFFFFFFFF:
            return
        count = self._take(node)
        self._put(node, count + 1)
        if self.least not in self.queues:
            self.least = count + 1

    def remove(self, node: Node) -> None:
        self._take(node)
        if self.least not in self.queues:
            self.least = min(self.queues, default=0)

    def victim(self) -> Node:
        return oldest(self.queues[self.least])

    def order(self) -> list[Node]:
        return list(chain(*(self.queues[count] for count in sorted(self.queues))))

    def mark(self, node: Node) -> int:
        return self.count[node]

    def restore(self, marked: Iterable[tuple[Node, int]]) -> None:
        for node, mark in marked:
            self._put(node, mark)
        self.least = min(self.queues, default=0)


class Ghosts:
    """The tags of the entries that went last, each with the time of its death, counted
    in deaths; in buckets of four, which lose their oldest when they are full."""

    def __init__(self) -> None:
        self.buckets: list[list[list[int]]] = []  # [tag, died]; died 0: empty
        self.now = 0

    def _bucket(self, tag: int) -> list[list[int]]:
        mixed = tag * 0x9E3779B1 & 0xFFFFFFFF
        return self.buckets[(mixed ^ mixed >> 16) & len(self.buckets) - 1]

    def _grow(self, room: int) -> None:
        old = self.buckets
        count = 1
        while count < room // 2 and count < 1 << 27:
            count *= 2
        self.buckets = [[[0, 0] for _ in range(4)] for _ in range(count)]
        for bucket in old:
            for way, (tag, died) in enumerate(bucket):
                if died:
                    self._bucket(tag)[way] = [tag, died]

    def add(self, tag: int, room: int) -> None:
        """*tag* has died; *room* are remembered."""
        if len(self.buckets) < room // 2 or not self.buckets:
            self._grow(room)
        self.now = self.now + 1 & 0xFFFFFFFF or 1
        bucket = self._bucket(tag)
        for slot in bucket:
            if slot[0] == tag and slot[1]:
                slot[1] = self.now
                return
        slot = max(bucket, key=self._age)
        slot[:] = tag, self.now

    def _age(self, slot: list[int]) -> int:
        return self.now - slot[1] & 0xFFFFFFFF if slot[1] else 0xFFFFFFFF

    def take(self, tag: int, room: int) -> bool:
        """Forget *tag*; whether it was among the last *room* that died."""
        if self.buckets:
            for slot in self._bucket(tag):
                if slot[0] == tag and slot[1]:
                    known = self._age(slot) < room
                    slot[:] = 0, 0
                    return known
        return False


class S3Fifo(Policy):
    """S3-FIFO: what is new waits in a small queue, a tenth of all; what was used twice
    there, or comes back soon after, goes to the main queue; what was used in the main
    queue goes round once more. A hit only counts, up to 3."""

    def __init__(self) -> None:
        self.small: Queue = OrderedDict()
        self.main: Queue = OrderedDict()
        self.ghosts = Ghosts()
        self.high = 0

    def _queue(self, node: Node) -> Queue:
        return self.small if node in self.small else self.main

    def add(self, node: Node) -> None:
        self.high = max(self.high, len(self.small) + len(self.main) + 1)
        known = self.ghosts.take(node.tag, self.high - self.high // 10)
        (self.main if known else self.small)[node] = 0

    def use(self, node: Node) -> None:
        queue = self._queue(node)
        queue[node] = min(queue[node] + 1, 3)

    def remove(self, node: Node) -> None:
        del self._queue(node)[node]

    def victim(self) -> Node:
        small, main = self.small, self.main
        for passed in count():
            if len(small) * 10 >= len(small) + len(main):
                node = oldest(small)
                if small[node] < 2 or passed == MOST_PASSED:
                    self.ghosts.add(node.tag, self.high - self.high // 10)
                    return node
                del small[node]
                main[node] = 0
            else:
                node = oldest(main)
                if not main[node] or passed == MOST_PASSED:
                    return node
                main[node] -= 1
                main.move_to_end(node)

    def order(self) -> list[Node]:
        return [*self.main, *self.small]

    def mark(self, node: Node) -> int:
        return self.main[node] | 4 if node in self.main else int(self.small[node])

    def restore(self, marked: Iterable[tuple[Node, int]]) -> None:
        for node, mark in marked:
            (self.main if mark & 4 else self.small)[node] = mark & 3
        self.high = len(self.main) + len(self.small)
