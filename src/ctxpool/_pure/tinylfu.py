"""W-TinyLFU, and the policy that chooses between it and LRU as it goes.

What is new enters the window, an LRU queue. What leaves the window has to have been
asked for more often than what the main part would drop for it; the main part is a
segmented LRU: probation, and after one more use protected, up to four fifths of it.

All arithmetic is in whole numbers, so that both implementations decide the same.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from .policies import GOLDEN, MASK_64, Node, Policy, Queue, oldest

__all__ = ["Adaptive", "TinyLfu"]

WINDOW, PROBATION, PROTECTED = range(3)
PERIOD = 10  # requests an entry, between two halvings and between two steps of a climb
LEAST, MOST = 655, 52429  # 1 % and 80 %: shares of the window are in 65,536ths
STEP, RESTART = 4096, 3277  # 6.25 %; a change of the hit ratio by 5 %
SHADOW_MOST, SHADOW_LOG, PURGE = 512, 6, 16


def mix(tag: int) -> int:
    """64 well mixed bits of a tag."""
    x = tag * GOLDEN & MASK_64
    x = (x ^ x >> 32) * 0xBF58476D1CE4E5B9 & MASK_64
    return x ^ x >> 29


class Sketch:
    """How often keys were asked for of late: a count-min sketch of 4-bit counters.

    It is for keys the cache does not hold. One that it holds has a count of its own,
    which enters the sketch when the key leaves. Each tag has four counters in one block
    of 128. Blocks are split one by one, as in linear hashing. After ten accesses an
    entry, then each five, an epoch ends, and blocks are halved one by one.
    """

    def __init__(self) -> None:
        self.blocks: list[list[int]] = [[0] * 8]
        self.level = 1
        self.sweep = 1  # the next block to halve; none when it is past the last
        self.accesses = 0
        self.epoch = 0

    def grow(self, entries: int) -> None:
        """Have a block for each eight *entries*."""
        blocks = self.blocks
        while len(blocks) * 8 < entries:
            if len(blocks) == 2 * self.level:
                self.level *= 2
            self.sweep += self.sweep == len(blocks)  # the copy is as halved as it
            blocks.append(list(blocks[len(blocks) - self.level]))

    def _block(self, mixed: int) -> list[int]:
        place = mixed >> 32 & (2 * self.level - 1)
        if place >= len(self.blocks):
            place &= self.level - 1
        return self.blocks[place]

    @staticmethod
    def _counters(mixed: int) -> list[tuple[int, int]]:
        """(word, shift) of each of the four."""
        picks = [mixed >> 5 * i & 31 for i in range(4)]
        return [(2 * i + (pick & 1), (pick >> 1) * 4) for i, pick in enumerate(picks)]

    def tick(self, entries: int) -> None:
        """An access: a step of the aging. The cache has held *entries*."""
        self.accesses += 1
        if self.sweep < len(self.blocks):
            block = self.blocks[self.sweep]
            block[:] = [word >> 1 & 0x7777777777777777 for word in block]
            self.sweep += 1
        elif self.accesses >= PERIOD * max(entries, 8):
            self.accesses //= 2
            self.sweep = 0
            self.epoch += 1

    def estimate(self, tag: int) -> int:
        """How often *tag* was counted of late, or more."""
        mixed = mix(tag)
        block = self._block(mixed)
        return min(block[word] >> shift & 15 for word, shift in self._counters(mixed))

    def raise_to(self, tag: int, count: int) -> None:
        """Have *tag* counted at least that often."""
        mixed = mix(tag)
        block = self._block(mixed)
        for word, shift in self._counters(mixed):
            if block[word] >> shift & 15 < count:
                block[word] = block[word] & ~(15 << shift) | count << shift


class Counts:
    """Frequencies, up to 15, of what is held; halved at the end of each epoch."""

    def __init__(self, sketch: Sketch) -> None:
        self.sketch = sketch
        self.counts: dict[Node, tuple[int, int]] = {}  # and the epoch, modulo 1024

    def put(self, node: Node, frequency: int) -> None:
        self.counts[node] = frequency, self.sketch.epoch & 1023

    def frequency(self, node: Node) -> int:
        frequency, epoch = self.counts[node]
        return frequency >> min((self.sketch.epoch - epoch) & 1023, 4)

    def forget(self, node: Node, tag: int) -> None:
        """*node* is held no more."""
        self.sketch.raise_to(tag, self.frequency(node))
        del self.counts[node]


class Segments:
    """Window, probation and protected. A window of 0 means that all is window: LRU."""

    def __init__(
        self,
        frequency: Callable[[Node], int],
        admits: Callable[[int, int], bool] = int.__gt__,
    ) -> None:
        self.queues: list[Queue] = [OrderedDict(), OrderedDict(), OrderedDict()]
        self.segment: dict[Node, int] = {}
        self.frequency = frequency
        self.admits = admits

    def _put(self, node: Node, segment: int) -> None:
        self.segment[node] = segment
        self.queues[segment][node] = None

    def _move(self, node: Node, segment: int) -> None:
        del self.queues[self.segment[node]][node]
        self._put(node, segment)

    def _move_oldest(self, source: int, length: int, target: int) -> None:
        """Bring a segment towards its *length*, by at most four."""
        queue = self.queues[source]
        for _ in range(min(4, len(queue) - length)):
            self._move(oldest(queue), target)

    def use(self, node: Node, size: int, window: int) -> None:
        if not window or self.segment[node] == WINDOW:
            self._move(node, WINDOW)
        else:
            self._move(node, PROTECTED)
            self._move_oldest(PROTECTED, max(size - window, 0) * 4 // 5, PROBATION)

    def add(self, node: Node) -> None:
        self._put(node, WINDOW)

    def settle(self, window: int) -> None:
        """After an addition: a window that is too long sheds entries to probation."""
        if window:
            self._move_oldest(WINDOW, window, PROBATION)

    def remove(self, node: Node) -> None:
        del self.queues[self.segment.pop(node)][node]

    def victim(self, window: int) -> Node:
        new, probation, protected = self.queues
        victim = oldest(probation or protected or new)
        if not window or len(new) < window or len(new) == len(self.segment):
            return victim
        candidate = oldest(new)
        if not self.admits(self.frequency(candidate), self.frequency(victim)):
            return candidate
        self._move(candidate, PROBATION)
        return victim

    def order(self) -> list[Node]:
        new, probation, protected = self.queues
        return [*probation, *protected, *new]


class Admission:
    """Whether one that was asked for *a* times replaces one asked for *b* times.

    One in 128 of those that lose though they are in demand does it nevertheless: keys
    made to collide in the sketch with the victim cannot shut the others out.
    """

    def __init__(self) -> None:
        self.state = 0

    def __call__(self, a: int, b: int) -> bool:
        if a > b or a < 6:
            return a > b
        self.state = x = (self.state + GOLDEN) & MASK_64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK_64
        return x >> 57 == 0


class TinyLfu(Policy):
    """W-TinyLFU, the share of whose window climbs."""

    def __init__(self) -> None:
        self.sketch = Sketch()
        self.counts = Counts(self.sketch)
        self.segments = Segments(self.counts.frequency, Admission())
        self.high = 0
        self.share, self.step, self.upwards = LEAST, STEP, True
        self.hits = self.requests = self.before = 0

    def _window(self) -> int:
        return max(len(self.segments.segment) * self.share >> 16, 1)

    def _climb(self) -> None:
        ratio = (self.hits << 16) // self.requests
        if ratio < self.before:
            self.upwards = not self.upwards
        restart = abs(ratio - self.before) >= RESTART
        self.step = STEP if restart else self.step * 98 // 100
        share = self.share + (self.step if self.upwards else -self.step)
        self.share = min(max(share, LEAST), MOST)
        self.before = ratio
        self.hits = self.requests = 0

    def _count(self, node: Node, frequency: int, hit: int) -> None:
        """*node*, of that frequency before, was asked for or stored."""
        frequency = min(frequency + 1, 15)
        self.counts.put(node, frequency)
        self.sketch.tick(self.high)
        self._learn(node.tag, frequency, hit)

    def _known(self, tag: int) -> int:
        """How often *tag* was asked for, which is not held."""
        return self.sketch.estimate(tag)

    def _learn(self, tag: int, frequency: int, hit: int) -> None:
        """What the access says of the window to have."""
        self.hits += hit
        self.requests += 1
        if self.requests >= PERIOD * max(self.high, 8):
            self._climb()

    def add(self, node: Node) -> None:
        self.segments.add(node)
        self.high = max(self.high, len(self.segments.segment))
        self.sketch.grow(self.high)
        self._count(node, self._known(node.tag), 0)
        self.segments.settle(self._window())

    def use(self, node: Node) -> None:
        self._count(node, self.counts.frequency(node), 1)
        self.segments.use(node, len(self.segments.segment), self._window())

    def remove(self, node: Node) -> None:
        self.counts.forget(node, node.tag)
        self.segments.remove(node)

    def victim(self) -> Node:
        return self.segments.victim(self._window())

    def order(self) -> list[Node]:
        return self.segments.order()

    def mark(self, node: Node) -> int:
        frequency = self.counts.frequency(node)
        return self.segments.segment[node] | frequency << 2 | self._state() << 6

    def restore(self, marked: Iterable[tuple[Node, int]]) -> None:
        marked = list(marked)
        self.high = len(marked)
        self.sketch.grow(self.high)
        segment, state = PROBATION, 0
        for node, mark in marked:
            self.counts.put(node, mark >> 2 & 15)
            if segment == PROBATION and mark & 3 == PROTECTED:
                segment = PROTECTED
            elif mark & 3 == WINDOW:
                segment = WINDOW
            self.segments._put(node, segment)
            state = mark >> 6
        self._restore_state(state)

    def _state(self) -> int:
        return self.share

    def _restore_state(self, state: int) -> None:
        self.share = min(max(state, LEAST), MOST)


def window_of(expert: int, size: int) -> int:
    """The window of an expert in a cache of *size* entries; 0 for LRU, the first."""
    return max((size * (0, 1, 25)[expert] + 50) // 100, 1) if expert else 0


def bounded(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)


class Shadows:
    """Three caches in miniature: what each of three experts would hold of a sample.

    All see the accesses to the keys of the sample: all keys of a cache of up to 512
    entries, of a larger one each 2nd, 4th, ... 64th, by bits of the hash. Experts: LRU,
    W-TinyLFU with a window of 1 %, and of 25 %.
    """

    def __init__(self, sketch: Sketch) -> None:
        self.counts = Counts(sketch)
        self.experts = [Segments(self.counts.frequency) for _ in range(3)]
        self.nodes: list[int | None] = []  # tags; only for the order of the purge
        self.place: dict[int, int] = {}
        self.free: list[int] = []
        self.log = 0
        self.purge = 0
        self.lead = [0, 0, 0]  # hits of each expert over LRU's, in bounds
        self.between = 0  # hits of expert 2 over those of expert 1
        self.better = 0
        self.chosen = 0

    def _sampled(self, tag: int) -> bool:
        return not mix(tag) >> 26 & 63 & ((1 << self.log) - 1)

    def _sample(self, high: int) -> None:
        """A smaller sample for a cache that has held *high* entries."""
        log = self.log
        while log < SHADOW_LOG and high >> log > SHADOW_MOST:
            log += 1
        if log != self.log:
            self.log, self.purge = log, len(self.nodes)

    def _drop(self, expert: Segments, tag: int) -> None:
        expert.remove(tag)
        if not any(tag in other.segment for other in self.experts):
            self.counts.forget(tag, tag)
            place = self.place.pop(tag)
            self.nodes[place] = None
            self.free.append(place)

    def _purge(self) -> None:
        end = max(self.purge - PURGE, 0)
        for tag in self.nodes[end : self.purge][::-1]:
            if tag is not None and not self._sampled(tag):
                for expert in self.experts:
                    if tag in expert.segment:
                        self._drop(expert, tag)
        self.purge = end

    def _see(self, tag: int, frequency: int, size: int) -> list[bool]:
        """Which experts have *tag*, that is asked for; the others take it up."""
        self._purge()
        if tag not in self.place:
            if self.free:
                place = self.free.pop()
            else:
                place = len(self.nodes)
                self.nodes.append(None)
            self.nodes[place], self.place[tag] = tag, place
        self.counts.put(tag, frequency)
        hits = []
        for number, expert in enumerate(self.experts):
            window = window_of(number, size)
            hits.append(tag in expert.segment)
            if hits[-1]:
                expert.use(tag, size, window)
                continue
            for _ in range(2):
                if len(expert.segment) >= size:
                    self._drop(expert, expert.victim(window))
            expert.add(tag)
            expert.settle(window)
        return hits

    def _judge(self, hits: list[bool], size: int) -> None:
        if all(hits) or not any(hits):
            return
        margin = size // 50
        lead = self.lead
        for x in 1, 2:
            lead[x] = bounded(lead[x] + hits[x] - hits[0], -2 * size, size // 4 + 1)
        self.between = bounded(self.between + hits[2] - hits[1], -size, size)
        if self.between > margin:
            self.better = 2
        elif self.between < -margin or not self.better:
            self.better = 1
        if not self.chosen:
            for x in self.better, 3 - self.better:
                if lead[x] > margin:
                    self.chosen = x
                    break
        elif lead[self.chosen] < 0:
            self.chosen = 0
        elif lead[self.better] >= 0:
            self.chosen = self.better

    def known(self, tag: int) -> int:
        """How often *tag* was asked for, as far as is known here."""
        known = tag in self.place and self._sampled(tag)
        return self.counts.frequency(tag) if known else 0

    def access(self, tag: int, frequency: int, hit: int, used: int, high: int) -> None:
        """*tag* was asked for; the cache holds *used* and has held *high*."""
        self._sample(high)
        if self._sampled(tag):
            size = max(used >> self.log, 1)
            hits = self._see(tag, frequency, size)
            if not self.chosen:  # the cache itself is LRU, all of it
                hits[0] |= bool(hit)
            self._judge(hits, size)

    def restore(self, counted: list[tuple[int, int]], chosen: int) -> None:
        """All hold what is there of these (tag, frequency), oldest first."""
        self._sample(len(counted))
        for tag, frequency in counted:
            if self._sampled(tag):
                self._see(tag, frequency, max(len(counted) >> self.log, 1))
        self.chosen = self.better = chosen if chosen < len(self.experts) else 0


class Adaptive(TinyLfu):
    """LRU, or W-TinyLFU with a window of 1 % or of 25 %: what did best of late."""

    def __init__(self) -> None:
        super().__init__()
        self.shadows = Shadows(self.sketch)

    def _window(self) -> int:
        return window_of(self.shadows.chosen, len(self.segments.segment))

    def _known(self, tag: int) -> int:
        return max(super()._known(tag), self.shadows.known(tag))

    def _learn(self, tag: int, frequency: int, hit: int) -> None:
        self.shadows.access(tag, frequency, hit, len(self.segments.segment), self.high)

    def _state(self) -> int:
        return self.shadows.chosen

    def _restore_state(self, state: int) -> None:
        frequency = self.counts.frequency
        counted = [(node.tag, frequency(node)) for node in self.order()]
        self.shadows.restore(counted, state)
